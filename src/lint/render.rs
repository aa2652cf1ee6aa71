//! Findings as text, as JSON, and as GitHub workflow commands. The schema is described in `docs/lint.md`; [`VERSION`]
//! changes when it does.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json as value};

use super::code::{Explanation, Level};
use super::{Finding, Report};

/// The version of the schema.
pub const VERSION: u32 = 1;

/// A file and its report.
pub struct Linted {
    /// The path, or `-` for standard input.
    pub file: String,
    /// The report.
    pub report: Report,
}

/// The findings as text: position and message, why it matters, and the fix.
pub fn text(files: &[Linted]) -> String {
    let mut text = String::new();
    for (file, finding, explanation) in findings(files) {
        let Finding {
            at, object, message, ..
        } = finding;
        let Explanation { id, why, fix, .. } = explanation;
        let _ = writeln!(
            text,
            "{file}:{}:{}: {id}: {object}: {message}\n    why: {why}\n    fix: {fix}",
            at.line, at.column
        );
    }
    text
}

/// The findings as JSON.
pub fn json(files: &[Linted]) -> String {
    let findings: Vec<Value> = findings(files)
        .map(|(file, finding, explanation)| {
            value!({
                "code": explanation.id,
                "level": explanation.level.name(),
                "file": file,
                "line": finding.at.line,
                "column": finding.at.column,
                "object": finding.object,
                "message": finding.message,
                "title": explanation.title,
                "why": explanation.why,
                "fix": explanation.fix,
            })
        })
        .collect();
    let document = value!({
        "version": VERSION, "pods": pods(files), "skipped": skipped(files), "findings": findings,
    });
    format!("{document:#}\n")
}

/// The findings as GitHub workflow commands, which GitHub shows beside the lines.
pub fn github(files: &[Linted]) -> String {
    let escaped = |text: &str, more: &[(&str, &str)]| {
        let rest = [("\r", "%0D"), ("\n", "%0A")];
        let all = rest.iter().chain(more);
        all.fold(text.replace('%', "%25"), |text, (character, code)| {
            text.replace(character, code)
        })
    };
    let property = |text: &str| escaped(text, &[(":", "%3A"), (",", "%2C")]);
    let command = |(file, finding, explanation): (&str, &Finding, &Explanation)| {
        let level = match explanation.level {
            Level::Note => "notice",
            level => level.name(),
        };
        format!(
            "::{level} file={},line={},col={},title={}::{}\n",
            property(file),
            finding.at.line,
            finding.at.column,
            property(&format!("{}: {}", explanation.id, explanation.title)),
            escaped(&sentence(finding, explanation), &[])
        )
    };
    findings(files).map(command).collect()
}

/// The number of objects without a pod, by kind.
pub fn skipped(files: &[Linted]) -> BTreeMap<&str, usize> {
    let mut all = BTreeMap::new();
    for (kind, count) in files.iter().flat_map(|linted| &linted.report.skipped) {
        *all.entry(kind.as_str()).or_default() += count;
    }
    all
}

/// The number of pods.
pub fn pods(files: &[Linted]) -> usize {
    files.iter().map(|linted| linted.report.pods).sum()
}

/// A finding with its fix, for one line of a review.
pub(super) fn sentence(finding: &Finding, explanation: &Explanation) -> String {
    format!("{}: {}. {}", finding.object, finding.message, explanation.fix)
}

/// All findings, each with its file and its explanation.
pub fn findings(files: &[Linted]) -> impl Iterator<Item = (&str, &Finding, &Explanation)> {
    files.iter().flat_map(|linted| {
        let all = linted.report.findings.iter();
        all.map(|finding| (linted.file.as_str(), finding, finding.code.explanation()))
    })
}
