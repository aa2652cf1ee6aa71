//! Counted connections as JSON.

use serde_json::{Value, json};

use super::{Row, Stats};

/// The version of the JSON schema.
const VERSION: u32 = 1;

/// The numbers, one object for each reason. `docs/stats.md` describes the fields.
pub fn document(stats: &Stats, backend: &str) -> String {
    let document = json!({
        "version": VERSION,
        "backend": backend,
        "counters": stats.rows.iter().map(row).collect::<Vec<_>>(),
    });
    format!("{document:#}\n")
}

fn row(Row { key, count }: &Row) -> Value {
    json!({
        "direction": key.direction(),
        "unit": key.unit.name(),
        "verdict": key.verdict.name(),
        "port": key.verdict.port().map(crate::types::Port::get),
        "reason": key.reason_word(),
        "comment": key.reason,
        "count": count,
    })
}
