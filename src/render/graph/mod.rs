//! A graph of a packet's path through a ruleset. [`Graph`] is the content; three renderers draw it:
//! [`dot`] for Graphviz, [`mermaid`] for Markdown, [`svg`] for image viewers.

mod layout;
mod words;

pub mod dot;
pub mod mermaid;
pub mod svg;
#[cfg(test)]
mod tests;

use crate::ruleset::{Action, BaseHook, Chain, Hook, Name, Rule, Ruleset};

/// The nodes that packets pass, and the edges between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    /// Nodes; a chain comes after the chains that jump to it.
    pub nodes: Vec<Node>,
    /// Edges.
    pub edges: Vec<Edge>,
}

/// A node that packets pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The kind of node.
    pub kind: Kind,
    /// Title.
    pub title: String,
    /// Subtitle; may be empty.
    pub subtitle: String,
    /// The hook whose packets pass the node; the output hook if those of both do.
    pub hook: Hook,
    /// The rules of a chain.
    pub rows: Vec<Row>,
}

/// The kind of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The origin of the packets of a hook.
    Entry,
    /// A base chain.
    BaseChain,
    /// A chain that rules jump to.
    Chain,
    /// The end of packets that no rule redirects.
    Untouched,
    /// A port of the proxy.
    Proxy,
    /// The end of dropped packets.
    Dropped,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The condition.
    pub condition: String,
    /// The action.
    pub outcome: String,
    /// The effect on the packet.
    pub effect: Effect,
    /// The comment that states the rule's purpose.
    pub comment: String,
}

/// The effect of a rule on a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The packet continues with the next rule.
    GoesOn,
    /// The packet leaves the chain.
    Leaves,
    /// The packet passes another chain.
    Jumps,
    /// The packet goes to the proxy.
    Proxy,
    /// The packet is dropped.
    Drops,
}

/// An edge between two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Index of the first node.
    pub from: usize,
    /// The rule that the edge starts at; `None` for the edge to the next chain of a hook.
    pub row: Option<usize>,
    /// Index of the last node.
    pub to: usize,
}

/// The target of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Proxy(u16),
    Dropped,
    Rejected,
}

impl Graph {
    /// The graph of a ruleset.
    pub fn new(ruleset: &Ruleset) -> Self {
        let mut graph = Self {
            nodes: Vec::new(),
            edges: Vec::new(),
        };
        for hook in Hook::ALL {
            graph.spine(ruleset, hook);
        }
        for name in callers_first(ruleset) {
            if let Some(chain) = ruleset.chain(name).filter(|chain| chain.hook.is_none()) {
                let mut reaching = Hook::ALL
                    .into_iter()
                    .rev()
                    .filter(|hook| is_reached(ruleset, *hook, name));
                let hook = reaching.next().unwrap_or(Hook::Prerouting);
                graph.nodes.push(node(ruleset, chain, hook));
            }
        }
        graph.ways(ruleset);
        graph
    }

    /// The nodes of a hook: the origin of its packets, its chains by priority, and the end of unredirected packets.
    fn spine(&mut self, ruleset: &Ruleset, hook: Hook) {
        let mut chains: Vec<(&Chain, BaseHook)> = ruleset
            .chains
            .iter()
            .filter_map(|chain| Some((chain, chain.hook.filter(|base| base.hook == hook)?)))
            .collect();
        if chains.is_empty() {
            return;
        }
        chains.sort_by_key(|(_, base)| base.priority);
        let (entry, end) = match hook {
            Hook::Prerouting => ("Inbound packets", "Continues to its original destination"),
            Hook::Input => ("Inbound packets for the pod", "Delivered"),
            Hook::Forward => (
                "Inbound packets for other hosts",
                "Continues to its original destination",
            ),
            Hook::Postrouting => ("Packets that leave", "Sent"),
            Hook::Output => ("Locally generated packets", "Continues to its original destination"),
        };
        let first = self.nodes.len();
        self.nodes.push(place(Kind::Entry, entry, hook));
        self.nodes
            .extend(chains.iter().map(|(chain, _)| node(ruleset, chain, hook)));
        self.nodes.push(place(Kind::Untouched, end, hook));
        self.edges.extend((first..self.nodes.len() - 1).map(|from| Edge {
            from,
            row: None,
            to: from + 1,
        }));
    }

    /// The edges of rules, and the nodes that they end at.
    fn ways(&mut self, ruleset: &Ruleset) {
        let mut ends: Vec<(End, usize)> = Vec::new();
        for from in 0..self.nodes.len() {
            let Some(chain) = ruleset.chain(&self.nodes[from].title) else {
                continue;
            };
            for (row, rule) in chain.rules.iter().enumerate() {
                let to = match &rule.action {
                    Action::Jump(target) => self.nodes.iter().position(|node| node.title == *target),
                    Action::Redirect(port) | Action::Tproxy { port, .. } => {
                        Some(self.end(&mut ends, End::Proxy(port.get()), self.nodes[from].hook))
                    }
                    Action::Reject(_) => Some(self.end(&mut ends, End::Rejected, self.nodes[from].hook)),
                    Action::Drop => Some(self.end(&mut ends, End::Dropped, self.nodes[from].hook)),
                    Action::Return
                    | Action::Accept
                    | Action::SetMark(_)
                    | Action::SaveMark
                    | Action::RestoreMark
                    | Action::SetZone(_)
                    | Action::SetTimeouts => None,
                };
                let row = Some(row);
                self.edges.extend(to.map(|to| Edge { from, row, to }));
            }
        }
    }

    fn end(&mut self, ends: &mut Vec<(End, usize)>, end: End, hook: Hook) -> usize {
        if let Some((_, node)) = ends.iter().find(|(known, _)| *known == end) {
            if hook == Hook::Output {
                self.nodes[*node].hook = hook;
            }
            return *node;
        }
        self.nodes.push(match end {
            End::Proxy(port) => place(Kind::Proxy, format!("The proxy, port {port}"), hook),
            End::Dropped => place(Kind::Dropped, "Dropped", hook),
            End::Rejected => place(Kind::Dropped, "Rejected", hook),
        });
        ends.push((end, self.nodes.len() - 1));
        self.nodes.len() - 1
    }
}

fn place(kind: Kind, title: impl Into<String>, hook: Hook) -> Node {
    Node {
        kind,
        title: title.into(),
        subtitle: String::new(),
        hook,
        rows: Vec::new(),
    }
}

fn node(ruleset: &Ruleset, chain: &Chain, hook: Hook) -> Node {
    let (kind, subtitle) = match &chain.hook {
        Some(base) => (Kind::BaseChain, words::base(chain, base)),
        None => (Kind::Chain, String::new()),
    };
    Node {
        kind,
        title: chain.name.to_string(),
        subtitle,
        hook,
        rows: chain.rules.iter().map(|rule| row(ruleset, rule)).collect(),
    }
}

fn row(ruleset: &Ruleset, rule: &Rule) -> Row {
    let (outcome, effect) = words::action(&rule.action);
    Row {
        condition: words::condition(ruleset, rule),
        outcome,
        effect,
        comment: rule.comment.to_string(),
    }
}

/// The names of all reachable chains, each after the chains that jump to it.
fn callers_first(ruleset: &Ruleset) -> Vec<&Name> {
    let mut done: Vec<&Name> = Vec::new();
    let base = ruleset.chains.iter().filter(|chain| chain.hook.is_some());
    for chain in base.rev() {
        visit(ruleset, &chain.name, &mut done);
    }
    done.reverse();
    done
}

/// Depth-first search: a chain is done when all chains that it jumps to are done. A sound ruleset has no cycles.
fn visit<'r>(ruleset: &'r Ruleset, name: &'r Name, done: &mut Vec<&'r Name>) {
    if done.contains(&name) {
        return;
    }
    for target in targets(ruleset, name).rev() {
        visit(ruleset, target, done);
    }
    done.push(name);
}

fn targets<'r>(ruleset: &'r Ruleset, name: &str) -> impl DoubleEndedIterator<Item = &'r Name> {
    let rules = ruleset.chain(name).map(|chain| chain.rules.as_slice());
    rules.unwrap_or_default().iter().filter_map(|rule| rule.action.target())
}

/// Whether packets of a hook reach a chain.
fn is_reached(ruleset: &Ruleset, hook: Hook, name: &Name) -> bool {
    let of_hook = |chain: &&Chain| chain.hook.is_some_and(|base| base.hook == hook);
    let mut done = Vec::new();
    for chain in ruleset.chains.iter().filter(of_hook) {
        visit(ruleset, &chain.name, &mut done);
    }
    done.contains(&name)
}
