//! Limits of annotations, and options that a pod cannot set.

use super::*;

fn problem(name: &str, value: &str) -> String {
    let problems = layer(&[(name, value)], Layer::default()).unwrap_err();
    assert_eq!(problems.len(), 1);
    problems[0].to_string()
}

#[test]
fn lists_beyond_the_limit_of_pods_are_rejected() {
    let numbers = |count: usize| {
        (1..)
            .step_by(2)
            .take(count)
            .map(|number| number.to_string())
            .collect::<Vec<_>>()
    };
    for (name, max) in [
        ("traffic.sidetrack.dev/exclude-gids", 1024),
        ("traffic.sidetrack.dev/exclude-inbound-ports", 1024),
        ("traffic.sidetrack.dev/exclude-outbound-cidrs", 4096),
        ("traffic.sidetrack.dev/dns-servers", 64),
        ("traffic.sidetrack.dev/exclude-interfaces", 64),
        ("traffic.sidetrack.dev/exclude-outbound-ports-for-uids", 256),
        ("traffic.kuma.io/exclude-outbound-tcp-ports-for-uids", 256),
        ("config.linkerd.io/skip-outbound-ports", 1024),
    ] {
        let list = |count: usize| match name {
            name if name.ends_with("for-uids") => format!("{}:1000", numbers(count - 1).join(",")),
            name if name.contains("cidrs") || name.contains("servers") => {
                let address = |number: &String| std::net::Ipv4Addr::from_bits(number.parse().unwrap()).to_string();
                numbers(count).iter().map(address).collect::<Vec<_>>().join(",")
            }
            name if name.ends_with("interfaces") => {
                let names: Vec<String> = numbers(count).iter().map(|number| format!("net{number}")).collect();
                names.join(",")
            }
            _ => numbers(count).join(","),
        };
        assert!(layer(&[(name, &list(max))], Layer::default()).is_ok(), "{name}");
        let problem = problem(name, &list(max + 1));
        let says = [
            name,
            &format!("has {} elements, and the limit for a pod is {max}", max + 1),
        ];
        assert!(says.iter().all(|part| problem.contains(part)), "{problem}");
    }
}

#[test]
fn annotations_longer_than_kubernetes_takes_are_refused_as_a_whole() {
    let text = " ".repeat(MAX_BYTES);
    let problem = problem("example.com/notes", &text);
    assert!(
        problem.contains("example.com/notes") && problem.contains("262144"),
        "{problem}"
    );
}

#[test]
fn a_pod_cannot_choose_the_backend() {
    let problem = problem("traffic.sidetrack.dev/backend", "iptables-legacy");
    assert!(
        problem.contains("traffic.sidetrack.dev/backend: backend is an option of the node"),
        "{problem}"
    );
}
