//! A page of the documentation: its blocks of commands, and the commands within its text.

use std::fs;
use std::path::{Path, PathBuf};

/// The repository.
pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A page.
pub struct Page {
    /// Its path in the repository.
    pub name: String,
    /// All of it.
    pub text: String,
    /// What stands between fences, in order.
    pub blocks: Vec<Block>,
    /// What stands in the text as code, with the number of its line.
    pub inline: Vec<(usize, String)>,
}

/// A fenced block.
pub struct Block {
    /// What the fence says that it is in.
    pub language: String,
    /// The number of its first line.
    pub line: usize,
    /// The lines, without the indentation of the fence.
    pub text: String,
    /// What `<!-- lab: … -->` before it says: what has happened by then where the page is read.
    pub lab: Option<String>,
    /// Whether `<!-- rules: those asked about -->` stands before it: each command that looks at rules finds those that
    /// its options would write.
    pub finds_rules: bool,
    /// What `<!-- exit: … -->` before it says: how its commands end.
    pub exit: i32,
}

/// Every page: those at the top, and all of `docs`.
pub fn all() -> Vec<Page> {
    let docs = fs::read_dir(Path::new(ROOT).join("docs")).expect("docs");
    let mut names: Vec<PathBuf> = docs.map(|entry| entry.expect("an entry").path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    names.extend(["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| Path::new(ROOT).join(name)));
    names.sort();
    names.iter().map(|path| Page::read(path)).collect()
}

impl Page {
    /// Reads a plugin file.
    pub fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name = path.strip_prefix(ROOT).expect("a page of the repository");
        Self::parse(&name.to_string_lossy(), text)
    }

    fn parse(name: &str, text: String) -> Self {
        let (mut blocks, mut prose) = (Vec::new(), String::new());
        let mut finds_rules = false;
        let (mut lab, mut exit): (Option<String>, i32) = (None, 0);
        let mut lines = text.lines().enumerate();
        while let Some((number, line)) = lines.next() {
            let bare = line.trim_start();
            if let Some(language) = bare.strip_prefix("```") {
                let indent = line.len() - bare.len();
                let mut inside = String::new();
                for (_, line) in lines.by_ref().take_while(|(_, line)| line.trim() != "```") {
                    inside += line.get(indent..).unwrap_or_default();
                    inside.push('\n');
                }
                prose += &"\n".repeat(inside.lines().count() + 2);
                blocks.push(Block {
                    language: language.to_owned(),
                    line: number + 2,
                    text: inside,
                    lab: lab.take(),
                    finds_rules: std::mem::take(&mut finds_rules),
                    exit: std::mem::take(&mut exit),
                });
                continue;
            }
            if let Some(commands) = comment(bare, "lab") {
                lab.get_or_insert_with(String::new).push_str(&format!("{commands}\n"));
            }
            finds_rules |= comment(bare, "rules") == Some("those asked about");
            if let Some(code) = comment(bare, "exit") {
                exit = code.parse().unwrap_or_else(|_| panic!("{name}:{}: {line}", number + 1));
            }
            prose += line;
            prose.push('\n');
        }
        Self {
            name: name.to_owned(),
            inline: inline(&prose),
            blocks,
            text,
        }
    }
}

/// What a comment `<!-- key: … -->` says.
fn comment<'t>(line: &'t str, key: &str) -> Option<&'t str> {
    let said = line.strip_prefix("<!-- ")?.strip_suffix(" -->")?;
    said.strip_prefix(key)?.strip_prefix(": ")
}

/// Spans of code, with the lines that they begin in. A span may go on in the next line.
fn inline(prose: &str) -> Vec<(usize, String)> {
    let (mut spans, mut line) = (Vec::new(), 1);
    for (position, part) in prose.split('`').enumerate() {
        if position % 2 == 1 {
            spans.push((line, part.split_whitespace().collect::<Vec<_>>().join(" ")));
        }
        line += part.matches('\n').count();
    }
    spans
}
