//! The graph in Mermaid's language (<https://mermaid.js.org/syntax/flowchart.html>), a box for each rule.

use std::fmt::Write as _;

use super::{Edge, Effect, Graph, Kind, Node};

/// The whole document.
pub fn document(graph: &Graph) -> String {
    let mut text = "flowchart TB\n".to_owned();
    for (index, node) in graph.nodes.iter().enumerate() {
        text += &self::node(index, node);
    }
    for edge in &graph.edges {
        text += &self::edge(graph, edge);
    }
    text + "  classDef place fill:#e2e8f0,stroke:#94a3b8,color:#0f172a\n  \
            classDef leaves fill:#ffffff,stroke:#cbd5e1,color:#334155\n  \
            classDef jumps fill:#e0e7ff,stroke:#818cf8,color:#1e1b4b\n  \
            classDef proxy fill:#bbf7d0,stroke:#22c55e,color:#052e16\n  \
            classDef drops fill:#fecaca,stroke:#ef4444,color:#450a0a\n"
}

fn node(index: usize, node: &Node) -> String {
    let Node {
        kind,
        title,
        subtitle,
        rows,
        ..
    } = node;
    if rows.is_empty() {
        let class = match kind {
            Kind::Entry | Kind::Untouched | Kind::BaseChain | Kind::Chain => "place",
            Kind::Proxy => "proxy",
            Kind::Dropped => "drops",
        };
        return format!("  n{index}([\"{}\"]):::{class}\n", escape(title));
    }
    let subtitle = match subtitle.as_str() {
        "" => String::new(),
        subtitle => format!(" ({})", escape(subtitle)),
    };
    let mut text = format!(
        "  subgraph n{index}[\"{}{subtitle}\"]\n    direction TB\n",
        escape(title)
    );
    for (number, row) in rows.iter().enumerate() {
        let class = match row.effect {
            Effect::GoesOn | Effect::Leaves => "leaves",
            Effect::Jumps => "jumps",
            Effect::Proxy => "proxy",
            Effect::Drops => "drops",
        };
        let _ = writeln!(
            text,
            "    n{index}r{number}[\"{}: <b>{}</b><br/><i>{}</i>\"]:::{class}",
            escape(&row.condition),
            escape(&row.outcome),
            escape(&row.comment)
        );
    }
    for number in 1..rows.len() {
        let _ = writeln!(text, "    n{index}r{} -.-> n{index}r{number}", number - 1);
    }
    text + "  end\n"
}

/// Edges between chains connect rules: Mermaid's layout is worse if edges end at subgraphs.
fn edge(graph: &Graph, Edge { from, row, to }: &Edge) -> String {
    let rule = |node: usize, row: usize| match graph.nodes[node].rows.is_empty() {
        true => format!("n{node}"),
        false => format!("n{node}r{row}"),
    };
    let last = graph.nodes[*from].rows.len().saturating_sub(1);
    let (begin, arrow) = match row {
        Some(row) => (rule(*from, *row), "==>"),
        None => (rule(*from, last), "-->"),
    };
    format!("  {begin} {arrow} {}\n", rule(*to, 0))
}

/// Escapes characters with a meaning in a quoted label, which may hold HTML, as Mermaid entities.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '"' | '#' | '&' | '<' | '>' | '`' => {
                let _ = write!(escaped, "#{};", u32::from(character));
            }
            character if character.is_control() => {}
            character => escaped.push(character),
        }
    }
    escaped
}
