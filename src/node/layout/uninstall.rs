//! How everything of ours goes from a directory.

use super::{ORIGINAL, Removal, Snapshot, Step, managed, read, same_value, single_form};
use crate::node::chain::{self, Chain};

/// Decides how everything of ours goes from the directory, and nothing else.
pub fn uninstall(snapshot: &Snapshot) -> Removal {
    let mut removal = Removal {
        steps: managed(snapshot).flat_map(|name| release(snapshot, name)).collect(),
        ..Removal::default()
    };
    for (name, text) in snapshot {
        if let Some(single) = name.strip_suffix(ORIGINAL) {
            let is_put_back = |step: &Step| matches!(step, Step::Rename { from, .. } if from == name);
            if snapshot.contains_key(single) {
                // Its owner has written it anew.
                removal.steps.push(Step::Remove { name: name.clone() });
            } else if !removal.steps.iter().any(is_put_back) {
                removal.originals.push(name.clone());
            }
        } else if read(name, text).is_ok_and(|chain| chain.is_written_by_hand()) {
            removal.by_hand.push(name.clone());
        }
    }
    removal
}

/// Takes what is ours from one configuration, and gives back the one that it replaced.
pub fn release(snapshot: &Snapshot, name: &str) -> Vec<Step> {
    let remove = Step::Remove { name: name.to_owned() };
    let text = &snapshot[name];
    let Ok(chain) = read(name, text) else {
        return Vec::new();
    };
    if chain.is_ours_alone() {
        return vec![remove];
    }
    let bare = chain.without_managed();
    let is_what_it_replaced = |original: &String| {
        let list = snapshot
            .get(original)
            .and_then(|text| Some(chain::list_of(&Chain::single(text).ok()?)));
        list.is_some_and(|list| same_value(&list, &bare))
    };
    for single in single_form(name) {
        let original = format!("{single}{ORIGINAL}");
        if is_what_it_replaced(&single) {
            // It was put back already.
            return vec![remove];
        }
        if is_what_it_replaced(&original) {
            if snapshot.contains_key(&single) {
                // Its owner has written it anew.
                return vec![remove];
            }
            let put_back = Step::Rename {
                from: original,
                to: single,
            };
            return vec![put_back, remove];
        }
    }
    vec![Step::Write {
        name: name.to_owned(),
        was: Some(text.clone()),
        text: bare,
        like: name.to_owned(),
    }]
}
