//! Decodes an nf_tables listing into rules: the inverse of the encoder.
//!
//! Every decoded object is verified: it counts only if encoding it again gives what was listed.

mod rules;
mod sets;

use super::encode::{self, timeout_attribute};
use super::listing::{self, Listing};
use super::uapi::*;
use crate::ruleset::{
    Action, BaseHook, Chain, ChainType, Hook, Installed, Match, Place, Rule, Ruleset, Set, TIMEOUTS, TableFamily,
    TcpState, Timeouts, Unreadable, priority,
};
use crate::types::{Families, Family, Timeout};

pub(super) use self::rules::{address, comment, nested, number, rule, text, words};
pub(super) use self::sets::key;

/// The rules of a listing. Chains and sets are sorted by name; rules keep their order.
pub fn decode(listing: &Listing) -> Installed {
    const DORMANT: u32 = 1;
    let mut unreadable = Vec::new();
    let mut report = |place, text: String, comment: String| {
        unreadable.push(Unreadable { place, text, comment });
    };
    match listing.flags {
        0 => {}
        DORMANT => report(Place::Table, "dormant: its rules do nothing".to_owned(), String::new()),
        flags => report(Place::Table, format!("flags {flags:#x}"), String::new()),
    }
    let mut sets = Vec::new();
    for (name, listed) in &listing.sets {
        let name = printable(name);
        match sets::elements(listed) {
            Some(elements) => sets.push(Set {
                name: name.clone().into(),
                elements,
            }),
            None => report(
                Place::Set(name.clone().into()),
                format!("{} boundaries of type {}", listed.boundaries.len(), listed.datatype),
                String::new(),
            ),
        }
    }
    let mut timeouts = None;
    for ((name, kind), object) in &listing.objects {
        match self::timeouts(listing.family, object).filter(|_| name == TIMEOUTS && *kind == NFT_OBJECT_CT_TIMEOUT) {
            Some(read) => timeouts = Some(read),
            None => report(
                Place::Table,
                format!("the object {} of type {kind}", printable(name)),
                String::new(),
            ),
        }
    }
    let mut chains = Vec::new();
    for (name, listed) in &listing.chains {
        let name = printable(name);
        let hook = listed.hook.as_ref().map(|hook| base_hook(hook).ok_or(hook));
        if let Some(Err(listing::BaseHook {
            kind,
            hook,
            priority,
            policy,
        })) = hook
        {
            let text = format!("type {kind} hook {hook} priority {priority} policy {policy}");
            report(Place::Hook(name.clone().into()), text, String::new());
        }
        let mut rules = Vec::new();
        for (position, listed) in listed.rules.iter().enumerate() {
            match rule(listing.family, listed) {
                Some(rule) => rules.push(rule),
                None => {
                    let names: Vec<&str> = listed.expressions.iter().map(|(name, _)| name.as_str()).collect();
                    let place = Place::Rule {
                        chain: name.clone().into(),
                        position,
                    };
                    report(place, names.join(" "), comment(&listed.user_data));
                }
            }
        }
        chains.push(Chain {
            name: name.clone().into(),
            hook: hook.and_then(Result::ok),
            rules,
        });
    }
    Installed {
        ruleset: Ruleset {
            families: match listing.family {
                TableFamily::Inet => families(&chains),
                TableFamily::Only(family) => Families::Only(family),
            },
            timeouts,
            sets,
            chains,
            record: None,
        }
        .with_record_of_chains(),
        unreadable,
    }
}

/// The redirected families: the first rule of every base chain returns packets of any other.
fn families(chains: &[Chain]) -> Families {
    // Those of type filter see both families.
    let redirects = |chain: &&Chain| chain.hook.is_some_and(|hook| hook.kind != ChainType::Filter);
    let turned_away = |family: Family| {
        let base = chains.iter().filter(redirects);
        let mut first = base.map(|chain| chain.rules.first()).peekable();
        let away = |rule: &Rule| rule.matches == [Match::Family(family)] && rule.action == Action::Return;
        first.peek().is_some() && first.all(|rule| rule.is_some_and(away))
    };
    match Family::BOTH.into_iter().find(|family| turned_away(*family)) {
        Some(family) => Families::Only(family.other()),
        None => Families::Both,
    }
}

/// The timeouts of an object in a table of this family, if it sets all that sidetrack sets, for TCP.
pub(super) fn timeouts(family: TableFamily, object: &listing::Object) -> Option<Timeouts> {
    let of = |state: TcpState| Timeout::new(*object.timeouts.get(&timeout_attribute(state))?);
    let timeouts = Timeouts {
        close_wait: of(TcpState::CloseWait)?,
        last_ack: of(TcpState::LastAck)?,
    };
    (object.family == u16::from(encode::number(family)) && object.protocol == IPPROTO_TCP).then_some(timeouts)
}

fn base_hook(listed: &listing::BaseHook) -> Option<BaseHook> {
    let hook = Hook::of_number(listed.hook)?;
    let kind = match (listed.kind.as_str(), hook) {
        // Ours translate nothing there: see `nft::chain_type`.
        ("nat", Hook::Input) => ChainType::Filter,
        ("nat", Hook::Output) if listed.priority > priority::FILTER => ChainType::Filter,
        ("nat", _) => ChainType::Nat,
        ("route", Hook::Output) => ChainType::Mangle,
        ("filter", Hook::Prerouting) if listed.priority == priority::EARLY_FILTER => ChainType::Filter,
        ("filter", _) if listed.priority < priority::CONNTRACK => ChainType::Raw,
        ("filter", Hook::Prerouting) => ChainType::Mangle,
        ("filter", Hook::Input | Hook::Forward | Hook::Output | Hook::Postrouting) => ChainType::Filter,
        _ => return None,
    };
    (listed.policy == NF_ACCEPT).then_some(BaseHook {
        kind,
        hook,
        priority: listed.priority,
    })
}

/// The text without terminal control characters. Names owned by sidetrack have none.
pub(super) fn printable(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}
