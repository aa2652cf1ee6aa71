//! Counted connections as a table for people.

use super::{Row, Stats, Verdict};

/// The numbers, a line for each reason: those of outbound connections after those of inbound ones.
pub fn table(stats: &Stats) -> String {
    const HEAD: [&str; 5] = ["DIRECTION", "COUNT", "UNIT", "VERDICT", "REASON"];
    let mut rows: Vec<&Row> = stats.rows.iter().collect();
    rows.sort_by_key(|row| (row.key.direction(), row.key.unit));
    let lines: Vec<[String; 5]> = std::iter::once(HEAD.map(str::to_owned))
        .chain(rows.into_iter().map(cells))
        .collect();
    let widths = [0, 1, 2, 3].map(|column| lines.iter().map(|line| line[column].len()).max().unwrap_or_default());
    let mut text = String::new();
    for [direction, count, unit, verdict, reason] in lines {
        text += &format!(
            "{direction:0$}  {count:>1$}  {unit:2$}  {verdict:3$}  {reason}\n",
            widths[0], widths[1], widths[2], widths[3]
        );
    }
    text
}

fn cells(Row { key, count }: &Row) -> [String; 5] {
    let verdict = match key.verdict {
        Verdict::Redirect(port) => format!("redirected to port {port}"),
        Verdict::Tproxy(port) => format!("passed to port {port}"),
        Verdict::Accept => "not redirected".to_owned(),
        Verdict::Drop => "dropped".to_owned(),
        Verdict::Reject => "rejected".to_owned(),
    };
    [
        key.direction().to_owned(),
        count.to_string(),
        key.unit.name().to_owned(),
        verdict,
        key.reason.clone(),
    ]
}
