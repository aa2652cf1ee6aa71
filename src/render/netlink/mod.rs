//! A ruleset as nf_tables netlink messages: the steps of one transaction, and their bytes.

mod contents;
mod decode;
mod elements;
mod expression;
mod foreign;
pub mod listing;

use std::fmt;

use netlink_packet_core::{
    DefaultNla, NLA_F_NESTED, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage,
};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook as HookAttribute, InetHookNumber, NfTablesMessage, RuleAttribute, RuleMessage,
    SetAttribute, SetElementList, SetElementMessage, SetFlags, SetMessage, TableAttribute, TableFlags, TableMessage,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};

pub use self::contents::contents;
pub use self::decode::decode;
pub use self::foreign::base_chains;
use self::listing::Listing;
use crate::ruleset::{BaseHook, Chain, Hook, Name, Rule, Ruleset, Set, TABLE};

/// One message of a transaction.
pub struct Step {
    /// What the message is about; an error of the kernel is told in these terms.
    pub object: Object,
    message: NfTablesMessage,
    flags: u16,
}

impl Step {
    fn new(object: Object, message: NfTablesMessage, flags: u16) -> Self {
        Self { object, message, flags }
    }

    /// The message.
    pub fn message(&self) -> &NfTablesMessage {
        &self.message
    }
}

/// What a message is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// Our table.
    Table,
    /// The rules of our table, all of them.
    AllRules,
    /// A chain.
    Chain(Name),
    /// A set.
    Set(Name),
    /// Elements of a set.
    Elements(Name),
    /// A rule.
    Rule {
        /// The chain it is in.
        chain: Name,
        /// What it is for.
        comment: Name,
    },
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table => write!(f, "table inet {TABLE}"),
            Self::AllRules => write!(f, "the rules of table inet {TABLE}"),
            Self::Chain(name) => write!(f, "chain {name}"),
            Self::Set(name) => write!(f, "set {name}"),
            Self::Elements(name) => write!(f, "elements of set {name}"),
            Self::Rule { chain, comment } => write!(f, "rule '{comment}' of chain {chain}"),
        }
    }
}

/// `enum nft_userdata` of nft: a comment on a rule.
const RULE_COMMENT: u8 = 0;
/// `enum nft_set_userdata`: in which byte order the keys of a set are shown.
const SET_KEY_BYTE_ORDER: u8 = 0;

/// The steps that make everything anew. They fail where the table exists already.
///
/// Nothing is deleted: a transaction that deletes makes the sender wait for an RCU grace period when it closes its
/// socket, some ten times as long as all the rest.
pub fn create(ruleset: &Ruleset) -> Vec<Step> {
    let mut steps = vec![table(NLM_F_CREATE | NLM_F_EXCL, [])];
    steps.extend(sets(ruleset, |_| true));
    steps.extend(ruleset.chains.iter().map(chain));
    steps.extend(rules(ruleset));
    steps
}

/// The steps that turn what is installed into `ruleset`. Base chains stay where they are, so no packet ever finds
/// their hooks empty; what is of no more use goes.
pub fn replace(ruleset: &Ruleset, installed: &Listing) -> Vec<Step> {
    let planned = Listing::of(create(ruleset).iter().map(Step::message));
    let kept_set = |name: &str| planned.set(name).is_some() && planned.set(name) == installed.set(name);
    let kept_chain = |name: &str| planned.chain_has_same_hook(installed, name);
    // A table that somebody has put to sleep wakes up.
    let awake = TableAttribute::Flags(TableFlags::empty());
    let mut steps = vec![table(NLM_F_CREATE, [awake]), flush_rules()];
    steps.extend(installed.set_names().filter(|name| !kept_set(name)).map(delete_set));
    steps.extend(
        installed
            .chain_names()
            .filter(|name| !kept_chain(name))
            .map(delete_chain),
    );
    steps.extend(sets(ruleset, |set| !kept_set(&set.name)));
    steps.extend(ruleset.chains.iter().filter(|c| !kept_chain(&c.name)).map(chain));
    steps.extend(rules(ruleset));
    steps
}

/// The steps that put everything in the place of whatever is installed, without having looked. The new base chains are
/// there before the old ones go, but those go; and deleting costs time, see [`create`].
pub fn renew(ruleset: &Ruleset) -> Vec<Step> {
    let mut steps = vec![table(NLM_F_CREATE, [])];
    steps.extend(remove());
    steps.extend(create(ruleset));
    steps
}

/// The step that removes our table, with all that is in it.
pub fn remove() -> Vec<Step> {
    let message = NfTablesMessage::DeleteTable(TableMessage {
        attributes: vec![TableAttribute::Name(TABLE.to_owned())],
    });
    vec![Step::new(Object::Table, message, 0)]
}

/// The bytes of a transaction. Step `i` has the sequence number `i + 1`; the last step asks for an answer.
///
/// With a `generation`, the kernel refuses the transaction (ERESTART) where the ruleset has changed since that one.
pub fn transaction(steps: &[Step], generation: Option<u32>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256 * (steps.len() + 2));
    let begin = ControlMessage::Other {
        message_type: libc::NFNL_MSG_BATCH_BEGIN as u8,
        attributes: generation
            .map(|id| DefaultNla::new(NFNL_BATCH_GENID, id.to_be_bytes().to_vec()))
            .into_iter()
            .collect(),
    };
    append(&mut bytes, batch_header(), begin, 0, 0);
    for (step, sequence) in steps.iter().zip(1..) {
        let acknowledge = if sequence as usize == steps.len() { NLM_F_ACK } else { 0 };
        append(
            &mut bytes,
            table_header(),
            step.message.clone(),
            step.flags | acknowledge,
            sequence,
        );
    }
    append(
        &mut bytes,
        batch_header(),
        ControlMessage::BatchEnd,
        0,
        steps.len() as u32 + 1,
    );
    bytes
}

/// `enum nfnl_batch_attributes`.
const NFNL_BATCH_GENID: u16 = 1;

fn append(
    bytes: &mut Vec<u8>,
    header: NetfilterHeader,
    inner: impl Into<NetfilterMessageInner>,
    flags: u16,
    sequence: u32,
) {
    let mut message = NetlinkMessage::from(NetfilterMessage::new(header, inner));
    message.header.flags = NLM_F_REQUEST | flags;
    message.header.sequence_number = sequence;
    message.finalize();
    let (start, length) = (bytes.len(), message.header.length as usize);
    bytes.resize(start + length.next_multiple_of(4), 0);
    message.serialize(&mut bytes[start..]);
}

/// The header of messages about our table.
pub fn table_header() -> NetfilterHeader {
    NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0)
}

fn batch_header() -> NetfilterHeader {
    NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, libc::NFNL_SUBSYS_NFTABLES as u16)
}

fn table<const N: usize>(flags: u16, more: [TableAttribute; N]) -> Step {
    let name = TableAttribute::Name(TABLE.to_owned());
    let message = NfTablesMessage::NewTable(TableMessage {
        attributes: [name].into_iter().chain(more).collect(),
    });
    Step::new(Object::Table, message, flags)
}

fn flush_rules() -> Step {
    let message = NfTablesMessage::DeleteRule(RuleMessage {
        attributes: vec![RuleAttribute::Table(TABLE.to_owned())],
    });
    Step::new(Object::AllRules, message, 0)
}

fn chain(chain: &Chain) -> Step {
    let mut attributes = vec![
        ChainAttribute::Table(TABLE.to_owned()),
        ChainAttribute::Name(chain.name.to_string()),
    ];
    if let Some(base) = &chain.hook {
        attributes.extend(base_hook(base));
    }
    let message = NfTablesMessage::NewChain(ChainMessage { attributes });
    Step::new(Object::Chain(chain.name.clone()), message, NLM_F_CREATE)
}

fn base_hook(base: &BaseHook) -> [ChainAttribute; 3] {
    const ACCEPT: u32 = 1;
    let hook = match base.hook {
        Hook::Prerouting => InetHookNumber::PreRouting,
        Hook::Output => InetHookNumber::LocalOut,
    };
    [
        ChainAttribute::Hook(vec![
            HookAttribute::Number(hook.into()),
            HookAttribute::Priority(base.priority.cast_unsigned()),
        ]),
        ChainAttribute::Policy(ACCEPT),
        ChainAttribute::Type(super::nft::chain_type(base).to_owned()),
    ]
}

fn delete_chain(name: &str) -> Step {
    let message = NfTablesMessage::DeleteChain(ChainMessage {
        attributes: vec![
            ChainAttribute::Table(TABLE.to_owned()),
            ChainAttribute::Name(name.to_owned()),
        ],
    });
    Step::new(Object::Chain(name.to_owned().into()), message, 0)
}

fn rules(ruleset: &Ruleset) -> impl Iterator<Item = Step> {
    ruleset
        .chains
        .iter()
        .flat_map(|chain| chain.rules.iter().map(|rule| self::rule(chain, rule)))
}

/// `enum nft_rule_attributes`.
const NFTA_RULE_EXPRESSIONS: u16 = 4;

fn rule(chain: &Chain, rule: &Rule) -> Step {
    let expressions = expression::bytes_of(&expression::of_rule(rule).as_slice());
    let message = NfTablesMessage::NewRule(RuleMessage {
        attributes: vec![
            RuleAttribute::Table(TABLE.to_owned()),
            RuleAttribute::Chain(chain.name.to_string()),
            RuleAttribute::Other(DefaultNla::new(NFTA_RULE_EXPRESSIONS | NLA_F_NESTED, expressions)),
            RuleAttribute::UserData(rule_user_data(&rule.comment)),
        ],
    });
    let object = Object::Rule {
        chain: chain.name.clone(),
        comment: rule.comment.clone(),
    };
    Step::new(object, message, NLM_F_CREATE | NLM_F_APPEND)
}

fn sets<'r>(ruleset: &'r Ruleset, wanted: impl Fn(&Set) -> bool + 'r) -> impl Iterator<Item = Step> + 'r {
    ruleset
        .sets
        .iter()
        .zip(1..)
        .filter(move |(set, _)| wanted(set))
        .flat_map(|(set, id)| [self::set(set, id)].into_iter().chain(self::elements(set)))
}

/// The kernel wants an `id` for each set, unique in the transaction.
fn set(set: &Set, id: u32) -> Step {
    let key = elements::key(&set.elements);
    let message = NfTablesMessage::NewSet(SetMessage {
        attributes: vec![
            SetAttribute::Table(TABLE.to_owned()),
            SetAttribute::Name(set.name.to_string()),
            SetAttribute::Flags(SetFlags::Interval),
            SetAttribute::KeyType(key.datatype),
            SetAttribute::KeyLen(key.length),
            SetAttribute::Id(id),
            SetAttribute::UserData(user_data(SET_KEY_BYTE_ORDER, &key.byte_order.to_ne_bytes())),
        ],
    });
    Step::new(Object::Set(set.name.clone()), message, NLM_F_CREATE)
}

fn delete_set(name: &str) -> Step {
    let message = NfTablesMessage::DeleteSet(SetMessage {
        attributes: vec![
            SetAttribute::Table(TABLE.to_owned()),
            SetAttribute::Name(name.to_owned()),
        ],
    });
    Step::new(Object::Set(name.to_owned().into()), message, 0)
}

/// `enum nft_set_elem_list_attributes`.
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;

fn elements(set: &Set) -> impl Iterator<Item = Step> {
    elements::lists(&set.elements).into_iter().map(|list| {
        let message = NfTablesMessage::NewSetElement(SetElementMessage {
            attributes: vec![
                SetElementList::Table(TABLE.to_owned()),
                SetElementList::Set(set.name.to_string()),
                SetElementList::Other(DefaultNla::new(NFTA_SET_ELEM_LIST_ELEMENTS | NLA_F_NESTED, list)),
            ],
        });
        Step::new(Object::Elements(set.name.clone()), message, NLM_F_CREATE)
    })
}

fn rule_user_data(comment: &str) -> Vec<u8> {
    user_data(RULE_COMMENT, &terminated(comment))
}

/// One entry of what nft keeps beside an object: type, length, value.
fn user_data(kind: u8, value: &[u8]) -> Vec<u8> {
    // Comments are constants of ours, far below the 128 bytes that nft allows.
    let length = value.len() as u8;
    [&[kind, length], value].concat()
}

fn terminated(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}
