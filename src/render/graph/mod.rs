//! The packet's way through a ruleset as a picture. [`Graph`] is what is drawn, in words; three writers draw it:
//! [`dot`] for Graphviz, [`mermaid`] for Markdown, [`svg`] for everything that shows pictures.

mod layout;
mod words;

pub mod dot;
pub mod mermaid;
pub mod svg;
#[cfg(test)]
mod tests;

use crate::ruleset::{Action, BaseHook, Chain, Hook, Name, Rule, Ruleset};

/// What is drawn: places that packets come to, and the ways between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    /// The places: callers before what they call.
    pub nodes: Vec<Node>,
    /// The ways.
    pub edges: Vec<Edge>,
}

/// A place that packets come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// What it is called.
    pub title: String,
    /// What else there is to say; may be empty.
    pub subtitle: String,
    /// The hook whose packets come here; that of what is sent, where those of both do.
    pub hook: Hook,
    /// The rules, where it is a chain.
    pub rows: Vec<Row>,
}

/// What a place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Where packets come from.
    Entry,
    /// A chain that the kernel calls.
    BaseChain,
    /// A chain that rules jump to.
    Chain,
    /// Where packets go that nothing was done about.
    Untouched,
    /// A port of the proxy.
    Proxy,
    /// Where packets end.
    Dropped,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// When it applies.
    pub condition: String,
    /// What it does.
    pub outcome: String,
    /// What that means for the packet.
    pub effect: Effect,
    /// What the rule is for.
    pub comment: String,
}

/// What a rule means for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It goes on to the next rule.
    GoesOn,
    /// It leaves the chain.
    Leaves,
    /// It goes through another chain.
    Jumps,
    /// It goes to the proxy.
    Proxy,
    /// It ends here.
    Drops,
}

/// A way from one place to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Where it begins: the index of a node.
    pub from: usize,
    /// The rule that it begins at; `None` for the way on to the next chain of a hook.
    pub row: Option<usize>,
    /// Where it ends: the index of a node.
    pub to: usize,
}

/// The end of a way that a rule opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Proxy(u16),
    Dropped,
}

impl Graph {
    /// The picture of a ruleset.
    pub fn new(ruleset: &Ruleset) -> Self {
        let mut graph = Self {
            nodes: Vec::new(),
            edges: Vec::new(),
        };
        for hook in [Hook::Prerouting, Hook::Output] {
            graph.spine(ruleset, hook);
        }
        for name in callers_first(ruleset) {
            if let Some(chain) = ruleset.chain(name).filter(|chain| chain.hook.is_none()) {
                let hook = if is_reached(ruleset, Hook::Output, name) {
                    Hook::Output
                } else {
                    Hook::Prerouting
                };
                graph.nodes.push(node(ruleset, chain, hook));
            }
        }
        graph.ways(ruleset);
        graph
    }

    /// What happens at a hook: where packets come from, its chains by priority, and where they go.
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

    /// The ways that rules open, and the places where they end.
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
        Some(base) => (Kind::BaseChain, words::base(base)),
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

/// The names of all chains that packets get to, each after those that lead to it.
fn callers_first(ruleset: &Ruleset) -> Vec<&Name> {
    let mut done: Vec<&Name> = Vec::new();
    let base = ruleset.chains.iter().filter(|chain| chain.hook.is_some());
    for chain in base.rev() {
        visit(ruleset, &chain.name, &mut done);
    }
    done.reverse();
    done
}

/// Depth first: a chain is done when all that it leads to is done. A sound ruleset has no circles.
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

/// Whether packets of a hook get to a chain.
fn is_reached(ruleset: &Ruleset, hook: Hook, name: &Name) -> bool {
    let of_hook = |chain: &&Chain| chain.hook.is_some_and(|base| base.hook == hook);
    let mut done = Vec::new();
    for chain in ruleset.chains.iter().filter(of_hook) {
        visit(ruleset, &chain.name, &mut done);
    }
    done.contains(&name)
}
