//! A host that systemd boots: what `--persist` puts there, what comes of it, and the Debian package.

mod boot;
mod firewalls;
mod package;

use std::fs;
use std::path::Path;

use sidetrack::host::{FIREWALLS, LATE_FIREWALLS};

use crate::common::Netns;
use crate::program::{BACKENDS, apply, state};

use self::boot::Host;

const CONFIG: &str = "/etc/sidetrack/config.yaml";
const UNIT: &str = "/etc/systemd/system/sidetrack.service";
const LINK: &str = "/etc/systemd/system/multi-user.target.wants/sidetrack.service";
const OPTIONS: &[&str] = &["--exclude-inbound-ports", "22,9100-9199", "--exclude-uids", "7"];

/// What applying these options gives, in a namespace of its own.
fn reference(backend: &str, options: &[&str]) -> String {
    let netns = Netns::new();
    apply(&netns, backend, options);
    state(&netns, backend)
}

/// What is in force on a host. Only systemd writes `noprefixroute` when it makes the loopback interface ready.
fn in_force(host: &Host, backend: &str) -> String {
    state(&host.netns(), backend).replace(" noprefixroute", "")
}

fn persist(host: &Host, options: &[&str]) -> String {
    let arguments = [&["apply", "--persist"], options].concat();
    host.sidetrack(&arguments).succeeded().stderr
}

#[test]
fn persisted_rules_cover_network_up_down_and_reboot() {
    let mut host = Host::boot();
    // Stands for what brings the network up and down.
    host.write(
        "/etc/systemd/system/network-of-test.service",
        "[Unit]\nAfter=network-pre.target\nBefore=network.target\nWants=network.target\n\
         [Service]\nType=oneshot\nRemainAfterExit=yes\n\
         ExecStart=sh -c 'nft list ruleset >/var/at-start'\nExecStop=sh -c 'nft list ruleset >/var/at-stop'\n",
    );
    host.shell("systemctl daemon-reload; systemctl --quiet add-wants multi-user.target network-of-test.service")
        .succeeded();
    let before = host.etc();
    let wanted = reference("nftables", OPTIONS);
    let nothing = in_force(&host, "nftables");

    persist(&host, OPTIONS);
    assert_eq!(in_force(&host, "nftables"), wanted);
    let persisted = host.etc();
    let ours = |line: &&str| !before.lines().any(|before| before == *line);
    let new: Vec<&str> = persisted.lines().filter(ours).collect();
    let firewalls = FIREWALLS.len() + LATE_FIREWALLS.len();
    assert_eq!(
        new.len(),
        5 + 2 * firewalls,
        "three files and a directory, a link, and a directory with a link for each firewall: {new:#?}"
    );
    assert!(before.lines().all(|line| persisted.contains(line)), "{persisted}");

    host.reboot();
    assert_eq!(in_force(&host, "nftables"), wanted);
    assert!(host.read("/var/at-start").contains("table inet sidetrack"));
    host.shell("systemctl stop sidetrack").succeeded();
    assert_eq!(in_force(&host, "nftables"), nothing);
    host.shell("systemctl start sidetrack").succeeded();

    // What is edited by hand is put in force without a stop.
    let config = host.read(CONFIG);
    host.write(CONFIG, &config.replace("exclude-uids: \"7\"", "exclude-uids: [8]"));
    host.shell("systemctl reload sidetrack").succeeded();
    let edited = reference(
        "nftables",
        &["--exclude-inbound-ports", "22,9100-9199", "--exclude-uids", "8"],
    );
    assert_eq!(in_force(&host, "nftables"), edited);
    host.reboot();
    assert!(host.read("/var/at-stop").contains("table inet sidetrack"));

    // Other options replace them, whole.
    persist(&host, &["--exclude-inbound-ports", "22"]);
    assert!(!host.read(CONFIG).contains("exclude-uids"));
    let other = reference("nftables", &["--exclude-inbound-ports", "22"]);
    assert_eq!(in_force(&host, "nftables"), other);

    for said in ["the rules were removed", "nothing of sidetrack to remove"] {
        let log = host.sidetrack(&["cleanup", "--persist"]).succeeded().stderr;
        assert!(log.contains(said), "{log}");
        assert_eq!(
            (host.etc(), in_force(&host, "nftables")),
            (before.clone(), nothing.clone())
        );
    }
    host.reboot();
    assert_eq!(in_force(&host, "nftables"), nothing);
}

/// The unit's sandbox allows everything that each backend needs.
#[test]
fn unit_has_only_the_rights_that_each_backend_needs() {
    let host = Host::boot();
    let options = |backend| {
        let mut options = vec!["--backend", backend, "--exclude-inbound-ports", "22"];
        options.extend(["--inbound-mode", "tproxy", "--redirect-dns", "--dns-servers", "all"]);
        options
    };
    for backend in BACKENDS {
        let nothing = in_force(&host, backend);
        persist(&host, &options(backend));
        let wanted = in_force(&host, backend);
        assert!(wanted.to_lowercase().contains("tproxy"), "{wanted}");
        host.shell("systemctl daemon-reload; sidetrack cleanup; rm -f /run/xtables.lock; systemctl start sidetrack")
            .succeeded();
        assert_eq!(in_force(&host, backend), wanted, "{backend}");
        host.shell("systemctl stop sidetrack").succeeded();
        assert_eq!(in_force(&host, backend), nothing, "{backend}");
    }
    let verified = host.run("systemd-analyze", &["verify", UNIT]).succeeded();
    assert_eq!(verified.stderr, "");
    // From 0 (nothing is open to it) to 10; a unit that says nothing has 9.6.
    host.run(
        "systemd-analyze",
        &["security", "--no-pager", "--threshold=30", "sidetrack.service"],
    )
    .succeeded();
}

#[test]
fn persist_is_refused_where_it_would_not_last() {
    let host = Host::boot();
    let (etc, nothing) = (host.etc(), in_force(&host, "nftables"));
    let refused = |script: &str, code: i32, said: &[&str]| {
        host.shell(script).failed(code, said);
        assert_eq!(in_force(&host, "nftables"), nothing, "{script}");
    };
    refused(
        "sidetrack apply --persist --netns /proc/1/ns/net",
        2,
        &["--persist and --netns"],
    );
    refused("sidetrack cleanup --persist --netns x", 2, &["--persist and --netns"]);
    refused("sidetrack apply --persist --exclude-uids x", 2, &["--exclude-uids"]);
    refused(
        "unshare --net sidetrack apply --persist",
        1,
        &["not the network namespace of the host"],
    );
    refused(
        "unshare --mount sh -c 'mount -t tmpfs tmpfs /run; sidetrack apply --persist'",
        1,
        &["there is no /run/systemd/system", "sidetrack apply --config FILE"],
    );
    refused(
        "unshare --mount sh -c 'mount --bind /etc /etc; mount -o remount,bind,ro /etc; sidetrack apply --persist'",
        1,
        &["/etc/sidetrack", "read-only", "--persist --dry-run"],
    );
    refused(
        "cp /usr/local/bin/sidetrack /tmp/; /tmp/sidetrack apply --persist",
        1,
        &[
            "/tmp/sidetrack as root at every boot",
            "others than root can write to /tmp",
            "/usr/local/bin",
        ],
    );
    // Files come first. Where the rules then cannot be had, they are taken back.
    refused(
        "PATH= /usr/local/bin/sidetrack apply --persist --backend iptables-nft",
        1,
        &["iptables"],
    );
    assert_eq!(host.etc(), etc);

    persist(&host, OPTIONS);
    let persisted = host.etc();
    host.shell("PATH= /usr/local/bin/sidetrack apply --persist --backend iptables-nft")
        .failed(1, &["iptables"]);
    assert_eq!(host.etc(), persisted, "what lasted before is what lasts");
    host.sidetrack(&["cleanup", "--persist"]).succeeded();

    host.shell("systemctl --quiet mask sidetrack").succeeded();
    refused("sidetrack apply --persist", 1, &["systemctl unmask sidetrack.service"]);
    host.shell("systemctl --quiet unmask sidetrack").succeeded();
    assert_eq!(host.etc(), etc);
}

#[test]
fn foreign_unit_is_used_and_stays() {
    let host = Host::boot();
    let theirs = "[Service]\nExecStart=/usr/local/bin/sidetrack apply --config /etc/sidetrack/config.yaml -v\n";
    host.write(UNIT, theirs);
    persist(&host, OPTIONS);
    assert_eq!(host.read(UNIT), theirs);
    host.shell(&format!(
        "systemctl is-enabled sidetrack; test $(readlink {LINK}) = {UNIT}"
    ))
    .succeeded();
    host.sidetrack(&["cleanup", "--persist"]).succeeded();
    assert_eq!(host.read(UNIT), theirs);
    assert!(!host.path(CONFIG).exists() && host.path(LINK).symlink_metadata().is_err());
}

#[test]
fn dry_run_prints_plan_and_files_and_warns_of_lockout() {
    let host = Host::boot();
    let (etc, nothing) = (host.etc(), in_force(&host, "nftables"));
    let run = host
        .shell("sidetrack apply --persist --dry-run --exclude-uids 7")
        .succeeded();
    assert_eq!((host.etc(), in_force(&host, "nftables")), (etc, nothing));
    let plan = host
        .sidetrack(&["apply", "--dry-run", "--exclude-uids", "7"])
        .succeeded()
        .stdout;
    let files = run.stdout.strip_prefix(&plan).expect("the plan comes first");
    assert!(
        files.lines().all(|line| line.is_empty() || line.starts_with('#')),
        "{files}"
    );
    let expected = [
        CONFIG,
        "#   exclude-uids: \"7\"",
        UNIT,
        "#   ExecStop=/usr/local/bin/sidetrack cleanup",
        LINK,
    ];
    for text in expected {
        assert!(files.contains(text), "{text:?} is not in {files}");
    }
    assert!(run.stderr.contains("--exclude-inbound-ports 22"), "{}", run.stderr);
    // What containers send would count as inbound.
    host.shell("ip link add docker0 type bridge && nft 'table ip containers { chain postrouting { type nat hook postrouting priority 100; ip saddr 172.17.0.0/16 masquerade; }; }'")
        .succeeded();
    let hinted = |options: &str| {
        let run = host
            .shell(&format!("sidetrack apply --persist --dry-run {options}"))
            .succeeded();
        run.stderr
            .contains("--reroute-interfaces docker0 treats them as outbound")
    };
    assert!(hinted("") && !hinted("--reroute-interfaces docker0") && !hinted("--exclude-interfaces docker0"));
    host.shell("sidetrack apply --persist --dry-run --output json")
        .failed(2, &["--output json"]);
}

/// The commands in `docs/vm.md` do what the page says.
#[test]
fn commands_of_the_vm_page_run_in_order() {
    let host = Host::boot();
    let nothing = in_force(&host, "nftables");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/vm.md");
    let page = fs::read_to_string(page).expect("docs/vm.md");
    let scripts = page
        .split("```sh\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next());
    let commands: Vec<&str> = scripts.flat_map(str::lines).collect();
    assert!(commands.len() > 5, "{commands:?}");
    for command in &commands {
        host.shell(command).succeeded();
        let redirected = in_force(&host, "nftables") != nothing;
        let ends = command.contains("stop") || command.contains("cleanup");
        assert_eq!(redirected, !ends, "{command}");
    }
    assert!(!host.path(CONFIG).exists());
}

#[test]
fn foreign_configuration_is_neither_overwritten_nor_removed() {
    let host = Host::boot();
    let theirs = "exclude-inbound-ports: \"22\"\n";
    host.shell("mkdir /etc/sidetrack").succeeded();
    host.write(CONFIG, theirs);
    host.sidetrack(&[&["apply", "--persist"], OPTIONS].concat())
        .failed(1, &[CONFIG, "systemctl enable sidetrack", "move it away"]);
    assert_eq!(host.read(CONFIG), theirs);
    assert!(!host.path(UNIT).exists());
    host.sidetrack(&["cleanup", "--persist"]).succeeded();
    assert_eq!(host.read(CONFIG), theirs);
}
