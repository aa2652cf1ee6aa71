//! The record of a redirection in a listing.

use super::decode;
use super::listing::{Chain, Listing, Rule};
use crate::ruleset::{Action, Record};

/// The listing without the chain of a record, if that has no effect on packets.
pub fn without_record(mut listing: Listing) -> Listing {
    let family = listing.family;
    let has_no_effect = |listed: &Rule| {
        decode::rule(family, listed).is_some_and(|rule| rule.matches.is_empty() && rule.action == Action::Return)
    };
    let is_record = |chain: &Chain| chain.hook.is_none() && chain.rules.iter().all(has_no_effect);
    if listing.chains.get(Record::CHAIN).is_some_and(is_record) {
        listing.chains.remove(Record::CHAIN);
    }
    listing
}
