//! The steps that remove everything owned by sidetrack from a directory.

use super::{ORIGINAL, Removal, Snapshot, Step, managed, read, same_value, single_form};
use crate::node::chain::{self, Chain};

/// Plans the removal of everything owned by sidetrack, and of nothing else.
pub fn uninstall(snapshot: &Snapshot) -> Removal {
    let managed = managed(snapshot);
    let mut removal = Removal {
        steps: managed.iter().flat_map(|name| release(snapshot, name)).collect(),
        ..Removal::default()
    };
    for (name, text) in snapshot.texts() {
        if let Some(single) = name.strip_suffix(ORIGINAL) {
            let is_put_back = |step: &Step| matches!(step, Step::Rename { from, .. } if from == name);
            if snapshot.contains(single) {
                // Its owner has written it again.
                removal.steps.push(Step::Remove {
                    name: name.to_owned(),
                    was: text.to_owned(),
                });
            } else if !removal.steps.iter().any(is_put_back) {
                removal.originals.push(name.to_owned());
            }
        } else if read(name, text).is_some_and(|chain| chain.is_written_by_hand()) {
            removal.by_hand.push(name.to_owned());
        }
    }
    let by_hand = snapshot
        .folder_plugins()
        .filter(|(_, plugin)| plugin.is_ours() && !plugin.is_managed());
    removal.by_hand.extend(by_hand.map(|(name, _)| name));
    removal
}

/// Removes our entries from one file, and restores the file that it replaced.
pub fn release(snapshot: &Snapshot, name: &str) -> Vec<Step> {
    let Some(text) = snapshot.text(name) else {
        return Vec::new();
    };
    let remove = Step::Remove {
        name: name.to_owned(),
        was: text.to_owned(),
    };
    if name.contains('/') {
        return vec![remove];
    }
    let Some(chain) = read(name, text) else {
        return Vec::new();
    };
    if chain.is_ours_alone() || chain.is_copy() {
        return vec![remove];
    }
    let bare = chain.without_managed();
    for single in single_form(name) {
        let original = format!("{single}{ORIGINAL}");
        let is_what_it_replaced = |file: &str| {
            let list = snapshot
                .text(file)
                .and_then(|text| Some(chain::list_of(&Chain::single(text).ok()?, &single)));
            list.is_some_and(|list| same_value(&list, &bare))
        };
        if is_what_it_replaced(&single) {
            // The original was restored already.
            return vec![remove];
        }
        if is_what_it_replaced(&original) {
            if snapshot.contains(&single) {
                // Its owner has written it again.
                return vec![remove];
            }
            let without_ours = strip(snapshot, &original);
            let was = match &without_ours {
                Some(Step::Write { text, .. }) => text.as_str(),
                _ => snapshot.text(&original).unwrap_or_default(),
            };
            let put_back = Step::Rename {
                was: was.to_owned(),
                from: original,
                to: single,
            };
            return without_ours.into_iter().chain([put_back, remove]).collect();
        }
    }
    vec![Step::Write {
        name: name.to_owned(),
        was: Some(text.to_owned()),
        text: bare,
        like: name.to_owned(),
    }]
}

/// Removes our entries from an original: Multus copies them to its delegates.
fn strip(snapshot: &Snapshot, original: &str) -> Option<Step> {
    let text = snapshot.text(original)?;
    let bare = Chain::single(text).ok()?.without_managed();
    (bare != text).then(|| Step::Write {
        name: original.to_owned(),
        was: Some(text.to_owned()),
        text: bare,
        like: original.to_owned(),
    })
}
