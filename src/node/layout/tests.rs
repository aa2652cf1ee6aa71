use serde_json::json;

use super::*;
use crate::node::chain;
use crate::node::entry::{self, Installer};

const LIST: &str = "{\"cniVersion\":\"1.0.0\",\"name\":\"a\",\"plugins\":[{\"type\":\"bridge\"}]}";
const OTHER: &str = "{\"cniVersion\":\"0.4.0\",\"name\":\"b\",\"plugins\":[{\"type\":\"ptp\"}]}";
const SINGLE: &str = "{\"cniVersion\": \"0.3.1\", \"name\": \"c\", \"type\": \"weave\", \"mtu\": 1.50}\n";
const ANOTHER_SINGLE: &str = "{\"cniVersion\": \"0.3.1\", \"name\": \"c\", \"type\": \"weave\", \"mtu\": 2}\n";

fn files(files: &[(&str, &str)]) -> Snapshot {
    let file = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
    files.iter().map(file).collect()
}

fn wanted(choice: Choice) -> Wanted {
    let entry = match choice {
        Choice::Standalone(_) => entry::standalone(json!({}), &Installer::default()),
        Choice::First | Choice::Named(_) => entry::entry(json!({}), &Installer::default()),
    };
    Wanted {
        choice,
        entry: entry.unwrap(),
    }
}

/// Does a step as the file system does it.
fn take(snapshot: &mut Snapshot, step: &Step) {
    match step {
        Step::Write { name, was, text, like } => {
            assert_eq!(snapshot.get(name), was.as_ref(), "{step:?}");
            assert!(like == name || snapshot.contains_key(like), "{step:?}");
            snapshot.insert(name.clone(), text.clone());
        }
        Step::Rename { from, to } => {
            let text = snapshot.remove(from).unwrap_or_else(|| panic!("{step:?}"));
            snapshot.insert(to.clone(), text);
        }
        Step::Remove { name } => assert!(snapshot.remove(name).is_some(), "{step:?}"),
    }
}

/// The plugins that a runtime would run: those of the first configuration, which must be valid.
fn taken(snapshot: &Snapshot) -> Option<Value> {
    let (name, text) = snapshot.iter().find(|(name, _)| form(name).is_some())?;
    let text = match form(name) {
        Some(Form::List) => text.clone(),
        _ => chain::list_of(&Chain::single(text).unwrap_or_else(|error| panic!("{name}: {error}"))),
    };
    Chain::list(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_json::from_str(&text).ok()
}

/// Does the steps one by one. After each, a runtime finds the old or the new configuration, and an installer that
/// starts anew comes to the same end.
fn carry_out(snapshot: &Snapshot, steps: &[Step], again: &dyn Fn(&Snapshot) -> Vec<Step>) -> Snapshot {
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

fn installed(snapshot: &Snapshot, wanted: &Wanted) -> Snapshot {
    let layout = install(snapshot, wanted);
    assert!(layout.target.is_ok(), "{layout:?}");
    assert_eq!(layout.steps.is_empty(), layout.reasons.is_empty(), "{layout:?}");
    carry_out(snapshot, &layout.steps, &|state| install(state, wanted).steps)
}

fn uninstalled(snapshot: &Snapshot) -> Snapshot {
    carry_out(snapshot, &uninstall(snapshot).steps, &|state| uninstall(state).steps)
}

#[test]
fn what_was_installed_is_taken_away_to_the_byte_in_every_form() {
    let directories = [
        files(&[("10-a.conflist", LIST), ("20-b.conflist", OTHER)]),
        files(&[("10-c.conf", SINGLE)]),
        files(&[("10-c.json", SINGLE), ("99-b.conflist", OTHER)]),
        files(&[("00-broken.conflist", "{"), ("10-c.conf", SINGLE)]),
    ];
    for before in directories {
        let names = before.keys().cloned().map(Choice::Named);
        let joinable = names.filter(|choice| install(&before, &wanted(choice.clone())).target.is_ok());
        let alone = ["z.conf", "z.conflist"].map(|name| Choice::Standalone(name.to_owned()));
        for choice in joinable.chain([Choice::First]).chain(alone) {
            if before.contains_key("00-broken.conflist") && choice != Choice::First {
                continue;
            }
            let without_broken: Snapshot = before
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
fn the_first_valid_configuration_is_taken() {
    let target = |snapshot: &Snapshot| install(snapshot, &wanted(Choice::First)).target;
    let broken = ("05-broken.conflist", "{");
    let list_in_single = ("06-list.conf", LIST);
    let both = files(&[
        broken,
        list_in_single,
        ("10-a.conflist", LIST),
        ("20-b.conflist", OTHER),
    ]);
    assert_eq!(target(&both), Ok("10-a.conflist".to_owned()));
    assert_eq!(target(&files(&[broken])), Err(Waiting::NoNetwork));
    assert_eq!(target(&files(&[("10-a.conflist.bak", LIST)])), Err(Waiting::NoNetwork));
    let ours = entry::standalone(json!({}), &Installer::default()).unwrap().to_string();
    let alone = files(&[("00-sidetrack.conf", &ours), ("10-a.conflist", LIST)]);
    assert_eq!(target(&alone), Ok("10-a.conflist".to_owned()));
}

#[test]
fn an_earlier_configuration_gets_the_entry_and_the_old_one_loses_it() {
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
fn a_single_configuration_that_is_written_anew_is_converted_again() {
    for name in ["10-c.conf", "10-c.json"] {
        let mut snapshot = installed(&files(&[(name, SINGLE)]), &wanted(Choice::First));
        snapshot.insert(name.to_owned(), ANOTHER_SINGLE.to_owned());
        assert_eq!(uninstalled(&snapshot), files(&[(name, ANOTHER_SINGLE)]));
        let after = installed(&snapshot, &wanted(Choice::First));
        assert_eq!(uninstalled(&after), files(&[(name, ANOTHER_SINGLE)]));
    }
}

#[test]
fn a_conflist_that_somebody_changed_since_it_was_made_stays() {
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
fn a_name_that_is_taken_is_told() {
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
fn what_cannot_be_joined_is_told_and_left_alone() {
    let target = |files: &Snapshot, choice| {
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
fn a_named_configuration_is_found_under_the_name_that_it_had() {
    let named = wanted(Choice::Named("10-c.conf".to_owned()));
    let after = installed(&files(&[("10-c.conf", SINGLE)]), &named);
    assert_eq!(install(&after, &named).target, Ok("10-c.conflist".to_owned()));
}
