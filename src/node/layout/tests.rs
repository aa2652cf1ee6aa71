use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::node::entry::{self, Installer};

const LIST: &str = "{\"cniVersion\":\"1.0.0\",\"name\":\"a\",\"plugins\":[{\"type\":\"bridge\"}]}";
const OTHER: &str = "{\"cniVersion\":\"0.4.0\",\"name\":\"b\",\"plugins\":[{\"type\":\"ptp\"}]}";
const SINGLE: &str = "{\"cniVersion\": \"0.3.1\", \"name\": \"c\", \"type\": \"weave\", \"mtu\": 1.50}\n";
const ANOTHER_SINGLE: &str = "{\"cniVersion\": \"0.3.1\", \"name\": \"c\", \"type\": \"weave\", \"mtu\": 2}\n";

/// The texts of a directory, by name; those in a directory are prefixed by its name.
type Files = BTreeMap<String, String>;

const IN_FOLDER: &str = "{\"cniVersion\":\"1.1.0\",\"name\":\"d\"}";
const PLUGIN: &str = "{\"type\":\"ptp\"}";

fn files(files: &[(&str, &str)]) -> Files {
    let file = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
    files.iter().map(file).collect()
}

fn snapshot(files: &Files) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (name, text) in files {
        snapshot.insert(name.clone(), Content::Text(text.clone()));
    }
    snapshot
}

fn install(files: &Files, wanted: &Wanted) -> Layout {
    super::install(&snapshot(files), wanted)
}

fn uninstall(files: &Files) -> Removal {
    super::uninstall(&snapshot(files))
}

fn wanted(choice: Choice) -> Wanted {
    let entry = match choice {
        Choice::Standalone(_) => entry::standalone(json!({}), &Installer::default()),
        Choice::First | Choice::Named(_) | Choice::Copy(_) => entry::entry(json!({}), &Installer::default()),
    };
    Wanted {
        choice,
        entry: entry.unwrap(),
    }
}

/// Does a step as the file system does it.
fn take(snapshot: &mut Files, step: &Step) {
    match step {
        Step::Write { name, was, text, like } => {
            assert_eq!(snapshot.get(name), was.as_ref(), "{step:?}");
            assert!(like == name || snapshot.contains_key(like), "{step:?}");
            snapshot.insert(name.clone(), text.clone());
        }
        Step::Rename { from, to, was } => {
            let text = snapshot.remove(from).unwrap_or_else(|| panic!("{step:?}"));
            assert_eq!(text, *was, "{step:?}");
            snapshot.insert(to.clone(), text);
        }
        Step::Remove { name, was } => assert_eq!(snapshot.remove(name).as_ref(), Some(was), "{step:?}"),
    }
}

/// The plugins that a runtime would run: those of the first configuration, which must be valid.
fn taken(files: &Files) -> Option<Vec<Value>> {
    let snapshot = snapshot(files);
    let name = snapshot.configurations().next()?;
    let taken = snapshot.load(name).unwrap_or_else(|error| panic!("{name}: {error:?}"));
    let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let in_folder = taken.folder.iter().flat_map(|(folder, plugins)| {
        plugins
            .iter()
            .map(move |(file, _)| value(&files[&format!("{folder}/{file}")]))
    });
    let list = value(&files[name]);
    let inlined = match form(name) {
        Some(Form::List) => list["plugins"].as_array().cloned().unwrap_or_default(),
        _ => vec![list],
    };
    // For a moment, sidetrack may run twice, which equals once.
    let is_ours = |plugin: &Value| plugin["type"] == "sidetrack";
    let mut plugins: Vec<Value> = inlined.into_iter().chain(in_folder).collect();
    while plugins.iter().filter(|plugin| is_ours(plugin)).count() > 1 {
        plugins.remove(plugins.iter().position(is_ours)?);
    }
    Some(plugins)
}

/// Does the steps one by one. After each, a runtime finds the old or the new configuration, and a restarted installer
/// reaches the same end.
fn carry_out(snapshot: &Files, steps: &[Step], again: &dyn Fn(&Files) -> Vec<Step>) -> Files {
    let mut states = vec![snapshot.clone()];
    for step in steps {
        let mut state = states.last().unwrap().clone();
        take(&mut state, step);
        states.push(state);
    }
    let end = states.last().unwrap().clone();
    for state in &states {
        let runs = taken(state);
        assert!(runs == taken(snapshot) || runs == taken(&end), "{state:#?}");
        let mut resumed = state.clone();
        again(state).iter().for_each(|step| take(&mut resumed, step));
        assert_eq!(resumed, end, "from {state:#?}");
    }
    end
}

fn installed(snapshot: &Files, wanted: &Wanted) -> Files {
    let layout = install(snapshot, wanted);
    assert!(layout.target.is_ok(), "{layout:?}");
    assert_eq!(layout.steps.is_empty(), layout.reasons.is_empty(), "{layout:?}");
    carry_out(snapshot, &layout.steps, &|state| install(state, wanted).steps)
}

fn uninstalled(snapshot: &Files) -> Files {
    carry_out(snapshot, &uninstall(snapshot).steps, &|state| uninstall(state).steps)
}

#[test]
fn uninstall_restores_each_form_byte_for_byte() {
    let directories = [
        files(&[("10-a.conflist", LIST), ("20-b.conflist", OTHER)]),
        files(&[("10-c.conf", SINGLE)]),
        files(&[("10-c.json", SINGLE), ("99-b.conflist", OTHER)]),
        files(&[("00-broken.conflist", "{"), ("10-c.conf", SINGLE)]),
        files(&[
            ("10-d.conflist", IN_FOLDER),
            ("d/10-x.conf", PLUGIN),
            ("d/20-y.conf", PLUGIN),
        ]),
        files(&[("10-d.conflist", IN_FOLDER), ("d/zzz.conf", PLUGIN)]),
    ];
    for before in directories {
        let names = before.keys().cloned().map(Choice::Named);
        let joinable = names.filter(|choice| install(&before, &wanted(choice.clone())).target.is_ok());
        let alone = ["z.conf", "z.conflist"].map(|name| Choice::Standalone(name.to_owned()));
        for choice in joinable.chain([Choice::First]).chain(alone) {
            if before.contains_key("00-broken.conflist") && choice != Choice::First {
                continue;
            }
            let without_broken: Files = before
                .iter()
                .filter(|(name, _)| !name.starts_with("00"))
                .map(|(name, text)| (name.clone(), text.clone()))
                .collect();
            let after = installed(&without_broken, &wanted(choice.clone()));
            assert_ne!(after, without_broken);
            assert_eq!(install(&after, &wanted(choice)).steps, []);
            assert_eq!(uninstalled(&after), without_broken);
        }
    }
}

#[test]
fn first_valid_configuration_is_joined() {
    let target = |snapshot: &Files| install(snapshot, &wanted(Choice::First)).target;
    let broken = ("05-broken.conflist", "{");
    let list_in_single = ("06-list.conf", LIST);
    let both = files(&[
        broken,
        list_in_single,
        ("10-a.conflist", LIST),
        ("20-b.conflist", OTHER),
    ]);
    assert_eq!(target(&both), Ok("10-a.conflist".to_owned()));
    let waiting = target(&files(&[broken, list_in_single])).unwrap_err().to_string();
    for said in [
        "no valid network configuration yet",
        "05-broken.conflist: it is not a JSON object",
        "06-list.conf: it has no \"type\"",
    ] {
        assert!(waiting.contains(said), "{waiting}");
    }
    assert_eq!(
        target(&files(&[("10-a.conflist.bak", LIST)])),
        Err(Waiting::NoNetwork(Vec::new()))
    );
    let ours = entry::standalone(json!({}), &Installer::default()).unwrap().to_string();
    let alone = files(&[("00-sidetrack.conf", &ours), ("10-a.conflist", LIST)]);
    assert_eq!(target(&alone), Ok("10-a.conflist".to_owned()));
}

#[test]
fn entry_moves_to_an_earlier_configuration() {
    for old in [("10-a.conflist", LIST), ("10-c.conf", SINGLE)] {
        let before = files(&[old]);
        let mut snapshot = installed(&before, &wanted(Choice::First));
        snapshot.insert("05-b.conflist".to_owned(), OTHER.to_owned());
        let layout = install(&snapshot, &wanted(Choice::First));
        assert_eq!(layout.reasons, [Reason::EntryMissing, Reason::EntryElsewhere]);
        let after = installed(&snapshot, &wanted(Choice::First));
        assert_eq!(after.get(old.0).map(String::as_str), Some(old.1));
        assert_eq!(after.len(), 2);
    }
}

#[test]
fn an_entry_written_by_hand_elsewhere_stays() {
    let by_hand = r#"{"name":"p","plugins":[{"type":"bridge"},{"type":"sidetrack"}]}"#;
    let before = files(&[("10-a.conflist", LIST), ("87-podman.conflist", by_hand)]);
    let after = installed(&before, &wanted(Choice::First));
    assert_eq!(after["87-podman.conflist"], by_hand);
    assert_eq!(uninstall(&after).by_hand, ["87-podman.conflist"]);
    assert_eq!(uninstalled(&after), before);
}

#[test]
fn rewritten_single_configuration_is_converted_again_in_place() {
    for name in ["10-c.conf", "10-c.json"] {
        let mut snapshot = installed(&files(&[(name, SINGLE)]), &wanted(Choice::First));
        snapshot.insert(name.to_owned(), ANOTHER_SINGLE.to_owned());
        assert_eq!(uninstalled(&snapshot), files(&[(name, ANOTHER_SINGLE)]));
        let after = installed(&snapshot, &wanted(Choice::First));
        assert_eq!(uninstalled(&after), files(&[(name, ANOTHER_SINGLE)]));
    }
}

#[test]
fn conflist_changed_by_another_process_is_kept() {
    let mut snapshot = installed(&files(&[("10-c.conf", SINGLE)]), &wanted(Choice::First));
    let changed = snapshot["10-c.conflist"].replace("\"mtu\": 1.50", "\"mtu\": 9000");
    snapshot.insert("10-c.conflist".to_owned(), changed);
    let removal = uninstall(&snapshot);
    assert_eq!(removal.originals, ["10-c.conf.sidetrack"]);
    let after = uninstalled(&snapshot);
    assert!(after["10-c.conflist"].contains("9000"));
    assert!(!after["10-c.conflist"].contains("sidetrack"));
}

#[test]
fn used_file_name_is_reported() {
    let both = files(&[("10-c.conf", SINGLE), ("10-c.conflist", LIST)]);
    let layout = install(&both, &wanted(Choice::First));
    assert_eq!(layout.target, Err(Waiting::Taken("10-c.conflist".to_owned())));
    assert_eq!(layout.steps, []);
    let alone = wanted(Choice::Standalone("10-c.conf".to_owned()));
    assert_eq!(
        install(&both, &alone).target,
        Err(Waiting::Taken("10-c.conf".to_owned()))
    );
}

#[test]
fn unjoinable_configuration_is_reported_and_unchanged() {
    let target = |files: &Files, choice| {
        let layout = install(files, &wanted(choice));
        assert_eq!(layout.steps, []);
        layout.target.unwrap_err().to_string()
    };
    let old = files(&[("10-a.conflist", &LIST.replace("1.0.0", "0.2.0"))]);
    assert!(target(&old, Choice::First).contains("0.2.0"));
    let list = files(&[("10-a.conflist", LIST), ("20-b.conflist", "{")]);
    let named = |name: &str| Choice::Named(name.to_owned());
    assert!(target(&list, named("x.conflist")).contains("no x.conflist yet"));
    assert!(target(&list, named("20-b.conflist")).contains("not a JSON object"));
}

#[test]
fn a_change_of_mode_moves_the_entry() {
    let before = files(&[("10-a.conflist", LIST)]);
    let alone = wanted(Choice::Standalone("z.conf".to_owned()));
    let chained = installed(&before, &wanted(Choice::First));
    let standing_alone = installed(&chained, &alone);
    assert_eq!(standing_alone["10-a.conflist"], LIST);
    assert_eq!(installed(&standing_alone, &wanted(Choice::First)), chained);
}

#[test]
fn named_configuration_is_found_by_its_original_name() {
    let named = wanted(Choice::Named("10-c.conf".to_owned()));
    let after = installed(&files(&[("10-c.conf", SINGLE)]), &named);
    assert_eq!(install(&after, &named).target, Ok("10-c.conflist".to_owned()));
}

#[test]
fn our_plugin_is_last_in_a_plugin_directory() {
    let before = files(&[
        ("10-d.conflist", IN_FOLDER),
        ("20-b.conflist", OTHER),
        ("d/10-x.conf", PLUGIN),
    ]);
    let wanted = wanted(Choice::First);
    let after = installed(&before, &wanted);
    assert_eq!(install(&after, &wanted).target, Ok("10-d.conflist".to_owned()));
    assert_eq!(after["20-b.conflist"], OTHER);
    assert_eq!(taken(&after).unwrap().last(), Some(&wanted.entry));
    // Another one that comes after it, and plugins that come to stand in the list.
    for (name, text) in [("d/zzz.conf", PLUGIN), ("10-d.conflist", LIST)] {
        let mut changed = after.clone();
        changed.insert(name.to_owned(), text.to_owned());
        let again = installed(&changed, &wanted);
        assert_eq!(taken(&again).unwrap().last(), Some(&wanted.entry));
        let mut without_ours = before.clone();
        without_ours.insert(name.to_owned(), text.to_owned());
        assert_eq!(uninstalled(&again), without_ours);
    }
    let mut by_hand = before.clone();
    by_hand.insert("d/30-z.conf".to_owned(), "{\"type\":\"sidetrack\"}".to_owned());
    assert_eq!(uninstall(&by_hand).by_hand, ["d/30-z.conf"]);
}

#[test]
fn single_plugin_gets_no_plugins_of_a_directory() {
    let before = files(&[("10-c.conf", SINGLE), ("c/10-x.conf", PLUGIN)]);
    let after = installed(&before, &wanted(Choice::First));
    assert_eq!(taken(&after).unwrap().len(), 2);
    assert_eq!(uninstalled(&after), before);
}

#[test]
fn our_entry_copied_by_multus_is_removed_from_delegates() {
    let flannel = installed(&files(&[("10-a.conflist", LIST)]), &wanted(Choice::First));
    let multus = format!(
        "{{\"cniVersion\":\"0.3.1\",\"name\":\"multus\",\"type\":\"multus\",\"delegates\":[{}]}}",
        flannel["10-a.conflist"]
    );
    let bare = multus.replace(&flannel["10-a.conflist"], LIST);
    for name in ["00-multus.conf", "00-multus.conflist"] {
        let list = |plugin: &str| format!("{{\"cniVersion\":\"0.3.1\",\"name\":\"m\",\"plugins\":[{plugin}]}}");
        let form = |plugin: &str| {
            if name.ends_with("list") {
                list(plugin)
            } else {
                plugin.to_owned()
            }
        };
        let mut snapshot = flannel.clone();
        snapshot.insert(name.to_owned(), form(&multus));
        let after = installed(&snapshot, &wanted(Choice::First));
        assert_eq!(after["10-a.conflist"], LIST);
        let runs = taken(&after).unwrap();
        assert_eq!(runs.len(), 2, "{runs:?}");
        assert!(!runs[0].to_string().contains("sidetrack"), "{runs:?}");
        let mut without_ours = files(&[("10-a.conflist", LIST)]);
        without_ours.insert(name.to_owned(), form(&bare));
        assert_eq!(uninstalled(&after), without_ours);
    }
}

#[test]
fn unreadable_first_configuration_is_not_ready() {
    let judged = |unreadable: &str, choice: Choice| {
        let mut snapshot = snapshot(&files(&[("10-a.conflist", LIST), ("30-x.conflist", "{")]));
        snapshot.insert(unreadable.to_owned(), Content::Unreadable("a link".to_owned()));
        let wanted = wanted(choice);
        let layout = super::install(&snapshot, &wanted);
        let judged = judge(&snapshot, &wanted, &layout);
        let names: Vec<_> = judged.iter().map(|judged| judged.verdict.name()).collect();
        assert_eq!(layout.target, Ok("10-a.conflist".to_owned()));
        names.join(" ")
    };
    assert_eq!(judged("05-x.conflist", Choice::First), "unreadable joined broken");
    assert_eq!(judged("20-x.conflist", Choice::First), "joined unread broken");
    let named = Choice::Named("10-a.conflist".to_owned());
    assert_eq!(judged("05-x.conflist", named), "unread joined broken");
}

#[test]
fn broken_first_configuration_blocks_containerd() {
    let snapshot = snapshot(&files(&[
        ("05-x.conf", "{"),
        ("07-y.conf", "{"),
        ("10-a.conflist", LIST),
    ]));
    let wanted = wanted(Choice::First);
    let judged = judge(&snapshot, &wanted, &super::install(&snapshot, &wanted));
    let names: Vec<_> = judged.iter().map(|judged| judged.verdict.name()).collect();
    assert_eq!(names, ["blocking", "broken", "joined"]);
    assert!(judged[0].verdict.reason().contains("containerd takes no configuration"));
}

#[test]
fn copy_sorts_before_its_source_and_is_removed() {
    let own = || wanted(Choice::Copy("00-sidetrack.conflist".to_owned()));
    for source in [("10-a.conflist", LIST), ("10-c.conf", SINGLE)] {
        let before = files(&[source, ("20-b.conflist", OTHER)]);
        let after = installed(&before, &own());
        assert_eq!(after[source.0], source.1);
        assert_eq!(taken(&after).unwrap().last(), Some(&own().entry));
        assert_eq!(install(&after, &own()).steps, []);
        assert_eq!(uninstalled(&after), before);
        // The source is rewritten: the copy follows.
        let mut changed = after.clone();
        changed.insert("05-b.conflist".to_owned(), OTHER.to_owned());
        let again = installed(&changed, &own());
        assert_eq!(taken(&again).unwrap()[0]["type"], "ptp");
        // From the other way to this one, and back.
        let chained = installed(&before, &wanted(Choice::First));
        let copied = installed(&chained, &own());
        assert!(copied.contains_key("00-sidetrack.conflist"));
        assert_eq!(uninstalled(&copied), before);
        assert_eq!(uninstalled(&installed(&after, &wanted(Choice::First))), before);
    }
    // Without its source it stays: pods start with the plugin, or not at all.
    let mut alone = installed(&files(&[("10-a.conflist", LIST)]), &own());
    alone.remove("10-a.conflist");
    let layout = install(&alone, &own());
    assert_eq!(
        (layout.target, layout.steps),
        (Err(Waiting::NoNetwork(Vec::new())), Vec::new())
    );
    let target = |files: &Files| install(files, &own()).target.unwrap_err().to_string();
    let earlier = files(&[("00-a.conflist", LIST)]);
    assert!(target(&earlier).contains("00-a.conflist comes before 00-sidetrack.conflist"));
    let foreign = files(&[("00-sidetrack.conflist", LIST), ("10-b.conflist", OTHER)]);
    assert!(target(&foreign).contains("00-sidetrack.conflist is there already"));
    let folder = files(&[("10-d.conflist", IN_FOLDER), ("d/x.conf", PLUGIN)]);
    assert!(target(&folder).contains("in a folder"));
}
