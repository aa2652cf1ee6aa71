//! What the manifest says about redirection and a CNI plugin is not told.

use super::Report;
use super::code::Code;
use super::subject::Subject;
use crate::mesh::verdict::{Unseen, Where};

/// Looks at what only annotations could tell a plugin.
pub fn look_at(subject: &Subject<'_>, report: &mut Report) {
    for Unseen {
        at,
        place,
        what,
        annotation,
        value,
    } in &subject.unseen
    {
        // What comes of a user that is not exempt is a finding of its own.
        if *place != Where::User {
            let message = format!("{what}, which no annotation tells; set {annotation}: \"{value}\"");
            report.add(Code::Unseen, *at, message);
        }
    }
}
