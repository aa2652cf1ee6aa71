//! A ruleset as nf_tables netlink messages: the steps of one transaction, and their bytes.

use std::fmt;

use libc::{
    NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFNL_SUBSYS_NFTABLES, NFT_MSG_DELCHAIN, NFT_MSG_DELOBJ, NFT_MSG_DELRULE,
    NFT_MSG_DELSET, NFT_MSG_DELTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWOBJ, NFT_MSG_NEWRULE, NFT_MSG_NEWSET,
    NFT_MSG_NEWSETELEM, NFT_MSG_NEWTABLE,
};
use netlink_packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};

use super::Listing;
use super::attributes::{Attributes, TooLong, user_data};
use super::uapi::*;
use super::{elements, expression};
use crate::ruleset::{
    BaseHook, Chain, Counts, Name, Rule, Ruleset, Set, TABLE, TIMEOUTS, TableFamily, TcpState, Timeouts,
};
use crate::types::Family;

/// One message of a transaction.
pub struct Step {
    /// The object of the message, for reporting an error of the kernel.
    pub object: Object,
    /// `enum nf_tables_msg_types`.
    pub(super) kind: i32,
    /// The family of the table: `NFPROTO_…` (linux/netfilter.h).
    pub(super) family: u8,
    flags: u16,
    pub(super) attributes: Attributes,
}

impl Step {
    pub(super) fn new(object: Object, kind: i32, flags: u16, write: impl FnOnce(&mut Attributes)) -> Self {
        let mut attributes = Attributes::with_capacity(256);
        write(&mut attributes);
        Self {
            object,
            kind,
            family: NFPROTO_INET,
            flags,
            attributes,
        }
    }
}

/// The object of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// Our table of this family.
    Table(TableFamily),
    /// A foreign table, as a person writes it.
    ForeignTable(String),
    /// All rules of our table.
    AllRules,
    /// The timeouts that rules set.
    Timeouts,
    /// The table of a trace, or a part of it.
    TraceTable(String),
    /// A named foreign object in our table.
    Other(String),
    /// A chain.
    Chain(Name),
    /// A set.
    Set(Name),
    /// Elements of a set.
    Elements(Name),
    /// A rule.
    Rule {
        /// Chain of the rule.
        chain: Name,
        /// The comment that states its purpose.
        comment: Name,
    },
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(family) => write!(f, "table {}", family.title()),
            Self::ForeignTable(name) => write!(f, "table {name}"),
            Self::TraceTable(name) => write!(f, "the trace's table inet {name}"),
            Self::AllRules => write!(f, "the rules of table {TABLE}"),
            Self::Timeouts => write!(f, "ct timeout {TIMEOUTS}"),
            Self::Other(name) => write!(f, "the object {name}"),
            Self::Chain(name) => write!(f, "chain {name}"),
            Self::Set(name) => write!(f, "set {name}"),
            Self::Elements(name) => write!(f, "elements of set {name}"),
            Self::Rule { chain, comment } => write!(f, "rule '{comment}' of chain {chain}"),
        }
    }
}

/// `enum nft_userdata` of nft: a comment on a rule.
pub(super) const RULE_COMMENT: u8 = 0;
/// `enum nft_set_userdata`: in which byte order the keys of a set are shown.
const SET_KEY_BYTE_ORDER: u8 = 0;

/// The steps that create the table for both families with all its contents. They fail if it exists already.
pub fn create(ruleset: &Ruleset) -> Vec<Step> {
    create_in(TableFamily::Inet, ruleset)
}

/// The same for a table of any family, whose packets `ruleset` is about.
///
/// Nothing is deleted: a transaction that deletes makes the sender wait for an RCU grace period when it closes its
/// socket, about ten times as long as everything else.
pub fn create_in(family: TableFamily, ruleset: &Ruleset) -> Vec<Step> {
    let mut steps = vec![table(family, NLM_F_CREATE | NLM_F_EXCL, |_| {})];
    steps.extend(ruleset.timeouts.iter().map(|of| timeouts(family, of)));
    steps.extend(sets(family, ruleset, |_| true));
    steps.extend(ruleset.installed_chains().map(chain));
    steps.extend(rules(family, ruleset, &Counts::default()));
    of_family(family, steps)
}

/// The steps of a rehearsal that shows whether the kernel has ct timeout objects.
pub fn only_timeouts(family: TableFamily, of: &Timeouts) -> Vec<Step> {
    let steps = vec![table(family, NLM_F_CREATE, |_| {}), timeouts(family, of)];
    of_family(family, steps)
}

/// The steps, about our table of this family.
fn of_family(family: TableFamily, mut steps: Vec<Step>) -> Vec<Step> {
    for step in &mut steps {
        step.family = number(family);
    }
    steps
}

/// `NFPROTO_…` (linux/netfilter.h).
pub(super) fn number(family: TableFamily) -> u8 {
    match family {
        TableFamily::Inet => NFPROTO_INET,
        TableFamily::Only(Family::V4) => NFPROTO_IPV4,
        TableFamily::Only(Family::V6) => NFPROTO_IPV6,
    }
}

/// The steps that turn the installed state into `ruleset`, whose listing is `planned`. Base chains stay in place, so
/// their hooks are never empty; unused objects are deleted. Counters begin with the values of `counts`.
pub fn replace(ruleset: &Ruleset, planned: &Listing, installed: &Listing, counts: &Counts) -> Vec<Step> {
    let family = planned.family;
    let kept_set = |name: &str| planned.set(name).is_some() && planned.set(name) == installed.set(name);
    let kept_object = |name: &str| planned.object(name).is_some() && planned.object(name) == installed.object(name);
    let kept_chain = |name: &str| planned.chain_has_same_hook(installed, name);
    // Without the dormant flag: a dormant table becomes active again.
    let awake = |table: &mut Attributes| table.number(NFTA_TABLE_FLAGS, 0);
    let mut steps = vec![table(family, NLM_F_CREATE, awake), flush_rules()];
    // The kernel cannot change a ct timeout object; it can only delete one that no rule refers to any more.
    steps.extend(
        installed
            .objects()
            .filter(|(name, _)| !kept_object(name))
            .map(delete_object),
    );
    steps.extend(installed.set_names().filter(|name| !kept_set(name)).map(delete_set));
    steps.extend(
        installed
            .chain_names()
            .filter(|name| !kept_chain(name))
            .map(delete_chain),
    );
    let of = ruleset.timeouts.iter().filter(|_| !kept_object(TIMEOUTS));
    steps.extend(of.map(|of| timeouts(family, of)));
    steps.extend(sets(family, ruleset, |set| !kept_set(&set.name)));
    let chains = ruleset.installed_chains();
    steps.extend(chains.filter(|c| !kept_chain(&c.name)).map(chain));
    steps.extend(rules(family, ruleset, counts));
    of_family(family, steps)
}

/// The steps that replace the whole table without reading it first. The new base chains are registered before the old
/// ones are deleted; deleting is slow, see [`create`].
pub fn renew(family: TableFamily, ruleset: &Ruleset) -> Vec<Step> {
    let mut steps = discard(family);
    steps.extend(create_in(family, ruleset));
    steps
}

/// The step that deletes our table with all its contents.
pub fn remove(family: TableFamily) -> Vec<Step> {
    let named = |table: &mut Attributes| table.text(NFTA_TABLE_NAME, TABLE);
    of_family(
        family,
        vec![Step::new(Object::Table(family), NFT_MSG_DELTABLE, 0, named)],
    )
}

/// The steps that delete our table, whether it exists or not.
pub fn discard(family: TableFamily) -> Vec<Step> {
    let mut steps = of_family(family, vec![table(family, NLM_F_CREATE, |_| {})]);
    steps.extend(remove(family));
    steps
}

/// The step that deletes a foreign table with all its contents. `family` is one of `NFPROTO_…`, and `title` the table
/// as a person writes it.
pub fn remove_foreign_table(family: u8, name: &str, title: &str) -> Step {
    let object = Object::ForeignTable(title.to_owned());
    let named = |table: &mut Attributes| table.text(NFTA_TABLE_NAME, name);
    Step {
        family,
        ..Step::new(object, NFT_MSG_DELTABLE, 0, named)
    }
}

/// The bytes of a transaction. Step `i` has the sequence number `i + 1`; the last step requests an acknowledgement.
///
/// With a `generation`, the kernel refuses the transaction (ERESTART) if the ruleset has changed since then.
///
/// # Errors
/// An attribute is too long.
pub fn transaction(steps: &[Step], generation: Option<u32>) -> Result<Vec<u8>, TooLong> {
    let mut bytes = rehearsal(steps, generation)?;
    let end = steps.len() as u32 + 1;
    append(
        &mut bytes,
        Kind::Batch(NFNL_MSG_BATCH_END),
        0,
        end,
        &Attributes::default(),
    )?;
    Ok(bytes)
}

/// The same without the end of the batch: the kernel processes all steps, answers, and then aborts the transaction
/// (`nfnetlink_rcv_batch`, net/netfilter/nfnetlink.c).
///
/// # Errors
/// An attribute is too long.
pub fn rehearsal(steps: &[Step], generation: Option<u32>) -> Result<Vec<u8>, TooLong> {
    let attributes: usize = steps.iter().map(|step| step.attributes.as_bytes().len()).sum();
    let mut bytes = Vec::with_capacity(attributes + HEADERS_LENGTH * (steps.len() + 2) + 8);

    let mut batch = Attributes::default();
    if let Some(id) = generation {
        batch.number(NFNL_BATCH_GENID, id);
    }
    append(&mut bytes, Kind::Batch(NFNL_MSG_BATCH_BEGIN), 0, 0, &batch)?;
    for (step, sequence) in steps.iter().zip(1..) {
        let acknowledge = if sequence as usize == steps.len() { NLM_F_ACK } else { 0 };
        let flags = step.flags | acknowledge;
        let kind = Kind::NfTables {
            kind: step.kind,
            family: step.family,
        };
        append(&mut bytes, kind, flags, sequence, &step.attributes)?;
    }
    Ok(bytes)
}

pub(super) enum Kind {
    /// The begin or end message of a batch.
    Batch(i32),
    /// `enum nf_tables_msg_types`, about tables of this family.
    NfTables { kind: i32, family: u8 },
}

/// `struct nlmsghdr` (linux/netlink.h) and `struct nfgenmsg` (linux/netfilter/nfnetlink.h) of a message.
pub(super) const HEADERS_LENGTH: usize = 16 + 4;

pub(super) fn append(
    bytes: &mut Vec<u8>,
    kind: Kind,
    flags: u16,
    sequence: u32,
    attributes: &Attributes,
) -> Result<(), TooLong> {
    let subsystem = NFNL_SUBSYS_NFTABLES as u16;
    let (kind, family, resource) = match kind {
        Kind::Batch(kind) => (kind as u16, NFPROTO_UNSPEC, subsystem),
        Kind::NfTables { kind, family } => (subsystem << 8 | kind as u16, family, 0),
    };
    let attributes = attributes.checked()?;
    let length = u32::try_from(HEADERS_LENGTH + attributes.len()).map_err(|_| TooLong)?;
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&[0; 4]); // The port ID: zero for the kernel, and for a sender that leaves it open.
    bytes.extend_from_slice(&[family, libc::NFNETLINK_V0 as u8]);
    bytes.extend_from_slice(&resource.to_be_bytes());
    bytes.extend_from_slice(attributes);
    Ok(())
}

fn table(family: TableFamily, flags: u16, write_more: impl FnOnce(&mut Attributes)) -> Step {
    Step::new(Object::Table(family), NFT_MSG_NEWTABLE, flags, |table| {
        table.text(NFTA_TABLE_NAME, TABLE);
        write_more(table);
    })
}

fn timeouts(family: TableFamily, timeouts: &Timeouts) -> Step {
    Step::new(Object::Timeouts, NFT_MSG_NEWOBJ, NLM_F_CREATE, |object| {
        object.text(NFTA_OBJ_TABLE, TABLE);
        object.text(NFTA_OBJ_NAME, TIMEOUTS);
        object.number(NFTA_OBJ_TYPE, NFT_OBJECT_CT_TIMEOUT);
        object.nest(NFTA_OBJ_DATA, |data| {
            data.short(NFTA_CT_TIMEOUT_L3PROTO, number(family).into());
            data.bytes(NFTA_CT_TIMEOUT_L4PROTO, &[IPPROTO_TCP]);
            data.nest(NFTA_CT_TIMEOUT_DATA, |values| {
                for state in TcpState::ALL {
                    values.number(timeout_attribute(state), timeouts.of(state).seconds());
                }
            });
        });
    })
}

/// The attribute that holds the timeout of a state.
pub(super) fn timeout_attribute(state: TcpState) -> u16 {
    match state {
        TcpState::CloseWait => CTA_TIMEOUT_TCP_CLOSE_WAIT,
        TcpState::LastAck => CTA_TIMEOUT_TCP_LAST_ACK,
    }
}

fn delete_object((name, kind): (&str, u32)) -> Step {
    let object = match (name, kind) {
        (TIMEOUTS, NFT_OBJECT_CT_TIMEOUT) => Object::Timeouts,
        (name, _) => Object::Other(name.to_owned()),
    };
    Step::new(object, NFT_MSG_DELOBJ, 0, |object| {
        object.text(NFTA_OBJ_TABLE, TABLE);
        object.text(NFTA_OBJ_NAME, name);
        object.number(NFTA_OBJ_TYPE, kind);
    })
}

fn flush_rules() -> Step {
    Step::new(Object::AllRules, NFT_MSG_DELRULE, 0, |rules| {
        rules.text(NFTA_RULE_TABLE, TABLE);
    })
}

fn chain(chain: &Chain) -> Step {
    let object = Object::Chain(chain.name.clone());
    Step::new(object, NFT_MSG_NEWCHAIN, NLM_F_CREATE, |attributes| {
        attributes.text(NFTA_CHAIN_TABLE, TABLE);
        attributes.text(NFTA_CHAIN_NAME, &chain.name);
        if let Some(base) = &chain.hook {
            write_base_hook(attributes, chain, base);
        }
    })
}

fn write_base_hook(attributes: &mut Attributes, chain: &Chain, base: &BaseHook) {
    attributes.nest(NFTA_CHAIN_HOOK, |hook| {
        hook.number(NFTA_HOOK_HOOKNUM, base.hook.number());
        hook.number(NFTA_HOOK_PRIORITY, base.priority.cast_unsigned());
    });
    attributes.number(NFTA_CHAIN_POLICY, NF_ACCEPT);
    attributes.text(NFTA_CHAIN_TYPE, crate::render::nft::chain_type(chain, base));
}

fn delete_chain(name: &str) -> Step {
    let object = Object::Chain(name.to_owned().into());
    Step::new(object, NFT_MSG_DELCHAIN, 0, |chain| {
        chain.text(NFTA_CHAIN_TABLE, TABLE);
        chain.text(NFTA_CHAIN_NAME, name);
    })
}

fn rules<'r>(family: TableFamily, ruleset: &'r Ruleset, counts: &'r Counts) -> impl Iterator<Item = Step> + 'r {
    ruleset.installed_chains().flat_map(move |chain| {
        let rules = chain.rules.iter().enumerate();
        rules.map(move |(position, rule)| {
            let packets = counts.get(&chain.name, position).unwrap_or_default();
            self::rule(family, chain, rule, packets)
        })
    })
}

fn rule(family: TableFamily, chain: &Chain, rule: &Rule, packets: u64) -> Step {
    let object = Object::Rule {
        chain: chain.name.clone(),
        comment: rule.comment.clone(),
    };
    Step::new(object, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, |attributes| {
        attributes.text(NFTA_RULE_TABLE, TABLE);
        attributes.text(NFTA_RULE_CHAIN, &chain.name);
        attributes.nest(NFTA_RULE_EXPRESSIONS, |list| {
            expression::write_rule(list, family, rule, packets);
        });
        attributes.user_data(NFTA_RULE_USERDATA, RULE_COMMENT, &terminated(&rule.comment));
    })
}

fn sets<'r>(
    family: TableFamily,
    ruleset: &'r Ruleset,
    wanted: impl Fn(&Set) -> bool + 'r,
) -> impl Iterator<Item = Step> + 'r {
    let first_id = match family {
        TableFamily::Only(Family::V6) => 0x1_0001,
        TableFamily::Inet | TableFamily::Only(Family::V4) => 1,
    };
    ruleset
        .sets
        .iter()
        .zip(first_id..)
        .filter(move |(set, _)| wanted(set))
        .flat_map(|(set, id)| [self::set(set, id)].into_iter().chain(self::elements(set)))
}

/// The kernel requires an `id` for each set, unique in the transaction, which may hold the tables of two families.
fn set(set: &Set, id: u32) -> Step {
    let key = elements::key(&set.elements);
    let object = Object::Set(set.name.clone());
    Step::new(object, NFT_MSG_NEWSET, NLM_F_CREATE, |attributes| {
        attributes.text(NFTA_SET_TABLE, TABLE);
        attributes.text(NFTA_SET_NAME, &set.name);
        let singles = set.elements.single_addresses();
        let flags = if singles.is_some() { 0 } else { NFT_SET_INTERVAL };
        attributes.number(NFTA_SET_FLAGS, flags);
        attributes.number(NFTA_SET_KEY_TYPE, key.datatype);
        attributes.number(NFTA_SET_KEY_LEN, key.length);
        if let Some(singles) = singles {
            // With a size the kernel chooses a hash table of fixed size, not one that grows.
            attributes.nest(NFTA_SET_DESC, |set| set.number(NFTA_SET_DESC_SIZE, singles as u32));
        }
        attributes.number(NFTA_SET_ID, id);
        attributes.user_data(NFTA_SET_USERDATA, SET_KEY_BYTE_ORDER, &key.byte_order.to_ne_bytes());
    })
}

fn delete_set(name: &str) -> Step {
    let object = Object::Set(name.to_owned().into());
    Step::new(object, NFT_MSG_DELSET, 0, |set| {
        set.text(NFTA_SET_TABLE, TABLE);
        set.text(NFTA_SET_NAME, name);
    })
}

fn elements(set: &Set) -> impl Iterator<Item = Step> {
    elements::lists(&set.elements).into_iter().map(|list| {
        let object = Object::Elements(set.name.clone());
        Step::new(object, NFT_MSG_NEWSETELEM, NLM_F_CREATE, |attributes| {
            attributes.text(NFTA_SET_ELEM_LIST_TABLE, TABLE);
            attributes.text(NFTA_SET_ELEM_LIST_SET, &set.name);
            attributes.list(NFTA_SET_ELEM_LIST_ELEMENTS, &list);
        })
    })
}

/// A rule comment in user data, as nft writes it.
pub(super) fn rule_user_data(comment: &str) -> Result<Vec<u8>, TooLong> {
    user_data(RULE_COMMENT, &terminated(comment))
}

fn terminated(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}
