//! An own conflist of sidetrack, which sorts before its source.

use std::fs;

use super::choice::{chosen, plugins};
use super::fixture::{FLANNEL, Machine, eventually};

/// A process that keeps writing its own conflist opens no gap: runtimes use the copy, which sorts first.
#[test]
fn own_conflist_comes_first_whatever_other_processes_write() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let before = machine.files();
    let installer = machine.start(&["--own-conflist", "00-sidetrack.conflist"]);
    installer.eventually_ready();
    let has_ours = || {
        let choice = chosen(&machine);
        assert_eq!(choice["crio"], "00-sidetrack.conflist");
        assert_eq!(plugins(&choice["containerd"]), ["flannel", "portmap", "sidetrack"]);
    };
    for count in 0..20 {
        machine.write(
            "10-flannel.conflist",
            &FLANNEL.replace("0.3.1", &format!("0.{}.0", 3 + count % 2)),
        );
        has_ours();
    }
    // The copy follows what it is a copy of, and stays when that goes: pods start with the plugin or not at all.
    eventually("a copy of the last", || {
        let copy = machine.read("00-sidetrack.conflist");
        if copy.contains("\"0.4.0\"") { Ok(()) } else { Err(copy) }
    });
    fs::remove_file(machine.conf().join("10-flannel.conflist")).expect("a file");
    installer.eventually_not_ready("no valid network configuration yet");
    has_ours();
    machine.write("10-flannel.conflist", FLANNEL);
    installer.eventually_ready();
    drop(installer);
    machine.run(&["uninstall"]).succeeded();
    assert_eq!(machine.files(), before);
    machine
        .run(&["install", "--own-conflist", "00-own.conf"])
        .failed(2, &["is not a file name that ends in .conflist"]);
    machine
        .run(&["install", "--once", "--own-conflist", "20-own.conflist"])
        .failed(1, &["10-flannel.conflist comes before 20-own.conflist"]);
}

/// Until there is a network to copy, the configuration fails each pod; runtimes use it from the first moment on.
#[test]
fn own_conflist_stands_in_until_there_is_network_to_copy() {
    let machine = Machine::with(&[]);
    let before = machine.files();
    machine
        .run(&["install", "--once", "--own-conflist", "00-sidetrack.conflist"])
        .failed(1, &["no valid network configuration yet"]);
    let stand_in = machine.read("00-sidetrack.conflist");
    assert!(stand_in.contains("\"awaitsNetwork\": true"), "{stand_in}");
    let choice = chosen(&machine);
    for runtime in ["crio", "containerd"] {
        assert!(choice[runtime].to_string().contains("sidetrack"), "{choice}");
    }
    machine.write("10-flannel.conflist", FLANNEL);
    assert_eq!(plugins(&chosen(&machine)["containerd"]), ["sidetrack"]);
    machine
        .run(&["install", "--once", "--own-conflist", "00-sidetrack.conflist"])
        .succeeded();
    assert_eq!(
        plugins(&chosen(&machine)["containerd"]),
        ["flannel", "portmap", "sidetrack"]
    );
    assert!(!machine.read("00-sidetrack.conflist").contains("awaitsNetwork"));
    fs::remove_file(machine.conf().join("10-flannel.conflist")).expect("a file");
    machine.run(&["uninstall"]).succeeded();
    assert_eq!(machine.files(), before);
    machine
        .run(&["install", "--once", "--plugin-conf", r#"{"awaitsNetwork": true}"#])
        .failed(2, &["awaitsNetwork"]);
}
