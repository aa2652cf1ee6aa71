//! The steps that install the plugin in a directory.

use serde_json::Value;

use super::uninstall::release;
use super::{
    Choice, Form, Layout, Loaded, NotLoaded, ORIGINAL, Reason, Snapshot, Step, Waiting, Wanted, form, list_form,
    managed, read, same_value, single_form,
};
use crate::node::chain::{self, Chain, Found};

/// Our file in a plugin folder. Where other files sort after it, its name is derived from the last of them.
const FOLDER_PLUGIN: &str = "zz-sidetrack.conf";

/// Plans how to reach the desired state of the directory.
pub fn install(snapshot: &Snapshot, wanted: &Wanted) -> Layout {
    let planned = match &wanted.choice {
        Choice::First => first(snapshot).and_then(|name| join(snapshot, name, &wanted.entry)),
        Choice::Named(name) => named(snapshot, name).and_then(|name| join(snapshot, name, &wanted.entry)),
        Choice::Standalone(name) => stand_alone(snapshot, name, &wanted.entry),
        Choice::Copy(name) => first(snapshot).and_then(|source| copy(snapshot, name, source, &wanted.entry)),
    };
    let mut planned = match planned {
        Ok(planned) => planned,
        Err(waiting) => {
            let stand_in = match (&wanted.choice, &waiting) {
                (Choice::Copy(name), Waiting::NoNetwork(_)) => stand_in(snapshot, name, &wanted.entry),
                _ => None,
            };
            return Layout {
                target: Err(waiting),
                source: None,
                reasons: stand_in.iter().map(|_| Reason::EntryMissing).collect(),
                steps: stand_in.into_iter().collect(),
            };
        }
    };
    let elsewhere = managed(snapshot)
        .into_iter()
        .filter(|name| !planned.holders.contains(name));
    let elsewhere: Vec<Step> = elsewhere.flat_map(|name| release(snapshot, &name)).collect();
    if !elsewhere.is_empty() {
        planned.reasons.push(Reason::EntryElsewhere);
        planned.steps.extend(elsewhere);
    }
    Layout {
        target: Ok(planned.target),
        source: Some(planned.source),
        steps: planned.steps,
        reasons: planned.reasons,
    }
}

/// The plan for one configuration.
struct Planned {
    /// The final name.
    target: String,
    /// The current name.
    source: String,
    /// The files that may have our entry.
    holders: Vec<String>,
    steps: Vec<Step>,
    reasons: Vec<Reason>,
}

fn first(snapshot: &Snapshot) -> Result<&str, Waiting> {
    let mut skipped = Vec::new();
    for name in snapshot.configurations() {
        match snapshot.load(name) {
            Ok(taken) if !taken.is_ours_alone() => return Ok(name),
            Ok(_) => {}
            Err(NotLoaded::Broken(reason)) => skipped.push((name.to_owned(), reason.to_string())),
            Err(NotLoaded::Unreadable(why)) => skipped.push((name.to_owned(), why)),
        }
    }
    Err(Waiting::NoNetwork(skipped))
}

fn named<'s>(snapshot: &'s Snapshot, name: &str) -> Result<&'s str, Waiting> {
    // Accepts the name that it had before it became a conflist, too.
    let name = [name, &list_form(name)]
        .into_iter()
        .find_map(|name| snapshot.name(name))
        .ok_or_else(|| Waiting::NotThere(name.to_owned()))?;
    match snapshot.load(name) {
        Ok(taken) if taken.is_ours_alone() => Err(Waiting::OursAlone(name.to_owned())),
        Ok(_) => Ok(name),
        Err(reason) => Err(not_usable(name, reason)),
    }
}

fn not_usable(name: &str, reason: NotLoaded) -> Waiting {
    Waiting::NotUsable {
        name: name.to_owned(),
        reason: match reason {
            NotLoaded::Broken(reason) => reason.to_string(),
            NotLoaded::Unreadable(why) => why,
        },
    }
}

fn join(snapshot: &Snapshot, name: &str, entry: &Value) -> Result<Planned, Waiting> {
    let taken = snapshot.load(name).map_err(|reason| not_usable(name, reason))?;
    let chain = &taken.chain;
    if let Some(version) = chain.unsupported_version() {
        let name = name.to_owned();
        return Err(Waiting::Version { name, version });
    }
    if form(name) == Some(Form::Single) {
        return convert(snapshot, name, chain, entry);
    }
    if let Some((single, chain)) = rewritten_original(snapshot, name, chain) {
        return convert(snapshot, &single, &chain, entry);
    }
    let (holder, step, reason) = if chain.is_empty() {
        join_folder(snapshot, &taken, entry)
    } else {
        let reason = match chain.find(entry) {
            Found::AsWanted => None,
            Found::Missing => Some(Reason::EntryMissing),
            Found::Different => Some(Reason::EntryDifferent),
            Found::NotLast => Some(Reason::EntryNotLast),
            Found::Delegated => Some(Reason::EntryDelegated),
        };
        let step = Step::Write {
            name: name.to_owned(),
            was: snapshot.text(name).map(str::to_owned),
            text: chain.with(entry),
            like: name.to_owned(),
        };
        (name.to_owned(), step, reason)
    };
    Ok(Planned {
        target: name.to_owned(),
        source: name.to_owned(),
        holders: vec![holder],
        steps: reason.map(|_| step).into_iter().collect(),
        reasons: reason.into_iter().collect(),
    })
}

/// Where all plugins are files in a folder, our entry is a file there, too: in the list, it would run before them.
fn join_folder(snapshot: &Snapshot, taken: &Loaded<'_>, entry: &Value) -> (String, Step, Option<Reason>) {
    let (folder, plugins) = taken
        .folder
        .as_ref()
        .map_or(("", &[][..]), |(name, plugins)| (name, plugins));
    let others = plugins.iter().filter(|(_, plugin)| !plugin.is_ours());
    let last = others.map(|(file, _)| *file).max().unwrap_or_default();
    let file = if last < FOLDER_PLUGIN {
        FOLDER_PLUGIN.to_owned()
    } else {
        format!("{last}-{FOLDER_PLUGIN}")
    };
    let mut ours = plugins.iter().filter(|(_, plugin)| plugin.is_ours());
    let reason = match (ours.next(), ours.next()) {
        (None, _) => Some(Reason::EntryMissing),
        (Some((at, plugin)), None) if plugin.is(entry) && *at == file => None,
        (Some((at, plugin)), None) if plugin.is(entry) && *at < last => Some(Reason::EntryNotLast),
        _ => Some(Reason::EntryDifferent),
    };
    let name = format!("{folder}/{file}");
    let step = Step::Write {
        was: snapshot.text(&name).map(str::to_owned),
        text: format!("{entry:#}\n"),
        like: format!("{folder}/{last}"),
        name: name.clone(),
    };
    (name, step, reason)
}

/// The single-plugin configuration that this conflist was converted from, where it exists: it was not renamed yet, or
/// its owner has written it again. Runtimes prefer a `.conflist` to a `.json` of the same name.
fn rewritten_original<'s>(snapshot: &'s Snapshot, name: &str, list: &Chain<'_>) -> Option<(String, Chain<'s>)> {
    if !list.is_managed() {
        return None;
    }
    let bare = list.without_managed();
    single_form(name).find_map(|single| {
        let chain = Chain::single(snapshot.text(&single)?).ok()?;
        let is_its_origin =
            snapshot.contains(&format!("{single}{ORIGINAL}")) || same_value(&chain::list_of(&chain, &single), &bare);
        is_its_origin.then_some((single, chain))
    })
}

/// Converts a configuration of a single plugin, which cannot hold a second one, to a conflist. The conflist is written
/// first, so that one of the two files always exists.
fn convert(snapshot: &Snapshot, name: &str, chain: &Chain<'_>, entry: &Value) -> Result<Planned, Waiting> {
    let list = list_form(name);
    let was = snapshot.text(&list);
    // Left by an unfinished conversion, or by one whose original was written again since.
    let is_ours = |text: &str| Chain::list(text).is_ok_and(|chain| chain.is_managed());
    if snapshot.contains(&list) && !was.is_some_and(is_ours) {
        return Err(Waiting::Taken(list));
    }
    let bare = chain::list_of(chain, name);
    let text = Chain::list(&bare).map_or_else(|_| bare.clone(), |chain| chain.with(entry));
    let write = Step::Write {
        name: list.clone(),
        was: was.map(str::to_owned),
        text: text.clone(),
        like: name.to_owned(),
    };
    let set_aside = Step::Rename {
        from: name.to_owned(),
        to: format!("{name}{ORIGINAL}"),
        was: snapshot.text(name).unwrap_or_default().to_owned(),
    };
    let write = (was != Some(&text)).then_some(write);
    Ok(Planned {
        source: name.to_owned(),
        holders: vec![list.clone(), name.to_owned(), format!("{name}{ORIGINAL}")],
        target: list,
        steps: write.into_iter().chain([set_aside]).collect(),
        reasons: vec![Reason::EntryMissing],
    })
}

fn stand_alone(snapshot: &Snapshot, name: &str, network: &Value) -> Result<Planned, Waiting> {
    let was = snapshot.text(name);
    let list = serde_json::json!({
        "cniVersion": network["cniVersion"],
        "name": network["name"],
        "plugins": [network],
    });
    let wanted = if form(name) == Some(Form::List) { &list } else { network };
    let reason = match was {
        None if snapshot.contains(name) => return Err(Waiting::Taken(name.to_owned())),
        None => Some(Reason::EntryMissing),
        Some(text) if serde_json::from_str::<Value>(text).is_ok_and(|value| value == *wanted) => None,
        Some(text) if read(name, text).is_some_and(|chain| chain.is_managed() && chain.is_ours_alone()) => {
            Some(Reason::EntryDifferent)
        }
        Some(_) => return Err(Waiting::Taken(name.to_owned())),
    };
    let step = Step::Write {
        name: name.to_owned(),
        was: was.map(str::to_owned),
        text: format!("{wanted:#}\n"),
        like: name.to_owned(),
    };
    Ok(alone(name, step, reason))
}

/// The plan of a file that is owned by sidetrack, whose step is taken if there is a reason.
fn alone(name: &str, step: Step, reason: Option<Reason>) -> Planned {
    Planned {
        target: name.to_owned(),
        source: name.to_owned(),
        holders: vec![name.to_owned()],
        steps: reason.map(|_| step).into_iter().collect(),
        reasons: reason.into_iter().collect(),
    }
}

/// What stands in for the copy until there is a network to copy: a configuration by which every pod fails and is tried
/// again. Without it, pods that start between the first write of the network plugin and ours bypass their proxy.
fn stand_in(snapshot: &Snapshot, name: &str, entry: &Value) -> Option<Step> {
    let is_first = snapshot.configurations().next().is_none_or(|first| first > name);
    if snapshot.contains(name) || !is_first {
        return None;
    }
    Some(Step::Write {
        name: name.to_owned(),
        was: None,
        text: chain::stand_in(entry),
        like: name.to_owned(),
    })
}

/// A copy owned by sidetrack that sorts before its source. The writer of the source does not touch the copy, so no pod
/// starts without the plugin meanwhile.
fn copy(snapshot: &Snapshot, name: &str, source: &str, entry: &Value) -> Result<Planned, Waiting> {
    let taken = snapshot.load(source).map_err(|reason| not_usable(source, reason))?;
    let chain = &taken.chain;
    if let Some(version) = chain.unsupported_version() {
        let name = source.to_owned();
        return Err(Waiting::Version { name, version });
    }
    if taken.folder.iter().any(|(_, plugins)| !plugins.is_empty()) {
        return Err(Waiting::NotUsable {
            name: source.to_owned(),
            reason:
                "some of its plugins are in a folder, and a copy would run them after ours. Leave out --own-conflist"
                    .to_owned(),
        });
    }
    if let Some(first) = snapshot.configurations().next().filter(|first| *first < name) {
        return Err(Waiting::NotFirst {
            name: name.to_owned(),
            first: first.to_owned(),
        });
    }
    let was = snapshot.text(name);
    let is_copy = |text: &str| Chain::list(text).is_ok_and(|chain| chain.is_copy());
    if snapshot.contains(name) && !was.is_some_and(is_copy) {
        return Err(Waiting::Taken(name.to_owned()));
    }
    let list = match form(source) {
        Some(Form::Single) => chain::list_of(chain, source),
        _ => snapshot.text(source).unwrap_or_default().to_owned(),
    };
    let text = Chain::list(&list).map_or_else(|_| list.clone(), |list| chain::copy_of(&list, entry));
    let reason = match was {
        None => Some(Reason::EntryMissing),
        Some(was) => (was != text).then_some(Reason::EntryDifferent),
    };
    let step = Step::Write {
        name: name.to_owned(),
        was: was.map(str::to_owned),
        text,
        like: source.to_owned(),
    };
    Ok(alone(name, step, reason))
}
