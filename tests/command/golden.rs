//! Golden files: the output of each renderer for each case.
//!
//! Review the files in `tests/golden` like code. `cargo insta review` shows what has changed.

use sidetrack::backend::{iptables, nftables};
use sidetrack::plan::Plan;
use sidetrack::render;

use crate::cases;
use crate::plans::plan;

/// The cases with golden netlink messages. For all others, `readback` and the comparison
/// with nft (`dry_run` of target `kernel`) prove the bytes.
const BYTES_KEPT: [&str; 5] = [
    "defaults",
    "IPv6 alone",
    "tproxy",
    "every lookup",
    "every option at once",
];

/// Each message of the transaction: its object, and its bytes.
fn netlink(plan: &Plan) -> String {
    let steps = nftables::create(&plan.ruleset);
    let bytes = nftables::transaction(&steps, None).expect("no part is too long");
    let mut rest = bytes.as_slice();
    let mut lines = Vec::new();
    let objects = steps.iter().map(|step| step.object.to_string());
    for object in ["begin".to_owned()]
        .into_iter()
        .chain(objects)
        .chain(["end".to_owned()])
    {
        let length = u32::from_ne_bytes(*rest.first_chunk().expect("a length")) as usize;
        let (message, next) = rest.split_at(length.next_multiple_of(4));
        let words: Vec<String> = message
            .chunks(4)
            .map(|word| word.iter().map(|b| format!("{b:02x}")).collect())
            .collect();
        lines.push(format!(
            "{object}\n  {}\n",
            words
                .chunks(16)
                .map(|line| line.join(" "))
                .collect::<Vec<_>>()
                .join("\n  ")
        ));
        rest = next;
    }
    assert!(rest.is_empty(), "more bytes than messages");
    lines.concat()
}

#[test]
fn each_renderer_matches_golden_for_each_case() {
    insta::with_settings!({ snapshot_path => "../golden", prepend_module_to_snapshot => false, omit_expression => true }, {
        for (name, options) in cases::all_options() {
            let plan = plan(options);
            let name = name.replace(|c: char| !c.is_alphanumeric(), "_");
            insta::assert_snapshot!(format!("{name}.nft"), render::nft::script(&plan));
            let text = iptables::script(&plan).expect("not too many rules");
            insta::assert_snapshot!(format!("{name}.iptables"), text);
            insta::assert_snapshot!(format!("{name}.json"), render::json::document(&plan));
        }
    });
}

#[test]
fn netlink_messages_match_golden() {
    insta::with_settings!({ snapshot_path => "../golden", prepend_module_to_snapshot => false, omit_expression => true }, {
        for kept in BYTES_KEPT {
            let (_, options) = cases::all_options().find(|(name, _)| *name == kept).expect("the name of a case");
            let name = kept.replace(' ', "_");
            insta::assert_snapshot!(format!("{name}.netlink"), netlink(&plan(options)));
        }
    });
}

#[test]
fn case_names_are_unique() {
    let mut names: Vec<&str> = cases::all_options().map(|(name, _)| name).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}
