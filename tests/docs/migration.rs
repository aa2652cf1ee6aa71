//! docs/migration.md: flags that it lists as accepted are accepted, and others are not.

use std::collections::BTreeMap;

use sidetrack::mesh::peers::PEER_FLAGS;
use sidetrack::options::table::OPTIONS;

use crate::page;

/// The option of `sidetrack apply` that a flag is, if it is one.
fn option_of(flag: &str) -> Option<String> {
    let bare = flag.strip_prefix("--")?;
    let option = OPTIONS
        .iter()
        .find(|option| option.name == bare || option.aliases.contains(&bare));
    if let Some(option) = option {
        return Some(format!("--{}", option.name));
    }
    // Flags that are no options: --netns and the like.
    let command = sidetrack::cli::command();
    let apply = command.find_subcommand("apply").expect("apply");
    let mut flags = apply.get_arguments().filter_map(clap::Arg::get_long);
    flags.find(|known| *known == bare).map(|known| format!("--{known}"))
}

/// The cells of the rows of tables, without the marks of code.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| "));
    rows.map(|row| row.split('|').map(|cell| cell.trim().trim_matches('`')).collect())
}

#[test]
fn table_of_accepted_flags_matches_the_code() {
    let pages = page::all();
    let page = pages
        .iter()
        .find(|page| page.name == "docs/migration.md")
        .expect("docs/migration.md");
    let mut aliases: BTreeMap<&str, bool> = OPTIONS
        .iter()
        .flat_map(|option| option.aliases)
        .map(|alias| (*alias, false))
        .collect();
    let mut count = 0;
    for row in rows(&page.text) {
        let (theirs, ours, taken) = match row.as_slice() {
            [theirs, ours, "yes", ..] => (theirs, ours, true),
            [theirs, ours, "no", ..] => (theirs, ours, false),
            _ => continue,
        };
        count += 1;
        let found = option_of(theirs);
        if taken {
            assert_eq!(found.as_deref(), Some(*ours), "{theirs}");
            aliases
                .entry(theirs.trim_start_matches('-'))
                .and_modify(|seen| *seen = true);
        } else {
            assert_eq!(found, None, "{theirs} is taken");
            let exists = ours.is_empty() || ours.starts_with("SIDETRACK") || option_of(ours).is_some();
            assert!(exists, "{theirs}: there is no {ours}");
        }
    }
    assert!(count > 45, "{count}");
    let missing: Vec<_> = aliases.iter().filter(|(_, seen)| !**seen).collect();
    assert!(
        missing.is_empty(),
        "docs/migration.md does not tell whose these are: {missing:?}"
    );
}

#[test]
fn flags_of_the_installer_exist() {
    let pages = page::all();
    let page = pages
        .iter()
        .find(|page| page.name == "docs/migration.md")
        .expect("docs/migration.md");
    let command = sidetrack::cli::command();
    let install = command
        .find_subcommand("node")
        .and_then(|node| node.find_subcommand("install"))
        .expect("install");
    let (_, table) = page
        .text
        .split_once("| `sidetrack node install` | |\n")
        .expect("its table");
    let (table, _) = table.split_once("\n\n").expect("its end");
    let flags: Vec<_> = rows(table).filter_map(|row| row[1].strip_prefix("--")).collect();
    assert!(flags.len() > 5, "{flags:?}");
    for flag in flags {
        assert!(
            install
                .get_arguments()
                .any(|argument| argument.get_long() == Some(flag)),
            "--{flag}"
        );
    }
}

/// The error for a refused flag names the replacement that the page names.
#[test]
fn table_of_replacements_matches_the_errors() {
    let pages = page::all();
    let page = pages
        .iter()
        .find(|page| page.name == "docs/migration.md")
        .expect("docs/migration.md");
    let mut program = "";
    let mut told = Vec::new();
    for line in page.text.lines().filter_map(|line| line.strip_prefix("| ")) {
        let cells: Vec<&str> = line.trim_end_matches(" |").split('|').map(str::trim).collect();
        let bare = |cell: usize| cells[cell].trim_matches('`');
        match cells.get(1..3) {
            Some(["`sidetrack apply`", "Taken as it is"]) => program = bare(0),
            Some([_, "no"]) if bare(0).starts_with('-') => {
                told.push((program, bare(0), bare(1), cells.get(3).copied().unwrap_or_default()));
            }
            _ => {}
        }
    }
    let known = PEER_FLAGS.iter();
    let known: Vec<_> = known
        .map(|peer| (peer.program, peer.flag, peer.instead, peer.note))
        .collect();
    assert_eq!(told, known);
}
