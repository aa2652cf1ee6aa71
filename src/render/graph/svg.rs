//! The graph as self-contained SVG (<https://www.w3.org/TR/SVG11/>): no script, font or link. It has colours for
//! light and dark backgrounds, by the reader's preference.

use std::fmt::Write as _;

use super::layout::{Card, HEADER, Layout, MARGIN, ROW, Way, times};
use super::{Edge, Effect, Graph, Kind, Node, Row};

const STYLE: &str = "text{font-family:system-ui,'Segoe UI','Liberation Sans','DejaVu Sans',sans-serif;font-size:12px;\
fill:#0f172a}.title{font-weight:600;font-size:13px}.sub{fill:#475569;font-size:11px}.why{fill:#64748b;font-size:11px}\
.place{text-anchor:middle;font-weight:600}.out{text-anchor:end;font-weight:600;fill:#475569}.out.jumps{fill:#4338ca}\
.out.proxy{fill:#15803d}.out.drops{fill:#b91c1c}.card{fill:#fff;stroke:#cbd5e1}.head{fill:#eef2ff}.head.base{fill:#c7d2fe}\
.line{stroke:#e2e8f0}.way{fill:none;stroke:#6366f1;stroke-width:1.5}.way.down{stroke:#94a3b8;stroke-dasharray:4 3}\
.way.proxy{stroke:#16a34a}.way.drops{stroke:#dc2626}.pill{fill:#e2e8f0;stroke:#94a3b8}.pill.proxy{fill:#bbf7d0;\
stroke:#16a34a}.pill.drops{fill:#fecaca;stroke:#dc2626}.page{fill:#f8fafc}";

/// Styles for a dark background.
const DARK: &str = "@media(prefers-color-scheme:dark){text{fill:#e2e8f0}.sub,.why{fill:#94a3b8}.out{fill:#cbd5e1}\
.out.jumps{fill:#a5b4fc}.out.proxy{fill:#86efac}.out.drops{fill:#fca5a5}.card{fill:#1e293b;stroke:#475569}\
.head{fill:#27324a}.head.base{fill:#3730a3}.line{stroke:#334155}.pill{fill:#334155;stroke:#64748b}\
.pill.proxy{fill:#14532d}.pill.drops{fill:#7f1d1d}.page{fill:#0d1117}}";

/// The legend below the graph.
const NOTE: &str =
    "return: back to the rule after the jump. Packets that no rule redirects continue to their original destination.";

/// Corner radius of edges in pixels.
const CORNER_RADIUS: i32 = 6;

/// The whole document.
pub fn document(graph: &Graph) -> String {
    let layout = Layout::new(graph);
    let (width, height) = layout.size;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\">\n<title>The path of a packet through the rules</title>\n\
         <style>{STYLE}{DARK}</style>\n<defs>"
    );
    for (class, color) in [
        ("jumps", "#6366f1"),
        ("proxy", "#16a34a"),
        ("drops", "#dc2626"),
        ("down", "#94a3b8"),
    ] {
        let _ = write!(
            text,
            "<marker id=\"{class}\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" \
             orient=\"auto\"><path d=\"M0 0 8 4 0 8z\" fill=\"{color}\"/></marker>"
        );
    }
    let _ = writeln!(
        text,
        "</defs>\n<rect class=\"page\" width=\"{width}\" height=\"{height}\"/>"
    );
    for (node, card) in graph.nodes.iter().zip(&layout.cards) {
        text += &match node.rows.is_empty() {
            true => pill(node, card),
            false => self::card(node, card),
        };
    }
    for (edge, way) in graph.edges.iter().zip(&layout.ways) {
        text += &self::way(graph, edge, way);
    }
    let _ = writeln!(
        text,
        "<text class=\"sub\" x=\"{MARGIN}\" y=\"{}\">{NOTE}</text>",
        height - MARGIN + 4
    );
    text + "</svg>\n"
}

fn pill(node: &Node, card: &Card) -> String {
    let class = match node.kind {
        Kind::Proxy => " proxy",
        Kind::Dropped => " drops",
        Kind::Entry | Kind::Untouched | Kind::BaseChain | Kind::Chain => "",
    };
    let Card { x, y, width, height } = card;
    format!(
        "<rect class=\"pill{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"16\"/>\
         <text class=\"place\" x=\"{}\" y=\"{}\">{}</text>\n",
        x + width / 2,
        y + 20,
        escape(&node.title)
    )
}

fn card(node: &Node, card: &Card) -> String {
    let Card { x, y, width, height } = card;
    let base = if node.kind == Kind::BaseChain { " base" } else { "" };
    let mut text = format!(
        "<rect class=\"card\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"6\"/>\
         <path class=\"head{base}\" d=\"M{x} {0}v-{1}a6 6 0 0 1 6-6h{2}a6 6 0 0 1 6 6v{1}z\"/>\
         <text class=\"title\" x=\"{3}\" y=\"{4}\">{5}</text><text class=\"sub\" x=\"{6}\" y=\"{4}\" \
         text-anchor=\"end\">{7}</text>\n",
        y + HEADER,
        HEADER - 6,
        width - 12,
        x + 12,
        y + 20,
        escape(&node.title),
        x + width - 12,
        escape(&node.subtitle)
    );
    for (number, row) in node.rows.iter().enumerate() {
        text += &self::row(row, *x, y + HEADER + times(number, ROW), *width);
    }
    text
}

fn row(row: &Row, x: i32, y: i32, width: i32) -> String {
    let class = class(row.effect);
    format!(
        "<path class=\"line\" d=\"M{x} {y}h{width}\"/><text x=\"{0}\" y=\"{1}\">{2}</text>\
         <text class=\"out {class}\" x=\"{3}\" y=\"{1}\">{4}</text><text class=\"why\" x=\"{0}\" y=\"{5}\">{6}</text>\n",
        x + 12,
        y + 17,
        escape(&row.condition),
        x + width - 12,
        escape(&row.outcome),
        y + 32,
        escape(&row.comment)
    )
}

fn class(effect: Effect) -> &'static str {
    match effect {
        Effect::GoesOn | Effect::Leaves => "leaves",
        Effect::Jumps => "jumps",
        Effect::Proxy => "proxy",
        Effect::Drops => "drops",
    }
}

fn way(graph: &Graph, edge: &Edge, way: &Way) -> String {
    match *way {
        Way::Down { x, from, to } => {
            format!("<path class=\"way down\" marker-end=\"url(#down)\" d=\"M{x} {from}V{to}\"/>\n")
        }
        Way::Around { begin, lane, end } => {
            let row = edge.row.and_then(|row| graph.nodes[edge.from].rows.get(row));
            let class = row.map_or("jumps", |row| class(row.effect));
            let down = if end.1 > begin.1 { CORNER_RADIUS } else { -CORNER_RADIUS };
            let across = if end.0 > lane { CORNER_RADIUS } else { -CORNER_RADIUS };
            format!(
                "<path class=\"way {class}\" marker-end=\"url(#{class})\" d=\"M{} {}H{}q{CORNER_RADIUS} 0 {CORNER_RADIUS} {down}V{}\
                 q0 {down} {across} {down}H{}\"/>\n",
                begin.0,
                begin.1,
                lane - CORNER_RADIUS,
                end.1 - down,
                end.0
            )
        }
    }
}

/// Escapes text for XML content and attributes. Characters that XML cannot hold are left out.
pub fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            character if character.is_control() => {}
            character => escaped.push(character),
        }
    }
    escaped
}
