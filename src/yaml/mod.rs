//! YAML, and JSON as a subset of it, as trees whose nodes have positions in the text.
//!
//! The memory for a text is bounded: collections nest at most `MAX_DEPTH` levels, and aliases expand to at most
//! `MAX_ALIAS_EXPANSION` bytes.
//! Merge keys (`<<`) are applied, as Kubernetes' tools do.

mod kubernetes;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use granit_parser::{Event, Marker, Parser, ScalarStyle, Tag};
use serde_json::{Number, Value};
use thiserror::Error;

/// The maximum nesting depth of collections, expanded aliases included.
const MAX_DEPTH: usize = 256;
/// The maximum size of all expanded aliases of a text: the number of nodes plus the bytes of scalars.
const MAX_ALIAS_EXPANSION: usize = 1 << 20;

/// A position in a text. Both numbers start at 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Position {
    fn of(marker: &Marker) -> Self {
        Self {
            line: marker.line(),
            column: marker.col() + 1,
        }
    }

    /// The end of a text.
    fn end_of(text: &str) -> Self {
        let (mut line, mut column) = (1, 1);
        let mut rest = text.chars().peekable();
        while let Some(character) = rest.next() {
            // A carriage return alone also ends a line.
            let ends = character == '\n' || (character == '\r' && rest.peek() != Some(&'\n'));
            (line, column) = if ends { (line + 1, 1) } else { (line, column + 1) };
        }
        Self { line, column }
    }

    /// The same position, in a text that starts at `from`.
    fn after(self, from: Self) -> Self {
        Self {
            line: self.line + from.line - 1,
            column: if self.line == 1 {
                self.column + from.column - 1
            } else {
                self.column
            },
        }
    }
}

/// A syntax error, or an exceeded limit.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{reason} at line {} column {}", .at.line, .at.column)]
pub struct Error {
    /// The position.
    pub at: Position,
    /// The error.
    pub reason: String,
}

/// A node of a document. An expanded alias has the position of its anchor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The start of the node.
    pub at: Position,
    /// The value.
    pub content: Content,
}

/// The value of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A string, a number, true, false or null.
    Scalar {
        /// The text, without quotes and escapes.
        text: String,
        /// Whether the text may be another type than a string: it has neither quotes nor the tag `!!str`.
        plain: bool,
    },
    /// The items, in order.
    Sequence(Vec<Node>),
    /// The entries, in order; keys are unique.
    Mapping(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The start of the key.
    pub at: Position,
    /// The value.
    pub value: Node,
}

impl Node {
    /// A mapping without entries, at the beginning of a text.
    pub fn empty() -> Self {
        Self {
            at: Position { line: 1, column: 1 },
            content: Content::Mapping(Vec::new()),
        }
    }

    /// The value of a key of this mapping.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let entry = self.entries().iter().find(|entry| entry.key == key)?;
        Some(&entry.value)
    }

    /// The entries; empty if this is not a mapping.
    pub fn entries(&self) -> &[Entry] {
        match &self.content {
            Content::Mapping(entries) => entries,
            Content::Scalar { .. } | Content::Sequence(_) => &[],
        }
    }

    /// The items; empty if this is not a sequence.
    pub fn items(&self) -> &[Self] {
        match &self.content {
            Content::Sequence(items) => items,
            Content::Scalar { .. } | Content::Mapping(_) => &[],
        }
    }

    /// The text of a scalar that is not null.
    pub fn scalar(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar { text, plain } if !(*plain && is_null(text)) => Some(text),
            Content::Scalar { .. } | Content::Sequence(_) | Content::Mapping(_) => None,
        }
    }

    /// The same as JSON, without positions.
    pub fn to_json(&self) -> Value {
        match &self.content {
            Content::Scalar { text, plain: true } => resolve(text),
            Content::Scalar { text, plain: false } => Value::String(text.clone()),
            Content::Sequence(items) => items.iter().map(Self::to_json).collect(),
            Content::Mapping(entries) => {
                let entry = |entry: &Entry| (entry.key.clone(), entry.value.to_json());
                entries.iter().map(entry).collect()
            }
        }
    }

    /// The size, in the unit of [`MAX_ALIAS_EXPANSION`], and the depth.
    fn extent(&self) -> (usize, usize) {
        let children: Vec<(usize, usize)> = match &self.content {
            Content::Scalar { text, .. } => return (1 + text.len(), 0),
            Content::Sequence(items) => items.iter().map(Self::extent).collect(),
            Content::Mapping(entries) => entries
                .iter()
                .map(|entry| (entry.key.len(), 0))
                .chain(entries.iter().map(|entry| entry.value.extent()))
                .collect(),
        };
        let size: usize = children.iter().map(|(size, _)| size).sum();
        let depth = children.iter().map(|(_, depth)| *depth).max().unwrap_or_default();
        (size + 1, depth + 1)
    }
}

/// The value of a plain scalar (YAML 1.2.2, section 10.3.2). Numbers are those of JSON; anything else is a string.
fn resolve(text: &str) -> Value {
    match text {
        _ if is_null(text) => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => text
            .parse::<Number>()
            .map_or_else(|_| Value::String(text.to_owned()), Value::Number),
    }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// Reads every document of a text: YAML, or concatenated JSON values.
///
/// # Errors
/// The first syntax error or exceeded limit.
pub fn documents(text: &str) -> Result<Vec<Node>, Error> {
    let mut reader = Reader::default();
    let mut from = Position { line: 1, column: 1 };
    for part in json_values(text).unwrap_or_else(|| vec![text]) {
        for event in Parser::new_from_str(part) {
            let (event, span) = event.map_err(|error| Error {
                at: Position::of(error.marker()).after(from),
                reason: error.info(),
            })?;
            reader.take(event, Position::of(&span.start).after(from))?;
        }
        from = Position::end_of(part).after(from);
    }
    Ok(reader.documents)
}

/// Splits a stream of JSON values, as `kubectl` and `jq` write it and YAML does not allow it: each value with the space
/// before it. `None` for a single value, or anything else.
fn json_values(text: &str) -> Option<Vec<&str>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let (mut parts, mut begin) = (Vec::new(), 0);
    while let Some(value) = values.next() {
        value.ok()?;
        parts.push(text.get(begin..values.byte_offset())?);
        begin = values.byte_offset();
    }
    (parts.len() > 1).then_some(parts)
}

/// Reads the only document of a text; null if there is none.
///
/// # Errors
/// The first syntax error or exceeded limit, or a second document.
pub fn document(text: &str) -> Result<Node, Error> {
    let mut documents = documents(text)?.into_iter();
    let first = documents.next().unwrap_or(Node {
        at: Position { line: 1, column: 1 },
        content: Content::Scalar {
            text: String::new(),
            plain: true,
        },
    });
    match documents.next() {
        Some(second) => Err(failed(second.at, "there is a second document")),
        None => Ok(first),
    }
}

fn failed(at: Position, reason: impl Into<String>) -> Error {
    Error {
        at,
        reason: reason.into(),
    }
}

/// Builds the documents from events of the parser.
#[derive(Default)]
struct Reader {
    documents: Vec<Node>,
    /// The incomplete collections, the innermost last.
    open: Vec<Open>,
    /// The anchored nodes of the document.
    anchors: BTreeMap<usize, Node>,
    repeated: usize,
}

struct Open {
    at: Position,
    anchor: usize,
    collection: Collection,
}

enum Collection {
    Sequence(Vec<Node>),
    Mapping {
        entries: Vec<Entry>,
        /// A key whose value follows.
        key: Option<(String, Position)>,
        /// The values of merge keys.
        merged: Vec<Node>,
    },
}

impl Reader {
    fn take(&mut self, event: Event<'_>, at: Position) -> Result<(), Error> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = match core_tag(tag.as_deref(), at)? {
                    Some(name) => name != "str",
                    None => style == ScalarStyle::Plain,
                };
                let text = text.into_owned();
                let node = Node {
                    at,
                    content: Content::Scalar { text, plain },
                };
                self.complete(node, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                core_tag(tag.as_deref(), at)?;
                self.begin(at, anchor, Collection::Sequence(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                core_tag(tag.as_deref(), at)?;
                let collection = Collection::Mapping {
                    entries: Vec::new(),
                    key: None,
                    merged: Vec::new(),
                };
                self.begin(at, anchor, collection)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => {
                let node = self.repeat(anchor, at)?;
                self.complete(node, 0)
            }
            Event::DocumentStart(..) => {
                self.anchors.clear();
                Ok(())
            }
            // Ends of documents, comments and the like.
            _ => Ok(()),
        }
    }

    fn begin(&mut self, at: Position, anchor: usize, collection: Collection) -> Result<(), Error> {
        if self.open.len() == MAX_DEPTH {
            return Err(failed(at, format!("collections nest deeper than {MAX_DEPTH} levels")));
        }
        self.open.push(Open { at, anchor, collection });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Error> {
        let Some(Open { at, anchor, collection }) = self.open.pop() else {
            return Ok(());
        };
        let content = match collection {
            Collection::Sequence(items) => Content::Sequence(items),
            Collection::Mapping {
                mut entries, merged, ..
            } => {
                refuse_duplicates(&entries)?;
                merge(&mut entries, merged)?;
                Content::Mapping(entries)
            }
        };
        self.complete(Node { at, content }, anchor)
    }

    /// Adds a complete node to its parent.
    fn complete(&mut self, node: Node, anchor: usize) -> Result<(), Error> {
        if anchor != 0 {
            self.count(node.extent().0, node.at)?;
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.collection) {
            None => self.documents.push(node),
            Some(Collection::Sequence(items)) => items.push(node),
            Some(Collection::Mapping { entries, key, merged }) => match (key.take(), node.content) {
                (Some((name, _)), content) if name == MERGE => merged.push(Node { at: node.at, content }),
                (Some((name, at)), content) => entries.push(Entry {
                    key: name,
                    at,
                    value: Node { at: node.at, content },
                }),
                (None, Content::Scalar { text, .. }) => *key = Some((text, node.at)),
                (None, Content::Sequence(_) | Content::Mapping(_)) => {
                    return Err(failed(node.at, "a key must be a string"));
                }
            },
        }
        Ok(())
    }

    /// Expands an alias.
    fn repeat(&mut self, anchor: usize, at: Position) -> Result<Node, Error> {
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            return Err(failed(at, "the alias refers to a node that contains it"));
        };
        let (size, depth) = node.extent();
        self.count(size, at)?;
        if self.open.len() + depth > MAX_DEPTH {
            return Err(failed(at, format!("collections nest deeper than {MAX_DEPTH} levels")));
        }
        Ok(node)
    }

    fn count(&mut self, size: usize, at: Position) -> Result<(), Error> {
        self.repeated += size;
        if self.repeated > MAX_ALIAS_EXPANSION {
            let reason = format!("anchors and aliases expand to more than {MAX_ALIAS_EXPANSION} bytes of copies");
            return Err(failed(at, reason));
        }
        Ok(())
    }
}

/// The key whose value is merged into the mapping (<https://yaml.org/type/merge.html>).
const MERGE: &str = "<<";

/// Adds the entries of merged mappings whose keys are missing; of several, the first one applies.
fn merge(entries: &mut Vec<Entry>, merged: Vec<Node>) -> Result<(), Error> {
    let mut known: BTreeSet<String> = entries.iter().map(|entry| entry.key.clone()).collect();
    for node in merged {
        let mappings = match node.content {
            Content::Sequence(items) => items,
            content @ (Content::Mapping(_) | Content::Scalar { .. }) => vec![Node { at: node.at, content }],
        };
        for mapping in mappings {
            let Content::Mapping(more) = mapping.content else {
                return Err(failed(mapping.at, "only a mapping, or a list of them, can be merged"));
            };
            entries.extend(more.into_iter().filter(|entry| known.insert(entry.key.clone())));
        }
    }
    Ok(())
}

fn refuse_duplicates(entries: &[Entry]) -> Result<(), Error> {
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    sorted.sort_by(|one, other| one.key.cmp(&other.key));
    match sorted.windows(2).find(|pair| pair[0].key == pair[1].key) {
        Some(pair) => Err(failed(pair[1].at, format!("{} is given twice", pair[1].key))),
        None => Ok(()),
    }
}

/// The tag of a node, if any: only the core schema is supported (YAML 1.2.2, section 10.3.1).
fn core_tag(tag: Option<&Tag>, at: Position) -> Result<Option<&str>, Error> {
    match tag {
        None => Ok(None),
        Some(tag) if tag.is_yaml_core_schema() => Ok(Some(tag.suffix())),
        Some(tag) => Err(failed(at, format!("the tag {tag} is not supported"))),
    }
}
