//! Where things stand in the picture: a column of cards for each hook, and beside each column lanes for the ways.

use super::{Graph, Kind, Node};
use crate::ruleset::Hook;

/// Sizes, in pixels.
pub const ROW: f64 = 40.0;
pub const HEADER: f64 = 30.0;
const PLACE: f64 = 32.0;
const GAP: f64 = 28.0;
pub const MARGIN: f64 = 24.0;
/// Room for a line of text below everything.
const NOTE: f64 = 24.0;
const LANE: f64 = 14.0;
/// Space between cards and their first lane.
const APPROACH: f64 = 18.0;
/// The narrowest card, and the room that a card has besides its texts.
const NARROWEST: f64 = 300.0;
const PADDING: f64 = 44.0;
/// What a character takes: of conditions, of outcomes, of comments. Wide enough for any common font.
const CHARACTER: (f64, f64, f64) = (6.6, 6.4, 5.8);

/// A card: what a node looks like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Card {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

/// A way: from the side of one card along a lane to the side of another, or straight down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Way {
    /// Down to the next chain of the hook.
    Down { x: f64, from: f64, to: f64 },
    /// Beside the column.
    Around {
        begin: (f64, f64),
        lane: f64,
        end: (f64, f64),
    },
}

/// Where everything stands.
pub struct Layout {
    /// A card for each node.
    pub cards: Vec<Card>,
    /// A way for each edge.
    pub ways: Vec<Way>,
    /// The size of the picture.
    pub size: (f64, f64),
}

/// A way that goes beside a column.
struct Detour {
    hook: Hook,
    to: usize,
    top: f64,
    bottom: f64,
}

impl Layout {
    /// Finds a place for everything.
    pub fn new(graph: &Graph) -> Self {
        let mut cards = vec![
            Card {
                x: 0.0,
                y: 0.0,
                width: 0.0,
                height: 0.0
            };
            graph.nodes.len()
        ];
        let mut bottom: f64 = 0.0;
        for hook in [Hook::Prerouting, Hook::Output] {
            bottom = bottom.max(stack(graph, hook, &mut cards));
        }
        let detours = detours(graph, &cards);
        let lanes = lanes(&detours);
        let mut x = MARGIN;
        let mut first_lane = [0.0; 2];
        for (column, hook) in [Hook::Prerouting, Hook::Output].into_iter().enumerate() {
            let of_hook = |index: &usize| graph.nodes[*index].hook == hook;
            let indices: Vec<usize> = (0..cards.len()).filter(of_hook).collect();
            let width = indices.iter().map(|index| cards[*index].width).fold(0.0, f64::max);
            for index in indices {
                cards[index].x = x;
                cards[index].width = width;
            }
            first_lane[column] = x + width + APPROACH;
            let count = detours
                .iter()
                .zip(&lanes)
                .filter(|(detour, _)| detour.hook == hook)
                .map(|(_, lane)| lane + 1);
            let count = count.max().unwrap_or_default();
            if width > 0.0 {
                x += width + 2.0 * APPROACH + LANE * count as f64;
            }
        }
        let lane_of = |hook: Hook, to: usize| {
            let found = detours
                .iter()
                .zip(&lanes)
                .find(|(detour, _)| detour.hook == hook && detour.to == to);
            let number = found.map(|(_, lane)| *lane).unwrap_or_default();
            first_lane[column(hook)] + LANE * number as f64
        };
        let ways = graph
            .edges
            .iter()
            .map(|edge| way(graph, &cards, edge, lane_of))
            .collect();
        Self {
            cards,
            ways,
            size: (x + MARGIN - APPROACH, bottom + NOTE + MARGIN),
        }
    }
}

fn column(hook: Hook) -> usize {
    match hook {
        Hook::Prerouting => 0,
        Hook::Output => 1,
    }
}

/// Puts the cards of a hook below each other, and returns where the last one ends.
fn stack(graph: &Graph, hook: Hook, cards: &mut [Card]) -> f64 {
    let mut y = MARGIN;
    for (node, card) in graph.nodes.iter().zip(cards).filter(|(node, _)| node.hook == hook) {
        card.y = y;
        (card.width, card.height) = size(node);
        y += card.height + GAP;
    }
    y - GAP
}

fn size(node: &Node) -> (f64, f64) {
    let length = |text: &str| text.chars().count() as f64;
    let width = node.rows.iter().map(|row| {
        let rule = length(&row.condition) * CHARACTER.0 + length(&row.outcome) * CHARACTER.1 + PADDING;
        rule.max(length(&row.comment) * CHARACTER.2 + PADDING)
    });
    let height = match node.kind {
        Kind::BaseChain | Kind::Chain => HEADER + ROW * node.rows.len() as f64,
        Kind::Entry | Kind::Untouched | Kind::Proxy | Kind::Dropped => PLACE,
    };
    (width.fold(NARROWEST, f64::max).ceil(), height)
}

/// The height at which a way leaves a rule.
fn leaves(card: &Card, row: usize) -> f64 {
    card.y + HEADER + ROW * row as f64 + 15.0
}

/// The height at which ways arrive at a card; those from the other column a little higher.
fn arrives(card: &Card, across: bool) -> f64 {
    card.y + HEADER / 2.0 + if across { -3.0 } else { 0.0 }
}

/// The ways beside the columns. Those of one column to one card are one.
fn detours(graph: &Graph, cards: &[Card]) -> Vec<Detour> {
    let mut detours: Vec<Detour> = Vec::new();
    for edge in &graph.edges {
        let Some(row) = edge.row else {
            continue;
        };
        let hook = graph.nodes[edge.from].hook;
        let ends = [leaves(&cards[edge.from], row), arrives(&cards[edge.to], false)];
        let (top, bottom) = (ends[0].min(ends[1]), ends[0].max(ends[1]));
        match detours
            .iter_mut()
            .find(|detour| detour.hook == hook && detour.to == edge.to)
        {
            Some(known) => {
                known.top = known.top.min(top);
                known.bottom = known.bottom.max(bottom);
            }
            None => detours.push(Detour {
                hook,
                to: edge.to,
                top,
                bottom,
            }),
        }
    }
    detours
}

/// A lane for each, such that none meets another: short ones next to the cards.
fn lanes(detours: &[Detour]) -> Vec<usize> {
    let mut lanes = vec![usize::MAX; detours.len()];
    let mut order: Vec<usize> = (0..detours.len()).collect();
    order.sort_by(|one, other| {
        let length = |index: &usize| detours[*index].bottom - detours[*index].top;
        length(one).total_cmp(&length(other))
    });
    for index in order {
        let this = &detours[index];
        let meets = |other: &Detour| {
            other.hook == this.hook && other.top < this.bottom + LANE && this.top < other.bottom + LANE
        };
        let taken: Vec<usize> = detours
            .iter()
            .zip(&lanes)
            .filter(|(other, _)| meets(other))
            .map(|(_, lane)| *lane)
            .collect();
        lanes[index] = (0..).find(|lane| !taken.contains(lane)).unwrap_or_default();
    }
    lanes
}

fn way(graph: &Graph, cards: &[Card], edge: &super::Edge, lane_of: impl Fn(Hook, usize) -> f64) -> Way {
    let (from, to) = (&cards[edge.from], &cards[edge.to]);
    let Some(row) = edge.row else {
        let x = from.x + from.width / 2.0;
        return Way::Down {
            x,
            from: from.y + from.height,
            to: to.y,
        };
    };
    let hook = graph.nodes[edge.from].hook;
    // To the right of its own column, to the left of the other one.
    let across = hook != graph.nodes[edge.to].hook;
    let end = if across { to.x } else { to.x + to.width };
    Way::Around {
        begin: (from.x + from.width, leaves(from, row)),
        lane: lane_of(hook, edge.to),
        end: (end, arrives(to, across)),
    }
}
