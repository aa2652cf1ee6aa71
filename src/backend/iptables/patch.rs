//! The text that turns one state of our chains into another.

use super::tables::{Chain, Jump, Table, TableName, Tables};

/// Input for `iptables-restore --noflush` that turns the state `from` into `to`; `None` if they are equal.
///
/// Each table is one commit, so a packet sees either the old or the new rules. Only chains that differ
/// are rebuilt. The jumps from a chain stay if they are as wanted and in the same positions: a foreign rule before them
/// would take effect first. Otherwise all of them are deleted and inserted at the positions in `to`.
///
/// Between two commits, some tables are old and some are new. So the rules of a policy come before everything else, and
/// go after everything else: what is not redirected meanwhile is rejected. One of the tables must still capture inbound
/// connections, so a table that stops capturing them comes after those that begin to.
pub fn patch(from: &Tables, to: &Tables) -> Option<String> {
    let nothing = Table::default();
    let loses = |name, has: fn(&Table) -> bool| {
        let has = |tables: &Tables| tables.get(name).is_some_and(has);
        has(from) && !has(to)
    };
    let mut names = TableName::ALL;
    names.sort_by_key(|name| {
        let gives_up = loses(*name, Table::intercepts) || loses(*name, Table::has_policy);
        match (*name, gives_up) {
            (TableName::Filter, false) => 0,
            (_, false) => 1,
            (_, true) if *name != TableName::Filter => 2,
            (_, true) => 3,
        }
    });
    let tables: Vec<String> = names
        .into_iter()
        .filter_map(|name| {
            table(
                name,
                from.get(name).unwrap_or(&nothing),
                to.get(name).unwrap_or(&nothing),
            )
        })
        .collect();
    (!tables.is_empty()).then(|| tables.concat())
}

/// Whether our part of the table called `name` is the same in both.
pub fn same(name: TableName, one: &Tables, other: &Tables) -> bool {
    let nothing = Table::default();
    let [one, other] = [one, other].map(|tables| tables.get(name).unwrap_or(&nothing));
    table(name, one, other).is_none()
}

fn table(name: TableName, from: &Table, to: &Table) -> Option<String> {
    let refilled: Vec<&Chain> = to
        .chains
        .iter()
        .filter(|new| from.chain(&new.name) != Some(new))
        .collect();
    let dropped: Vec<&Chain> = from.chains.iter().filter(|old| to.chain(&old.name).is_none()).collect();
    let differs = |jump: &&Jump| !from.jumps_from(&jump.from).eq(to.jumps_from(&jump.from));
    let deleted: Vec<&Jump> = from.jumps.iter().filter(differs).collect();
    let inserted: Vec<&Jump> = to.jumps.iter().filter(differs).collect();
    if refilled.is_empty() && dropped.is_empty() && deleted.is_empty() && inserted.is_empty() {
        return None;
    }

    let mut lines = vec![format!("*{}", name.as_str())];
    // Creates a chain, or empties it: only an empty chain that nothing jumps to can be deleted.
    lines.extend(
        refilled
            .iter()
            .chain(&dropped)
            .map(|chain| format!(":{} - [0:0]", chain.name)),
    );
    lines.extend(
        deleted
            .iter()
            .map(|jump| format!("{}-D {} {}", jump.spec.mark(), jump.from, jump.spec)),
    );
    lines.extend(inserted.iter().map(|jump| {
        let Jump { from, position, spec } = jump;
        format!("{}-I {from} {position} {spec}", spec.mark())
    }));
    for chain in &refilled {
        lines.extend(
            chain
                .rules
                .iter()
                .map(|spec| format!("{}-A {} {spec}", spec.mark(), chain.name)),
        );
    }
    lines.extend(dropped.iter().map(|chain| format!("-X {}", chain.name)));
    lines.push("COMMIT\n".to_owned());
    Some(lines.join("\n"))
}
