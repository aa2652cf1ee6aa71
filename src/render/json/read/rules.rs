//! Chains, rules, conditions and actions.

use std::net::IpAddr;

use serde_json::{Map, Value};

use super::{COUNTER, Mistakes, Part};
use crate::ruleset::{
    Action, Addresses, BaseHook, Cgroup, Chain, ChainType, ConntrackState, GidMatch, Hook, Match, Name, PortMatch,
    Protocol, Rejection, Rule, UidMatch, Zone,
};
use crate::types::{CgroupPath, Id, InterfaceName};

impl<'v> Part<'v> {
    pub(super) fn chain(&self, wrong: &mut Mistakes) -> Option<Chain> {
        let [name, hook, rules] = self.members(["name", "hook", "rules"], wrong)?;
        let name = name.name(wrong);
        let hook = match hook.value {
            Value::Null => Some(None),
            _ => hook.base_hook(wrong).map(Some),
        };
        let rules = rules.items(wrong, |rule, wrong| rule.rule(wrong));
        Some(Chain {
            name: name?,
            hook: hook?,
            rules: rules?,
        })
    }

    fn base_hook(&self, wrong: &mut Mistakes) -> Option<BaseHook> {
        let [kind, hook, priority] = self.members(["type", "hook", "priority"], wrong)?;
        let kinds = [ChainType::Raw, ChainType::Mangle, ChainType::Nat, ChainType::Filter];
        let kinds = kinds.map(|kind| (kind.name(), kind));
        let kind = kind.word(&kinds, "raw, mangle, nat or filter", wrong);
        let hooks = Hook::ALL.map(|hook| (hook.name(), hook));
        let hook = hook.word(&hooks, "a hook of netfilter", wrong);
        let number = priority.value.as_i64().and_then(|number| i32::try_from(number).ok());
        let priority = priority.expect(number, "a priority", wrong);
        Some(BaseHook {
            kind: kind?,
            hook: hook?,
            priority: priority?,
        })
    }

    fn rule(&self, wrong: &mut Mistakes) -> Option<Rule> {
        // The nft text is for people; it follows from the other members.
        let [comment, matches, action, nft, counter] =
            self.members_or_null(["comment", "matches", "action", "nft", COUNTER], [COUNTER], wrong)?;
        nft.text(wrong);
        let comment = comment.text(wrong);
        let matches = matches.items(wrong, |matched, wrong| matched.matched(wrong));
        let action = action.action(wrong);
        let has_counter = match counter.value {
            Value::Null => Some(false),
            value => counter.expect(value.as_bool(), "true or false", wrong),
        };
        Some(Rule {
            matches: matches?,
            action: action?,
            has_counter: has_counter?,
            comment: comment?.to_owned().into(),
        })
    }

    fn matched(&self, wrong: &mut Mistakes) -> Option<Match> {
        const EXPECTED: &str = "a match that the schema knows";
        let object = self.expect(self.value.as_object(), EXPECTED, wrong)?;
        let names: Vec<&str> = object.keys().map(String::as_str).collect();
        let part = |name: &str| self.member(name, object.get(name).unwrap_or(&Value::Null));
        let protocol = |wrong: &mut Mistakes| {
            part("protocol").word(&[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)], "tcp or udp", wrong)
        };
        Some(match names.as_slice() {
            ["family"] => Match::Family(part("family").family(wrong)?),
            ["protocol"] => Match::Protocol(protocol(wrong)?),
            ["inInterface"] => Match::InInterface(part("inInterface").interface(wrong)?),
            ["outInterface"] => Match::OutInterface(part("outInterface").interface(wrong)?),
            ["source"] => Match::Source(part("source").addresses(wrong)?),
            ["destination"] => Match::Destination(part("destination").addresses(wrong)?),
            ["protocol", "sourcePort"] => Match::SourcePort(protocol(wrong)?, part("sourcePort").ports(wrong)?),
            ["protocol", "destinationPort"] => {
                Match::DestinationPort(protocol(wrong)?, part("destinationPort").ports(wrong)?)
            }
            ["uid"] => Match::Uid(match part("uid").in_set(wrong) {
                Some(set) => UidMatch::Set(set?),
                None => UidMatch::Uid(part("uid").number("a UID, or a set", wrong, Id::new)?),
            }),
            ["gid"] => Match::Gid(match part("gid").in_set(wrong) {
                Some(set) => GidMatch::Set(set?),
                None => GidMatch::Gid(part("gid").number("a GID, or a set", wrong, Id::new)?),
            }),
            ["cgroup"] => {
                let [path, level, id] = part("cgroup").members(["path", "level", "id"], wrong)?;
                let exactly = |text: &str| CgroupPath::parse(text).ok().filter(|path| path.as_str() == text);
                let path = match path.value.is_null() {
                    true => None,
                    false => Some(path.parse("the path of a cgroup", wrong, exactly)?),
                };
                let id = match id.value.is_null() {
                    true => None,
                    false => Some(id.expect(id.value.as_u64(), "the ID of a cgroup", wrong)?),
                };
                let level = level.number("the level of a cgroup", wrong, Some)?;
                Match::Cgroup(Cgroup { path, level, id })
            }
            ["mark"] => match part("mark") {
                mark if mark.value.is_object() => {
                    let [not] = mark.members(["not"], wrong)?;
                    Match::MarkIsNot(not.mark(wrong)?)
                }
                mark => Match::Mark(mark.mark(wrong)?),
            },
            ["conntrackMark"] => Match::ConntrackMark(part("conntrackMark").mark(wrong)?),
            ["conntrackDirection"] => part("conntrackDirection").word(&[("reply", Match::Reply)], "reply", wrong)?,
            ["conntrackStatus"] => {
                part("conntrackStatus").word(&[("dnat", Match::DestinationTranslated)], "dnat", wrong)?
            }
            ["sourceType"] => part("sourceType").word(&[("local", Match::SourceIsLocal)], "local", wrong)?,
            ["reversePath"] => part("reversePath").word(&[("missing", Match::NoReversePath)], "missing", wrong)?,
            ["destinationType"] => {
                part("destinationType").word(&[("local", Match::DestinationIsLocal)], "local", wrong)?
            }
            ["hasOwner"] => {
                let owner = part("hasOwner");
                owner.expect((*owner.value == true).then_some(Match::HasOwner), "true", wrong)?
            }
            ["protocol", "tcpFlags"] => {
                let [not] = part("tcpFlags").members(["not"], wrong)?;
                not.word(&[("syn", Match::TcpNotSyn)], "syn", wrong)?
            }
            ["icmpv6Type"] => {
                Match::Icmpv6Type(
                    part("icmpv6Type").number("a number from 0 to 255", wrong, |number| u8::try_from(number).ok())?,
                )
            }
            ["conntrackState"] => Match::ConntrackState(part("conntrackState").state(wrong)?),
            _ => return self.refuse(EXPECTED, wrong),
        })
    }

    pub(super) fn interface(&self, wrong: &mut Mistakes) -> Option<InterfaceName> {
        // Exactly: no surrounding blanks, which are allowed in options.
        let exactly = |text: &str| InterfaceName::parse(text).ok().filter(|name| name.as_str() == text);
        self.parse("the name of an interface", wrong, exactly)
    }

    fn addresses(&self, wrong: &mut Mistakes) -> Option<Addresses> {
        if self.value.is_object() {
            let [set, family] = self.members(["set", "family"], wrong)?;
            let (set, family) = (set.name(wrong), family.family(wrong));
            return Some(Addresses::Set(family?, set?));
        }
        let address = |text: &str| text.parse::<IpAddr>().ok();
        self.parse("an address, or a set and its family", wrong, address)
            .map(Addresses::Ip)
    }

    fn ports(&self, wrong: &mut Mistakes) -> Option<PortMatch> {
        Some(match self.in_set(wrong) {
            Some(set) => PortMatch::Set(set?),
            None => PortMatch::Port(self.port(wrong)?),
        })
    }

    /// The name of the set, if the part names one; `Some(None)` if the name is invalid.
    fn in_set(&self, wrong: &mut Mistakes) -> Option<Option<Name>> {
        self.value.is_object().then(|| {
            let [set] = self.members(["set"], wrong)?;
            set.name(wrong)
        })
    }

    fn state(&self, wrong: &mut Mistakes) -> Option<ConntrackState> {
        let states = self.items(wrong, |state, wrong| state.text(wrong))?;
        let state = match states.as_slice() {
            ["invalid"] => Some(ConntrackState::Invalid),
            ["new"] => Some(ConntrackState::New),
            ["related"] => Some(ConntrackState::Related),
            ["established", "related"] => Some(ConntrackState::Established),
            _ => None,
        };
        self.expect(
            state,
            r#"["invalid"], ["new"], ["related"] or ["established", "related"]"#,
            wrong,
        )
    }

    fn action(&self, wrong: &mut Mistakes) -> Option<Action> {
        const EXPECTED: &str = "an action that the schema knows";
        let word = |text: &str| match text {
            "return" => Some(Action::Return),
            "accept" => Some(Action::Accept),
            "drop" => Some(Action::Drop),
            "saveMark" => Some(Action::SaveMark),
            "restoreMark" => Some(Action::RestoreMark),
            "setTimeouts" => Some(Action::SetTimeouts),
            _ => None,
        };
        let only = |object: &'v Map<String, Value>| object.iter().next().filter(|_| object.len() == 1);
        let Some((name, value)) = self.value.as_object().and_then(only) else {
            return self.parse(EXPECTED, wrong, word);
        };
        let part = self.member(name, value);
        Some(match name.as_str() {
            "jump" => Action::Jump(part.name(wrong)?),
            "redirect" => Action::Redirect(part.port(wrong)?),
            "reject" => {
                let known = [
                    ("tcp-reset", Rejection::TcpReset),
                    ("admin-prohibited", Rejection::AdminProhibited),
                ];
                Action::Reject(part.word(&known, "tcp-reset or admin-prohibited", wrong)?)
            }
            "tproxy" => {
                let [port, mark] = part.members(["port", "mark"], wrong)?;
                let (port, mark) = (port.port(wrong), mark.mark(wrong));
                Action::Tproxy {
                    port: port?,
                    mark: mark?,
                }
            }
            "setMark" => Action::SetMark(part.mark(wrong)?),
            "setZone" => {
                let zone = part.number("a zone from 0 to 65535", wrong, |zone| u16::try_from(zone).ok());
                Action::SetZone(Zone(zone?))
            }
            _ => return self.refuse(EXPECTED, wrong),
        })
    }
}
