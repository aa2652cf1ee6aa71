//! The pods of a node by name: the list, all about one, and drift of running pods.

use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::attached::{Attached, WITH_PLUGIN};
use super::fixture::{Installer, eventually, program};
use crate::common::{Netns, Owner, Pod, Server, output_of};
use crate::program::{Run, apply, nft_state};

const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// The annotations of a pod with Istio's sidecar, and these.
pub fn annotations(more: &[(&str, &str)]) -> Value {
    let mut all = json!({ "sidecar.istio.io/status": "{}" });
    for (name, value) in more {
        all[*name] = (*value).into();
    }
    json!({ ANNOTATIONS: all })
}

/// A command of `sidetrack` beside those of `node`, on this node.
fn on_node(attached: &Attached, arguments: &[&str]) -> Command {
    let node = attached.command(&[]);
    let mut command = Command::new(program());
    command
        .args(arguments)
        .envs(node.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

/// The end of such a command.
pub fn run(attached: &Attached, arguments: &[&str]) -> Run {
    Run::of(&mut on_node(attached, arguments))
}

/// All pods, as `node pods` lists them.
pub fn pods(attached: &Attached) -> Value {
    let run = run(attached, &["node", "pods", "--json"]).succeeded();
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"))
}

/// What a node has of each kind: in sync, drifted, lacking, skipped, redirected by another mesh.
struct Mixed {
    attached: Attached,
    pods: Vec<Pod>,
}

impl Mixed {
    const NAMES: [&str; 5] = ["synced", "drifted", "lacking", "plain", "foreign"];

    fn new() -> Self {
        let attached = Attached::new();
        let pods: Vec<Pod> = Self::NAMES.iter().map(|_| Pod::new()).collect();
        for (pod, name) in pods.iter().zip(Self::NAMES) {
            let capabilities = match name {
                "plain" => json!({ ANNOTATIONS: {} }),
                _ => annotations(&[]),
            };
            let file = attached.file(&pod.netns.path());
            let changes = [("/capabilityArgs", capabilities), ("/config", WITH_PLUGIN.into())];
            attached.attach(name, &file, &changes);
        }
        apply(&pods[0].netns, "nftables", &[]);
        apply(&pods[1].netns, "nftables", &["--exclude-inbound-ports", "22"]);
        let mesh = "add table ip nat; add chain ip nat ISTIO_OUTPUT";
        assert!(pods[4].netns.command("nft").arg(mesh).status().expect("nft").success());
        Self { attached, pods }
    }

    fn netns(&self, name: &str) -> &Netns {
        let index = Self::NAMES.iter().position(|known| *known == name).expect("a pod");
        &self.pods[index].netns
    }
}

/// docs/node.md describes every key.
#[track_caller]
fn assert_described(object: &Value) {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/node.md")).expect("docs/node.md");
    for key in object.as_object().expect("an object").keys() {
        assert!(text.contains(&format!("`{key}`")), "{key}");
    }
}

#[test]
fn list_shows_state_of_every_pod() {
    let mixed = Mixed::new();
    let document = pods(&mixed.attached);
    assert_eq!(
        (&document["version"], &document["skippedFiles"]),
        (&json!(1), &json!(0))
    );
    let listed = document["pods"].as_array().expect("pods");
    assert_described(&document);
    assert_described(&listed[0]);
    let found = |name: &str| listed.iter().find(|pod| pod["name"] == name).expect(name);
    assert_eq!(listed.len(), Mixed::NAMES.len(), "{document:#}");
    for (name, verdict, state, mesh, backend, reason) in [
        (
            "synced",
            "redirected",
            "in-sync",
            json!("istio"),
            json!("nftables"),
            "match",
        ),
        (
            "drifted",
            "redirected",
            "drifted",
            json!("istio"),
            json!("nftables"),
            "22",
        ),
        (
            "lacking",
            "redirected",
            "lacking",
            json!("istio"),
            Value::Null,
            "Istio injected",
        ),
        ("plain", "skipped", "skipped", Value::Null, Value::Null, "no annotation"),
        (
            "foreign",
            "redirected",
            "foreign",
            json!("istio"),
            Value::Null,
            "istio-init",
        ),
    ] {
        let pod = found(name);
        let seen = [
            &pod["namespace"],
            &pod["verdict"],
            &pod["state"],
            &pod["mesh"],
            &pod["backend"],
        ];
        let wanted = [&json!("shop"), &json!(verdict), &json!(state), &mesh, &backend];
        assert_eq!(seen, wanted, "{pod:#}");
        assert!(pod["reason"].as_str().expect("a reason").contains(reason), "{pod:#}");
        let since = pod["since"].as_str().expect("a time");
        assert!(since.starts_with("20") && since.ends_with('Z'), "{since}");
    }
    let table = run(&mixed.attached, &["node", "pods"]).succeeded().stdout;
    assert!(
        table.starts_with("POD           MESH   VERDICT     STATE    BACKEND   SINCE"),
        "{table}"
    );
    let synced = table
        .lines()
        .find(|line| line.starts_with("shop/synced "))
        .expect("a row");
    for said in ["istio", "redirected", "in-sync", "nftables", "Istio injected a sidecar"] {
        assert!(synced.contains(said), "{said}: {synced}");
    }
}

#[test]
fn one_pod_is_shown_with_cache_annotations_namespace_and_kernel() {
    let mixed = Mixed::new();
    let show = |name: &str| {
        let run = run(&mixed.attached, &["node", "pods", &format!("shop/{name}"), "--json"]).succeeded();
        serde_json::from_str::<Value>(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"))
    };
    let drifted = show("drifted");
    assert_described(&drifted);
    assert_eq!(drifted["state"], "drifted");
    assert_eq!(drifted["annotations"]["sidecar.istio.io/status"], "{}");
    assert_eq!(drifted["addresses"][0], "10.99.0.2");
    assert_eq!(drifted["network"], "cbr0");
    assert_eq!(drifted["redirectedBy"], "sidetrack, with nftables");
    assert!(
        drifted["netns"].as_str().expect("a path").ends_with("netns/cni-2"),
        "{drifted:#}"
    );
    let differences = drifted["differences"].as_array().expect("differences");
    assert!(
        differences
            .iter()
            .any(|difference| difference["repairedByApply"] == true),
        "{drifted:#}"
    );
    // The kernel is asked about a pod that the plugin skips, too.
    assert_eq!(show("plain")["redirectedBy"], "nothing");
    apply(mixed.netns("plain"), "nftables", &[]);
    assert_eq!(show("plain")["redirectedBy"], "sidetrack, with nftables");
    let text = run(&mixed.attached, &["node", "pods", "shop/drifted"])
        .succeeded()
        .stdout;
    for said in [
        "pod            shop/drifted\n",
        "mesh           istio\n",
        "annotation     sidecar.istio.io/status: {}\n",
        "state          drifted: ",
        "difference     ",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
}

#[test]
fn unknown_pods_and_wrong_names_are_errors_that_say_what_to_do() {
    let mixed = Mixed::new();
    let fails = |arguments: &[&str], code, said: &[&str]| {
        run(&mixed.attached, arguments).failed(code, said);
    };
    let commands = [
        &["node", "pods"][..],
        &["check", "--pod"],
        &["probe", "--pod"],
        &["trace", "--pod"],
    ];
    for command in commands {
        let with = |pod| [command, &[pod]].concat();
        fails(
            &with("shop/nobody"),
            1,
            &["shop/nobody", "cbr0", "kubectl get pod -o wide"],
        );
        fails(&with("nobody"), 2, &["NAMESPACE/NAME"]);
    }
    let explain = |pod| ["explain", "outbound", "tcp", "192.0.2.1:80", "--pod", pod];
    fails(&explain("shop/nobody"), 1, &["kubectl get pod -o wide"]);
    fails(&explain("nobody"), 2, &["nobody", "No such file"]);
    fails(
        &["check", "--pod", "shop/synced", "--netns", "pod"],
        2,
        &["--pod and --netns"],
    );
    fails(
        &["check", "--pod", "shop/plain"],
        2,
        &["does not redirect pod shop/plain", "no annotation", "--netns"],
    );

    let file = mixed.attached.file(&mixed.netns("synced").path());
    let names = json!([["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", "synced"]]);
    mixed.attached.attach("again", &file, &[("/cniArgs", names)]);
    fails(
        &["check", "--pod", "shop/synced"],
        1,
        &["2 sandboxes", ", or --netns ", "cni-1", "cni-6"],
    );

    let mut elsewhere = on_node(&mixed.attached, &["check", "--pod", "shop/drifted"]);
    elsewhere.env("SIDETRACK_NODE_CNI_CACHE_DIR", "/nonexistent");
    Run::of(&mut elsewhere).failed(1, &["/nonexistent", "Mount the node's directory there"]);
    let mut unprivileged = Command::new("setpriv");
    let inner = on_node(&mixed.attached, &["check", "--pod", "shop/drifted"]);
    unprivileged
        .args(["--bounding-set=-all", "--inh-caps=-all"])
        .arg(inner.get_program())
        .args(inner.get_args())
        .envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Run::of(&mut unprivileged).failed(1, &["shop/drifted", "not accessible", "Run as root on the node"]);
}

#[test]
fn check_of_a_pod_takes_its_options_from_the_runtime() {
    let mixed = Mixed::new();
    let check = |options: &[&str]| run(&mixed.attached, &[&["check", "--pod"], options].concat());
    assert!(check(&["shop/synced"]).succeeded().stdout.starts_with("in-sync"));
    let drifted = check(&["shop/drifted"]);
    assert_eq!(drifted.code, Some(3), "{drifted:?}");
    assert!(
        drifted.stdout.contains("`sidetrack node repair` on the node"),
        "{drifted:?}"
    );
    // Flags override what the plugin has for it.
    check(&["shop/drifted", "--exclude-inbound-ports", "22"]).succeeded();
    assert_eq!(check(&["shop/lacking"]).code, Some(3));
}

#[test]
fn probe_and_explain_of_a_pod_take_its_options_from_the_runtime() {
    let attached = Attached::new();
    let pod = Pod::new();
    let excluded = annotations(&[("traffic.sidecar.istio.io/excludeOutboundPorts", "9090")]);
    attached.attach(
        "web-0",
        &attached.file(&pod.netns.path()),
        &[("/capabilityArgs", excluded)],
    );
    apply(&pod.netns, "nftables", &["--exclude-outbound-ports", "9090"]);
    let explain = |port: &str| {
        let destination = format!("192.0.2.1:{port}");
        run(
            &attached,
            &["explain", "outbound", "tcp", &destination, "--pod", "shop/web-0"],
        )
        .succeeded()
        .stdout
    };
    assert!(explain("80").contains("15001"), "{}", explain("80"));
    assert!(!explain("9090").contains("15001"), "{}", explain("9090"));
    let from_kernel = [
        "explain",
        "outbound",
        "tcp",
        "192.0.2.1:80",
        "--pod",
        "shop/web-0",
        "--from-kernel",
    ];
    assert!(run(&attached, &from_kernel).succeeded().stdout.contains("15001"));
    let annotation = [
        "explain",
        "outbound",
        "tcp",
        ":80",
        "--pod",
        "shop/web-0",
        "--annotation",
        "a=b",
    ];
    run(&attached, &annotation).failed(2, &["--annotation"]);
    let probe = run(&attached, &["probe", "--pod", "shop/web-0"]).succeeded();
    assert!(probe.stdout.contains("9090"), "{probe:?}");
}

#[test]
fn trace_of_a_pod_shows_its_connections() {
    let attached = Attached::new();
    let pod = Pod::new();
    attached.attach("web-0", &attached.file(&pod.netns.path()), &[]);
    let mut trace = on_node(&attached, &["trace", "outbound", "--pod", "shop/web-0", "--count", "1"]);
    let trace = trace
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("sidetrack");
    eventually("the table of the trace", || {
        let tables = output_of(pod.netns.command("nft").args(["list", "tables"]));
        if tables.contains("sidetrack-trace") {
            Ok(())
        } else {
            Err(tables)
        }
    });
    let closed = SocketAddr::from(([127, 0, 0, 1], 81));
    pod.netns.run(|| TcpStream::connect(closed)).expect_err("no server");
    let run = Run::from(trace.wait_with_output().expect("the end of the trace")).succeeded();
    assert!(run.stdout.contains(" -> 127.0.0.1:81: "), "{run:?}");
}

/// An existing file wins over a pod of the node with the same spelling.
#[test]
fn existing_manifest_wins_over_a_pod_of_that_name() {
    let attached = Attached::new();
    let pod = Pod::new();
    attached.attach("web-0", &attached.file(&pod.netns.path()), &[]);
    let home = attached.machine.root().join("shop");
    std::fs::create_dir(&home).expect("a directory");
    let manifest =
        "{kind: Pod, metadata: {name: web-0, annotations: {traffic.sidetrack.dev/redirect: 'false'}}, spec: {}}";
    let mut command = on_node(
        &attached,
        &["explain", "outbound", "tcp", "192.0.2.1:80", "--pod", "shop/web-0"],
    );
    command.current_dir(attached.machine.root());
    assert!(Run::of(&mut command).succeeded().stdout.contains("15001"));
    std::fs::write(home.join("web-0"), manifest).expect("a file");
    let said = Run::of(&mut command).succeeded().stdout;
    assert!(!said.contains("15001") && said.contains("is false"), "{said}");
}

#[test]
fn drift_of_running_pods_is_counted_logged_once_and_repaired() {
    let mixed = Mixed::new();
    let attached = &mixed.attached;
    let _proxy = Server::start(mixed.netns("drifted"), "proxy", Owner::PROXY, &[15001, 15006]);
    let drifted = || nft_state(mixed.netns("drifted"));
    let before = drifted();
    let start = |mode: &str| Installer::start(attached.command(&["install", "--repair", mode]));
    let counts = |installer: &Installer, wanted: [f64; 5]| {
        eventually("all are counted", || {
            let count = |state| installer.metric(&format!("sidetrack_node_pods{{state=\"{state}\"}}"));
            let counts = ["in-sync", "drifted", "lacking", "skipped", "foreign"].map(count);
            if counts == wanted {
                Ok(())
            } else {
                Err((counts, installer.log()))
            }
        });
    };

    let reports = start("report");
    let said = "the rules of the pod differ from its options pod=\"shop/drifted\"";
    reports.eventually_logs(said);
    counts(&reports, [1.0; 5]);
    // Another scan, since a pod comes: what is known is not logged again.
    attached.attach("gone", "/var/run/netns/gone", &[]);
    attached.attach("undecided", "", &[("/netns", json!("")), ("/result/ips", json!([]))]);
    reports.eventually_logs("pod=\"shop/undecided\"");
    counts(&reports, [1.0; 5]);
    assert_eq!(reports.log().matches(said).count(), 1, "{}", reports.log());
    assert_eq!(drifted(), before);
    let status = Run::of(&mut attached.command(&["status"])).stdout;
    assert!(status.contains("               shop/drifted: drifted: "), "{status}");
    drop(reports);

    let repairs = start("in-place");
    repairs.eventually_logs("repaired pod=\"shop/drifted\"");
    counts(&repairs, [3.0, 0.0, 0.0, 1.0, 1.0]);
    assert_eq!(drifted(), nft_state(mixed.netns("synced")));
    run(attached, &["check", "--pod", "shop/drifted"]).succeeded();
}

#[test]
fn watch_prints_pods_and_then_changes() {
    use std::io::{BufRead as _, BufReader};

    let attached = Attached::new();
    let pod = Pod::new();
    attached.attach("web-0", &attached.file(&pod.netns.path()), &[]);
    let mut command = attached.command(&["pods", "--watch", "--json"]);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut next = || {
        let line = lines.next().expect("a line").expect("text");
        let change: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        ["/event", "/pod/name", "/pod/state"].map(|pointer| {
            change
                .pointer(pointer)
                .expect(pointer)
                .as_str()
                .expect("text")
                .to_owned()
        })
    };
    assert_eq!(next(), ["added", "web-0", "lacking"]);
    apply(&pod.netns, "nftables", &[]);
    attached.attach("web-1", "/var/run/netns/gone", &[]);
    assert_eq!(next(), ["changed", "web-0", "in-sync"]);
    assert_eq!(next(), ["added", "web-1", "gone"]);
    std::fs::remove_file(attached.machine.root().join("cache/cbr0-id-web-1-eth0")).expect("a file");
    assert_eq!(next(), ["removed", "web-1", "gone"]);
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(child.id() as i32),
        nix::sys::signal::Signal::SIGTERM,
    )
    .expect("a signal");
    assert!(child.wait().expect("its end").success());
}
