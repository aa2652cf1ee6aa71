//! The graph in Graphviz' language (<https://graphviz.org/doc/info/lang.html>), a table for each chain.

use super::{Edge, Effect, Graph, Kind, Node, Row};

/// The whole document.
pub fn document(graph: &Graph) -> String {
    let mut text = "digraph sidetrack {\n  rankdir=LR;\n  bgcolor=\"white\";\n  \
                    node [fontname=\"Helvetica\", fontsize=11, shape=plaintext];\n  \
                    edge [color=\"#64748b\", arrowsize=0.7];\n"
        .to_owned();
    for (index, node) in graph.nodes.iter().enumerate() {
        text += &self::node(index, node);
    }
    for edge in &graph.edges {
        text += &self::edge(graph, edge);
    }
    text + "}\n"
}

fn edge(graph: &Graph, Edge { from, row, to }: &Edge) -> String {
    let title = if graph.nodes[*to].rows.is_empty() {
        ""
    } else {
        ":title:w"
    };
    match row {
        Some(row) => format!("  n{from}:r{row}:e -> n{to}{title};\n"),
        None => format!("  n{from} -> n{to} [style=dashed];\n"),
    }
}

fn node(index: usize, node: &Node) -> String {
    let Node {
        kind,
        title,
        subtitle,
        rows,
        ..
    } = node;
    let title = escape(title);
    let color = match kind {
        Kind::Entry | Kind::Untouched => "#e2e8f0",
        Kind::Proxy => "#bbf7d0",
        Kind::Dropped => "#fecaca",
        Kind::BaseChain => "#c7d2fe",
        Kind::Chain => "#e0e7ff",
    };
    if rows.is_empty() {
        return format!("  n{index} [shape=box, style=\"rounded,filled\", fillcolor=\"{color}\", label=<{title}>];\n");
    }
    let rows: String = rows
        .iter()
        .enumerate()
        .map(|(index, row)| self::row(index, row))
        .collect();
    let subtitle = match subtitle.as_str() {
        "" => String::new(),
        subtitle => format!("  <i>{}</i>", escape(subtitle)),
    };
    format!(
        "  n{index} [label=<<table border=\"0\" cellborder=\"1\" cellspacing=\"0\" cellpadding=\"4\" color=\"#94a3b8\">\n    \
         <tr><td colspan=\"2\" align=\"left\" bgcolor=\"{color}\" port=\"title\"><b>{title}</b>{subtitle}</td></tr>\n\
         {rows}  </table>>];\n"
    )
}

fn row(index: usize, row: &Row) -> String {
    let color = match row.effect {
        Effect::GoesOn | Effect::Leaves => "#475569",
        Effect::Jumps => "#3730a3",
        Effect::Proxy => "#15803d",
        Effect::Drops => "#b91c1c",
    };
    format!(
        "    <tr><td align=\"left\">{}<br align=\"left\"/><font color=\"#64748b\" point-size=\"9\">{}</font><br align=\"left\"/></td>\
         <td align=\"left\" port=\"r{index}\"><font color=\"{color}\">{}</font></td></tr>\n",
        escape(&row.condition),
        escape(&row.comment),
        escape(&row.outcome),
    )
}

/// Graphviz reads these labels as XML.
fn escape(text: &str) -> String {
    super::svg::escape(text)
}
