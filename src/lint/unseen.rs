//! Settings of a manifest that a CNI plugin does not receive.

use super::Report;
use super::code::Code;
use super::subject::Subject;
use crate::mesh::verdict::{Unseen, UnseenPlace};

/// Reports settings of the manifest that a plugin could receive only as annotations.
pub fn check(subject: &Subject<'_>, report: &mut Report) {
    for Unseen {
        at,
        place,
        what,
        annotation,
        value,
    } in &subject.unseen
    {
        // A proxy's user that is not exempt has its own finding, ST203.
        if *place != UnseenPlace::User {
            let message = format!("{what}, and no annotation says so; set {annotation}: \"{value}\"");
            report.add(Code::Unseen, *at, message);
        }
    }
}
