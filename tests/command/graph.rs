//! `sidetrack graph`: its output is valid input of Graphviz, Mermaid and XML parsers.
//!
//! Review the files in `tests/golden/graph` like code; an SVG file can also be viewed.

use std::process::{Command, Stdio};

use sidetrack::render::graph::{Graph, dot, mermaid, svg};

use crate::plans::plan;
use crate::{cases, generated};

fn graph(options: &[&str]) -> Graph {
    Graph::new(&plan(options).ruleset)
}

const PICTURES: [(&str, &[&str]); 3] = [
    ("default", &[]),
    ("dns", &["--redirect-dns", "--dns-servers", "all"]),
    ("tproxy", &["--inbound-mode", "tproxy"]),
];

#[test]
fn graphs_match_golden() {
    insta::with_settings!({ snapshot_path => "../golden/graph", prepend_module_to_snapshot => false, omit_expression => true }, {
        for (name, options) in PICTURES {
            let graph = graph(options);
            insta::assert_snapshot!(format!("{name}.dot"), dot::document(&graph));
            insta::assert_snapshot!(format!("{name}.mermaid"), mermaid::document(&graph));
            insta::assert_snapshot!(format!("{name}.svg"), svg::document(&graph));
        }
    });
}

#[test]
fn graphs_in_docs_are_generated() {
    for (name, options) in PICTURES {
        let path = match name {
            "default" => "docs/graph.svg".to_owned(),
            name => format!("docs/graph-{name}.svg"),
        };
        generated::file(&path, &svg::document(&graph(options)));
    }
}

/// Writes to a program's standard input; returns whether it succeeded, and its output.
fn fed(program: &mut Command, text: &str) -> (bool, String) {
    let mut child = program
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program:?}: {error}"));
    let mut stdin = child.stdin.take().expect("a pipe");
    let output = std::thread::scope(|scope| {
        scope.spawn(move || std::io::Write::write_all(&mut stdin, text.as_bytes()));
        child.wait_with_output().expect("its end")
    });
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// All graphs of a format, joined for one run of a program.
fn all(document: impl Fn(&Graph) -> String) -> String {
    cases::all_options()
        .map(|(_, options)| document(&graph(options)))
        .collect()
}

#[test]
fn graphviz_draws_each_case_without_warnings() {
    // `dot -Tplain` writes a line for each node; a warning goes to standard error.
    let (drawn, said) = fed(Command::new("dot").arg("-Tplain"), &all(dot::document));
    assert!(drawn && !said.contains("Warning") && !said.contains("Error"), "{said}");
    assert_eq!(said.matches("stop\n").count(), cases::all_options().count());
    let (drawn, _) = fed(Command::new("dot").arg("-Tplain"), "digraph { a [label=<<b>x>] }");
    assert!(!drawn, "dot takes everything");
}

#[test]
fn svg_graphs_are_well_formed_xml() {
    let program = "import sys, xml.etree.ElementTree as tree
for text in sys.stdin.read().split('\\0')[:-1]:
    root = tree.fromstring(text)
    assert root.tag == '{http://www.w3.org/2000/svg}svg', root.tag
    assert not any('href' in name for element in root.iter() for name in element.attrib)
    print('read')";
    let texts = all(|graph| format!("{}\0", svg::document(graph)));
    let (read, said) = fed(Command::new("python3").args(["-c", program]), &texts);
    assert!(read, "{said}");
    assert_eq!(said.matches("read\n").count(), cases::all_options().count());
}

/// The syntax of Mermaid, as far as it is used here: one statement a line, labels in quotes, closed subgraphs,
/// edges between existing nodes.
#[test]
fn mermaid_graphs_have_valid_syntax() {
    for (name, options) in cases::all_options() {
        let text = mermaid::document(&graph(options));
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("flowchart TB"));
        let (mut nodes, mut ways, mut depth) = (Vec::new(), Vec::new(), 0);
        for line in lines.map(str::trim) {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["subgraph", ..] => depth += 1,
                ["end"] => depth -= 1,
                ["direction", "TB"] | ["classDef", _, _] => {}
                [from, "==>" | "-->" | "-.->", to] => ways.push((from.to_string(), to.to_string())),
                _ => nodes.push(line.split(['[', '(']).next().unwrap_or_default().to_owned()),
            }
            assert!(line.matches('"').count() % 2 == 0, "{name}: {line}");
        }
        assert_eq!(depth, 0, "{name}");
        for (from, to) in &ways {
            assert!(nodes.contains(from) && nodes.contains(to), "{name}: {from} to {to}");
        }
        assert!(nodes.len() > 2 && ways.len() > 1, "{name}: {text}");
    }
}
