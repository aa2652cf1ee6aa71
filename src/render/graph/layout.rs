//! The layout of the SVG: a column of cards for each hook, and beside each column lanes for the edges.

use super::{Graph, Kind, Node};
use crate::ruleset::Hook;

/// Sizes, in pixels.
pub const ROW: i32 = 40;
pub const HEADER: i32 = 30;
const PLACE: i32 = 32;
const GAP: i32 = 28;
pub const MARGIN: i32 = 24;
/// Height of the legend below the graph.
const NOTE: i32 = 24;
const LANE: i32 = 14;
/// Distance between cards and their first lane.
const APPROACH: i32 = 18;
/// Minimum width of a card, and the width that a card adds to its texts.
const MIN_CARD_WIDTH: i32 = 300;
const PADDING: i32 = 44;
/// Width of a character in tenths of a pixel, for conditions, actions and comments: enough for any common font.
const CHARACTER_WIDTHS: (i32, i32, i32) = (66, 76, 58);

/// The box of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Card {
    pub x: i32,
    pub y: i32,
    pub width: i32,
    pub height: i32,
}

/// The line of an edge: from the side of one card along a lane to the side of another, or straight down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Down to the next chain of the hook.
    Down { x: i32, from: i32, to: i32 },
    /// Beside the column.
    Around {
        begin: (i32, i32),
        lane: i32,
        end: (i32, i32),
    },
}

/// The positions of all parts.
pub struct Layout {
    /// A card for each node.
    pub cards: Vec<Card>,
    /// A line for each edge.
    pub ways: Vec<Way>,
    /// Width and height of the image.
    pub size: (i32, i32),
}

/// An edge beside a column.
struct Detour {
    hook: Hook,
    to: usize,
    top: i32,
    bottom: i32,
}

impl Layout {
    /// Computes all positions.
    pub fn new(graph: &Graph) -> Self {
        let mut cards = vec![
            Card {
                x: 0,
                y: 0,
                width: 0,
                height: 0
            };
            graph.nodes.len()
        ];
        let mut bottom: i32 = 0;
        for hook in Hook::ALL {
            bottom = bottom.max(stack(graph, hook, &mut cards));
        }
        let detours = detours(graph, &cards);
        let lanes = lanes(&detours);
        let mut x = MARGIN;
        let mut first_lane = [0; Hook::ALL.len()];
        for (column, hook) in Hook::ALL.into_iter().enumerate() {
            let of_hook = |index: &usize| graph.nodes[*index].hook == hook;
            let indices: Vec<usize> = (0..cards.len()).filter(of_hook).collect();
            let width = indices.iter().map(|index| cards[*index].width).fold(0, i32::max);
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
            if width > 0 {
                x += width + 2 * APPROACH + times(count, LANE);
            }
        }
        let lane_of = |hook: Hook, to: usize| {
            let found = detours
                .iter()
                .zip(&lanes)
                .find(|(detour, _)| detour.hook == hook && detour.to == to);
            let number = found.map(|(_, lane)| *lane).unwrap_or_default();
            first_lane[hook.number() as usize] + times(number, LANE)
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

/// `count` times `size`.
pub fn times(count: usize, size: i32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX).saturating_mul(size)
}

/// Stacks the cards of a hook and returns the bottom of the last one.
fn stack(graph: &Graph, hook: Hook, cards: &mut [Card]) -> i32 {
    let mut y = MARGIN;
    for (node, card) in graph.nodes.iter().zip(cards).filter(|(node, _)| node.hook == hook) {
        card.y = y;
        (card.width, card.height) = size(node);
        y += card.height + GAP;
    }
    y - GAP
}

fn size(node: &Node) -> (i32, i32) {
    let length = |text: &str, character| times(text.chars().count(), character) / 10;
    let width = node.rows.iter().map(|row| {
        let rule = length(&row.condition, CHARACTER_WIDTHS.0) + length(&row.outcome, CHARACTER_WIDTHS.1) + PADDING;
        rule.max(length(&row.comment, CHARACTER_WIDTHS.2) + PADDING)
    });
    let height = match node.kind {
        Kind::BaseChain | Kind::Chain => HEADER + times(node.rows.len(), ROW),
        Kind::Entry | Kind::Untouched | Kind::Proxy | Kind::Dropped => PLACE,
    };
    (width.fold(MIN_CARD_WIDTH, i32::max), height)
}

/// The y coordinate at which an edge leaves a rule.
fn leaves(card: &Card, row: usize) -> i32 {
    card.y + HEADER + times(row, ROW) + 15
}

/// The y coordinate at which edges enter a card; those from the other column a little higher.
fn arrives(card: &Card, across: bool) -> i32 {
    card.y + HEADER / 2 + if across { -3 } else { 0 }
}

/// The edges beside the columns. Those from one column to the same card share a line.
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

/// A lane for each line such that no two overlap, with short lines next to the cards.
fn lanes(detours: &[Detour]) -> Vec<usize> {
    let mut lanes = vec![usize::MAX; detours.len()];
    let mut order: Vec<usize> = (0..detours.len()).collect();
    order.sort_by(|one, other| {
        let length = |index: &usize| detours[*index].bottom - detours[*index].top;
        length(one).cmp(&length(other))
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

fn way(graph: &Graph, cards: &[Card], edge: &super::Edge, lane_of: impl Fn(Hook, usize) -> i32) -> Way {
    let (from, to) = (&cards[edge.from], &cards[edge.to]);
    let Some(row) = edge.row else {
        let x = from.x + from.width / 2;
        return Way::Down {
            x,
            from: from.y + from.height,
            to: to.y,
        };
    };
    let hook = graph.nodes[edge.from].hook;
    // From the right side of its own column to the left side of the other one.
    let across = hook != graph.nodes[edge.to].hook;
    let end = if across { to.x } else { to.x + to.width };
    Way::Around {
        begin: (from.x + from.width, leaves(from, row)),
        lane: lane_of(hook, edge.to),
        end: (end, arrives(to, across)),
    }
}
