//! Changes by other processes, and their repair.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::Value;

use super::fixture::{CILIUM, End, FLANNEL, Installer, Machine, WEAVE, eventually, eventually_runs, names, program};

const CHAINED: [&str; 3] = ["flannel", "portmap", "sidetrack"];
/// The same network as [`FLANNEL`], as its owner writes it after a change.
fn newer() -> String {
    FLANNEL.replace("1.50", "1.75")
}

fn repairs(reason: &str) -> String {
    format!("sidetrack_node_repairs_total{{reason=\"{reason}\"}}")
}

#[test]
fn rewritten_conflist_gets_its_entry_back() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let installer = machine.start(&[]);
    installer.eventually_ready();
    let path = machine.conf().join("10-flannel.conflist");
    type Way<'w> = (&'w str, &'w dyn Fn(&str));
    let ways: [Way<'_>; 4] = [
        ("by renaming", &|text| machine.write("10-flannel.conflist", text)),
        ("in place", &|text| fs::write(&path, text).expect("a file")),
        ("removed and made", &|text| {
            fs::remove_file(&path).expect("a file");
            fs::write(&path, text).expect("a file");
        }),
        ("by a hard link", &|text| {
            let new = machine.root().join("new");
            fs::write(&new, text).expect("a file");
            fs::remove_file(&path).expect("a file");
            fs::hard_link(&new, &path).expect("a link");
            fs::remove_file(new).expect("a file");
        }),
    ];
    for (round, (way, write)) in ways.into_iter().enumerate() {
        let text = if round % 2 == 0 { newer() } else { FLANNEL.to_owned() };
        write(&text);
        eventually(way, || {
            let chain = machine.plugins("10-flannel.conflist");
            let is_so = chain.as_ref().is_some_and(|chain| *chain == CHAINED);
            if is_so { Ok(()) } else { Err((chain, installer.log())) }
        });
        let float = if round % 2 == 0 { "1.75" } else { "1.50" };
        assert!(
            machine.read("10-flannel.conflist").contains(float),
            "{way}: theirs is kept"
        );
        installer.eventually_ready();
    }
    assert_eq!(installer.metric(&repairs("entry-missing")), 5.0);
}

/// A change by another process, and the reason of its repair.
type Damage<'d> = (&'d str, &'d dyn Fn());

/// Does each damage once the one before has been repaired.
#[track_caller]
fn repaired(installer: &Installer, damages: &[Damage<'_>]) {
    for (number, (reason, damage)) in damages.iter().enumerate() {
        let before = installer.metric(&repairs(reason));
        damage();
        // Not through /readyz, which may not have noticed yet.
        eventually(reason, || {
            let after = installer.metric(&repairs(reason));
            let is_so = after == before + 1.0;
            if is_so {
                Ok(())
            } else {
                Err((number, after, installer.log()))
            }
        });
        installer.eventually_ready();
    }
}

#[test]
fn missing_or_changed_binary_is_restored() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let [build, other] = ["a", "b"].map(|name| machine.other_build(name));
    let installer = Installer::start(machine.command_of(&build, &["install"]));
    installer.eventually_ready();
    let moved = machine.root().join("moved");
    let damages: [Damage<'_>; 4] = [
        ("binary-missing", &|| fs::remove_file(machine.binary()).expect("a file")),
        ("binary-missing", &|| {
            fs::rename(machine.binary(), &moved).expect("a file")
        }),
        // Of the same length.
        ("binary-different", &|| {
            fs::rename(&other, machine.binary()).expect("a file")
        }),
        ("binary-different", &|| {
            fs::write(machine.binary(), "in place").expect("a file")
        }),
    ];
    repaired(&installer, &damages);
    assert!(machine.is_build(&build));
}

#[test]
fn changed_mode_of_the_binary_is_restored() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let installer = machine.start(&[]);
    installer.eventually_ready();
    let mode = |mode| fs::set_permissions(machine.binary(), fs::Permissions::from_mode(mode)).expect("a mode");
    let damages: [Damage<'_>; 3] = [
        ("binary-different", &|| mode(0o600)),
        ("binary-different", &|| mode(0o777)),
        ("binary-different", &|| {
            let link = machine.root().join("link");
            symlink(program(), &link).expect("a link");
            fs::rename(link, machine.binary()).expect("a link");
        }),
    ];
    repaired(&installer, &damages);
    assert!(machine.has_binary());
}

#[test]
fn changed_or_displaced_entry_is_repaired() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let installer = machine.start(&[]);
    installer.eventually_ready();
    let conflist = machine.read("10-flannel.conflist");
    let damages: [Damage<'_>; 2] = [
        ("entry-different", &|| {
            let other = conflist.replace("io.kubernetes.cri.pod-annotations", "something-else");
            machine.write("10-flannel.conflist", &other);
        }),
        ("entry-not-last", &|| {
            let end = conflist.rfind("\n  ]").expect("the end of the list");
            let (before, after) = conflist.split_at(end);
            let text = format!("{before},{{\"type\":\"tuning\"}}{after}");
            machine.write("10-flannel.conflist", &text);
        }),
    ];
    repaired(&installer, &damages);
    let chain = machine.plugins("10-flannel.conflist").expect("a chain");
    assert_eq!(chain, ["flannel", "portmap", "tuning", "sidetrack"]);
}

#[test]
fn failing_repair_backs_off_and_leaves_no_files() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let installer = machine.start(&[]);
    installer.eventually_ready();
    // A directory where the binary belongs. Each try makes a file beside it and removes that, which is a change.
    let in_the_way = |name: &str| {
        let directory = machine.root().join(name);
        fs::create_dir(&directory).expect("a directory");
        let flags = RenameFlags::RENAME_EXCHANGE;
        renameat2(AT_FDCWD, &directory, AT_FDCWD, &machine.binary(), flags).expect("an exchange");
    };
    in_the_way("first");
    installer.eventually_logs("seconds=4");
    // Nothing ends a wait early, though each try changes the directory.
    let log = installer.log();
    let waits: Vec<&str> = log.split("seconds=").skip(1).filter_map(|text| text.get(..1)).collect();
    assert!(waits.starts_with(&["1", "2", "4"]), "{log}");
    assert!(installer.metric("sidetrack_node_failures_total") >= 3.0);
    installer.eventually_not_ready("Is a directory");
    eventually("nothing is left", || match names(&machine.bin()) {
        names if names == ["sidetrack"] => Ok(()),
        names => Err(names),
    });
    fs::remove_dir(machine.binary()).expect("a directory");
    installer.eventually_ready();
    assert!(machine.has_binary());
    // The wait begins again with the shortest.
    in_the_way("second");
    eventually("a second", || {
        let log = installer.log();
        if log.matches("seconds=1\n").count() == 2 {
            Ok(())
        } else {
            Err(log)
        }
    });
}

#[test]
fn entry_moves_to_the_first_configuration() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let installer = machine.start(&[]);
    installer.eventually_ready();
    machine.write("05-cilium.conflist", CILIUM);
    eventually_runs(&machine, "05-cilium.conflist", &["cilium-cni", "sidetrack"]);
    eventually("the old one", || {
        let text = machine.read("10-flannel.conflist");
        if text == FLANNEL { Ok(()) } else { Err(text) }
    });
    // As Cilium does when it takes a node for itself, and when it leaves.
    fs::rename(
        machine.conf().join("10-flannel.conflist"),
        machine.conf().join("10-flannel.conflist.cilium_bak"),
    )
    .expect("a file");
    fs::rename(
        machine.conf().join("10-flannel.conflist.cilium_bak"),
        machine.conf().join("10-flannel.conflist"),
    )
    .expect("a file");
    fs::remove_file(machine.conf().join("05-cilium.conflist")).expect("a file");
    eventually_runs(&machine, "10-flannel.conflist", &CHAINED);
    installer.eventually_ready();
}

#[test]
fn rewritten_single_configuration_is_converted_again() {
    let machine = Machine::with(&[("10-weave.conf", WEAVE)]);
    let installer = machine.start(&[]);
    installer.eventually_ready();
    machine.write("10-weave.conf", &WEAVE.replace("1.50", "9000"));
    eventually("converted", || {
        let text = machine.read("10-weave.conflist");
        let is_so = text.contains("9000") && names(&machine.conf()).len() == 2;
        if is_so { Ok(()) } else { Err(text) }
    });
    installer.eventually_ready();
    let end = installer.stop(nix::sys::signal::Signal::SIGTERM);
    assert!(end.success());
    machine.run(&["uninstall"]).succeeded();
    assert_eq!(
        machine.files(),
        [("10-weave.conf".to_owned(), WEAVE.replace("1.50", "9000"))]
    );
}

#[test]
fn configuration_created_by_link_is_noticed() {
    let machine = Machine::new();
    let installer = machine.start(&[]);
    installer
        .eventually_logs("waiting for a network configuration reason=\"there is no valid network configuration yet");
    let real = machine.root().join("net.conflist");
    fs::write(&real, FLANNEL).expect("a file");
    symlink(&real, machine.conf().join("10-flannel.conflist")).expect("a link");
    eventually_runs(&machine, "10-flannel.conflist", &CHAINED);
    installer.eventually_ready();
}

/// How long the installer waits for the rest of a file.
const SETTLE_TIME: Duration = Duration::from_millis(200);

#[test]
fn a_half_written_configuration_does_not_move_the_entry() {
    // Where this thread gets no processor time for longer than the installer waits, it writes again.
    eventually("the rest of a file comes in time", || {
        let machine = Machine::with(&[("10-flannel.conflist", FLANNEL), ("20-cilium.conflist", CILIUM)]);
        let installer = machine.start(&[]);
        installer.eventually_ready();
        let path = machine.conf().join("10-flannel.conflist");
        let (half, _) = FLANNEL.split_at(FLANNEL.len() / 2);
        let begun = Instant::now();
        fs::write(&path, half).expect("a file");
        installer.eventually_not_ready("");
        fs::write(&path, newer()).expect("a file");
        let took = begun.elapsed();
        if took >= SETTLE_TIME {
            return Err(took);
        }
        eventually_runs(&machine, "10-flannel.conflist", &CHAINED);
        installer.eventually_ready();
        assert_eq!(machine.read("20-cilium.conflist"), CILIUM);
        assert!(!installer.log().contains("20-cilium"), "{}", installer.log());
        Ok(())
    });
}

#[test]
fn recreated_directories_are_watched() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let installer = machine.start(&[]);
    installer.eventually_ready();
    let directories = [machine.bin(), machine.conf()];
    for directory in &directories {
        fs::rename(directory, directory.with_extension("gone")).expect("a directory");
    }
    installer.eventually_not_ready("No such file");
    for directory in &directories {
        fs::create_dir(directory).expect("a directory");
    }
    machine.write("10-flannel.conflist", FLANNEL);
    eventually_runs(&machine, "10-flannel.conflist", &CHAINED);
    installer.eventually_ready();
    assert!(machine.has_binary());
    assert!(installer.metric("sidetrack_node_failures_total") >= 1.0);
}

/// Reverts each change of the installer until `done`. Returns the number of reverts.
fn undo(machine: &Machine, done: &AtomicBool) -> u32 {
    let reverts = AtomicU32::new(0);
    while !done.load(Ordering::Relaxed) {
        if machine.read("05-cilium.conflist") != CILIUM {
            machine.write("05-cilium.conflist", CILIUM);
            reverts.fetch_add(1, Ordering::Relaxed);
        }
        thread::sleep(Duration::from_millis(1));
    }
    reverts.into_inner()
}

#[test]
fn repairs_back_off_if_another_process_reverts_them() {
    let machine = Machine::with(&[("05-cilium.conflist", CILIUM)]);
    let installer = machine.start(&[]);
    installer.eventually_ready();
    let done = AtomicBool::new(false);
    let reverts = thread::scope(|scope| {
        let reverts = scope.spawn(|| undo(&machine, &done));
        let end = End(&done);
        installer.eventually_logs("another process keeps reverting");
        assert_eq!(installer.metric("sidetrack_node_contended"), 1.0);
        // Two repairs that waited: one second, then two.
        let waited = installer.metric(&repairs("entry-missing")) + 2.0;
        eventually("repairs", || {
            let repairs = installer.metric(&repairs("entry-missing"));
            if repairs >= waited { Ok(()) } else { Err(repairs) }
        });
        installer.eventually_not_ready("repairs are slowed down");
        drop(end);
        reverts.join().expect("an end")
    });
    assert!(reverts <= 9, "{reverts}: {}", installer.log());
    let log = installer.log();
    assert!(log.contains("cni.exclusive=false"), "{log}");
    // Once the reverts end, the entry returns.
    eventually_runs(&machine, "05-cilium.conflist", &["cilium-cni", "sidetrack"]);
    installer.eventually_ready();
}

#[test]
fn constantly_changing_directory_is_checked_periodically() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let installer = machine.start(&["-vv"]);
    installer.eventually_ready();
    let looks = || installer.log().matches("scanning").count();
    let (before, mut writes) = (looks(), 0);
    eventually("three looks while it is written to", || {
        for _ in 0..20 {
            fs::write(machine.conf().join("noise"), "noise").expect("a file");
            writes += 1;
        }
        if looks() >= before + 3 { Ok(()) } else { Err(writes) }
    });
    assert!(
        writes > 2 * (looks() - before),
        "one look for each write: {}",
        installer.log()
    );
    machine.write("10-flannel.conflist", &newer());
    eventually_runs(&machine, "10-flannel.conflist", &CHAINED);
    installer.eventually_ready();
}

#[test]
fn options_decide_and_not_existing_files() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    machine.install_once();
    let installer = machine.start(&["--plugin-conf", "{\"select\": \"always\"}"]);
    installer.eventually_ready();
    let value: Value = serde_json::from_str(&machine.read("10-flannel.conflist")).expect("JSON");
    assert_eq!(value["plugins"][2]["select"], "always");
    assert_eq!(installer.metric(&repairs("entry-different")), 1.0);
}
