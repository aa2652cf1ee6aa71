//! How a directory becomes as wanted.

use serde_json::Value;

use super::uninstall::release;
use super::{
    Choice, Form, Layout, ORIGINAL, Reason, Snapshot, Step, Waiting, Wanted, form, list_form, managed, read,
    same_value, single_form,
};
use crate::node::chain::{self, Chain, Found};

/// Decides how the directory becomes as wanted.
pub fn install(snapshot: &Snapshot, wanted: &Wanted) -> Layout {
    let mut layout = match &wanted.choice {
        Choice::First => first(snapshot).and_then(|name| join(snapshot, name, &wanted.entry)),
        Choice::Named(name) => named(snapshot, name).and_then(|name| join(snapshot, name, &wanted.entry)),
        Choice::Standalone(name) => stand_alone(snapshot, name, &wanted.entry),
    }
    .unwrap_or_else(|waiting| Layout {
        target: Err(waiting),
        steps: Vec::new(),
        reasons: Vec::new(),
    });
    if let Ok(target) = &layout.target {
        let elsewhere: Vec<Step> = managed(snapshot)
            .filter(|name| *name != target)
            .flat_map(|name| release(snapshot, name))
            .collect();
        if !elsewhere.is_empty() {
            layout.reasons.push(Reason::EntryElsewhere);
            layout.steps.extend(elsewhere);
        }
    }
    layout
}

fn first(snapshot: &Snapshot) -> Result<&str, Waiting> {
    let is_network = |(name, text): &(&String, &String)| read(name, text).is_ok_and(|chain| !chain.is_ours_alone());
    let first = snapshot.iter().find(is_network);
    first.map(|(name, _)| name.as_str()).ok_or(Waiting::NoNetwork)
}

fn named<'s>(snapshot: &'s Snapshot, name: &str) -> Result<&'s str, Waiting> {
    // By the name that it had before it became a conflist, too.
    let name = [name, &list_form(name)]
        .into_iter()
        .find_map(|name| snapshot.get_key_value(name))
        .map(|(name, _)| name.as_str())
        .ok_or_else(|| Waiting::NotThere(name.to_owned()))?;
    match read(name, &snapshot[name]) {
        Ok(chain) if chain.is_ours_alone() => Err(Waiting::OursAlone(name.to_owned())),
        Ok(_) => Ok(name),
        Err(reason) => Err(Waiting::NotUsable {
            name: name.to_owned(),
            reason,
        }),
    }
}

fn join(snapshot: &Snapshot, name: &str, entry: &Value) -> Result<Layout, Waiting> {
    let text = &snapshot[name];
    let not_usable = |reason| Waiting::NotUsable {
        name: name.to_owned(),
        reason,
    };
    let chain = read(name, text).map_err(not_usable)?;
    if let Some(version) = chain.unsupported_version() {
        let name = name.to_owned();
        return Err(Waiting::Version { name, version });
    }
    if form(name) == Some(Form::Single) {
        return convert(snapshot, name, &chain, entry);
    }
    if let Some((single, chain)) = written_anew(snapshot, name, &chain) {
        return convert(snapshot, &single, &chain, entry);
    }
    let reason = match chain.find(entry) {
        Found::AsWanted => None,
        Found::Missing => Some(Reason::EntryMissing),
        Found::Different => Some(Reason::EntryDifferent),
        Found::NotLast => Some(Reason::EntryNotLast),
    };
    let step = Step::Write {
        name: name.to_owned(),
        was: Some(text.clone()),
        text: chain.with(entry),
        like: name.to_owned(),
    };
    Ok(Layout {
        target: Ok(name.to_owned()),
        steps: reason.map(|_| step).into_iter().collect(),
        reasons: reason.into_iter().collect(),
    })
}

/// The configuration of a single plugin that we made this conflist of, where it is there: it was not set aside yet, or
/// its owner has written it anew. Runtimes take a `.conflist` before a `.json` of the same name.
fn written_anew<'s>(snapshot: &'s Snapshot, name: &str, list: &Chain<'_>) -> Option<(String, Chain<'s>)> {
    if !list.is_managed() {
        return None;
    }
    let bare = list.without_managed();
    single_form(name).find_map(|single| {
        let chain = Chain::single(snapshot.get(&single)?).ok()?;
        let is_its_origin =
            snapshot.contains_key(&format!("{single}{ORIGINAL}")) || same_value(&chain::list_of(&chain), &bare);
        is_its_origin.then_some((single, chain))
    })
}

/// A configuration of a single plugin cannot hold a second one: a conflist takes its place. The conflist comes first,
/// so that there is always one of the two.
fn convert(snapshot: &Snapshot, name: &str, chain: &Chain<'_>, entry: &Value) -> Result<Layout, Waiting> {
    let list = list_form(name);
    let was = snapshot.get(&list);
    // From a conversion that was not finished, or whose original was written anew since.
    let is_ours = |text: &String| Chain::list(text).is_ok_and(|chain| chain.is_managed());
    if was.is_some_and(|was| !is_ours(was)) {
        return Err(Waiting::Taken(list));
    }
    let bare = chain::list_of(chain);
    let text = Chain::list(&bare).map_or_else(|_| bare.clone(), |chain| chain.with(entry));
    let write = Step::Write {
        name: list.clone(),
        was: was.cloned(),
        text: text.clone(),
        like: name.to_owned(),
    };
    let set_aside = Step::Rename {
        from: name.to_owned(),
        to: format!("{name}{ORIGINAL}"),
    };
    let write = (was != Some(&text)).then_some(write);
    Ok(Layout {
        target: Ok(list),
        steps: write.into_iter().chain([set_aside]).collect(),
        reasons: vec![Reason::EntryMissing],
    })
}

fn stand_alone(snapshot: &Snapshot, name: &str, network: &Value) -> Result<Layout, Waiting> {
    let was = snapshot.get(name);
    let list = serde_json::json!({
        "cniVersion": network["cniVersion"],
        "name": network["name"],
        "plugins": [network],
    });
    let wanted = if form(name) == Some(Form::List) { &list } else { network };
    let reason = match was {
        None => Some(Reason::EntryMissing),
        Some(text) if serde_json::from_str::<Value>(text).is_ok_and(|value| value == *wanted) => None,
        Some(text) if read(name, text).is_ok_and(|chain| chain.is_managed() && chain.is_ours_alone()) => {
            Some(Reason::EntryDifferent)
        }
        Some(_) => return Err(Waiting::Taken(name.to_owned())),
    };
    let step = Step::Write {
        name: name.to_owned(),
        was: was.cloned(),
        text: format!("{wanted:#}\n"),
        like: name.to_owned(),
    };
    Ok(Layout {
        target: Ok(name.to_owned()),
        steps: reason.map(|_| step).into_iter().collect(),
        reasons: reason.into_iter().collect(),
    })
}
