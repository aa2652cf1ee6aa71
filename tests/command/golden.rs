//! What each renderer writes for each case, word for word.
//!
//! Review the files in `tests/golden` like code. `cargo insta review` shows what has changed.

use sidetrack::backend::{iptables, nftables};
use sidetrack::plan::Plan;
use sidetrack::render;

use crate::cases;
use crate::plans::plan;

/// The cases whose netlink messages are kept. Of all others, reading back what was written (`readback`) and comparing
/// with what nft makes of the text (`dry_run`, in the tests of the kernel) prove the bytes.
const BYTES_KEPT: [&str; 5] = [
    "defaults",
    "IPv6 alone",
    "tproxy",
    "every lookup",
    "every option at once",
];

/// Each message of the transaction: what it is about, and its bytes.
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
fn every_renderer_writes_every_case_as_reviewed() {
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
fn netlink_messages_are_written_as_reviewed() {
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
