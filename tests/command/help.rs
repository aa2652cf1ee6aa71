//! Help, man pages and completions: generated from one definition, complete for each command.

use std::collections::BTreeSet;
use std::process::Command;

use crate::SIDETRACK;
use crate::common::output_of;
use crate::man;
use crate::program::Run;

/// The lines of one screen.
const LINES: usize = 48;
const COLUMNS: usize = 100;

/// Each command, by its words, with its flags; without a word, the program itself.
fn commands() -> Vec<(Vec<String>, Vec<String>)> {
    let mut found = Vec::new();
    collect(&sidetrack::cli::command(), &[], &mut found);
    assert!(found.len() > 5, "{found:?}");
    found
}

fn collect(command: &clap::Command, words: &[String], found: &mut Vec<(Vec<String>, Vec<String>)>) {
    let flags = command
        .get_arguments()
        .filter_map(clap::Arg::get_long_and_visible_aliases)
        .flatten();
    found.push((words.to_vec(), flags.map(|flag| format!("--{flag}")).collect()));
    for inner in command.get_subcommands() {
        collect(inner, &[words, &[inner.get_name().to_owned()]].concat(), found);
    }
}

fn help(words: &[String]) -> String {
    output_of(Command::new(SIDETRACK).args(words).arg("--help"))
}

/// The flags that a text names.
fn flags(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "-_".contains(c)));
    words.filter(|word| word.starts_with("--")).collect()
}

#[test]
fn help_of_every_command_fits_one_screen_with_an_example_and_names_every_flag() {
    for (words, wanted) in commands() {
        let help = help(&words);
        let widest = help.lines().map(|line| line.chars().count()).max().unwrap_or_default();
        let lines = help.lines().count();
        assert!(lines <= LINES, "{words:?} has {lines} lines\n{help}");
        assert!(widest <= COLUMNS, "{words:?} is {widest} wide\n{help}");
        assert!(help.contains("Example"), "{words:?} has no example\n{help}");
        let named = flags(&help);
        assert!(
            wanted.iter().all(|flag| named.contains(flag.as_str())),
            "{words:?}\n{help}"
        );
    }
}

#[test]
fn help_explains_every_flag_of_every_command() {
    for (words, wanted) in commands() {
        let explained = output_of(Command::new(SIDETRACK).arg("help").args(&words));
        for flag in &wanted {
            let line = explained.lines().position(|line| flags(line).contains(flag.as_str()));
            let line = line.unwrap_or_else(|| panic!("{words:?}: {flag} is not explained\n{explained}"));
            // The explanation is on the same line or the next one.
            let said: String = explained
                .lines()
                .skip(line)
                .take(2)
                .flat_map(|line| line.split("  "))
                .collect();
            assert!(
                said.len() > flag.len() + 10,
                "{words:?}: {flag} is not explained\n{explained}"
            );
        }
        assert!(!explained.contains("explains these"), "{explained}");
    }
    let run = Run::of(Command::new(SIDETRACK).args(["help", "node", "nonsense"]));
    run.failed(2, &["there is no such command"]);
}

#[test]
fn examples_use_commands_and_flags_that_exist() {
    let commands = commands();
    for (words, _) in &commands {
        let help = help(words);
        let (_, examples) = help.split_once("Example").expect("an example");
        for example in examples.split("sidetrack ").skip(1) {
            let words: Vec<&str> = example.lines().next().unwrap_or_default().split(' ').collect();
            let fits = |(path, _): &&(Vec<String>, Vec<String>)| {
                !path.is_empty()
                    && path.len() <= words.len()
                    && path.iter().zip(&words).all(|(one, other)| one == other)
            };
            let known = commands.iter().filter(fits).max_by_key(|(path, _)| path.len());
            let (_, known) = known.unwrap_or_else(|| panic!("no such command: {example}"));
            for flag in words.iter().filter(|word| word.starts_with("--")) {
                assert!(known.iter().any(|known| known == flag), "no such flag: {example}");
            }
        }
    }
}

#[test]
fn every_command_has_a_man_page_with_every_flag() {
    let pages = man::pages(&sidetrack::cli::command()).expect("pages");
    for (words, flags) in commands() {
        let name = format!("{}.1", [&["sidetrack".to_owned()][..], &words].concat().join("-"));
        let (_, page) = pages
            .iter()
            .find(|(page, _)| *page == name)
            .unwrap_or_else(|| panic!("no {name}"));
        let page = String::from_utf8_lossy(page).replace("\\-", "-");
        for flag in flags {
            assert!(page.contains(&flag), "{name} does not explain {flag}");
        }
    }
}

/// The output of a shell that has loaded the completion script.
fn completed(shell: &str, arguments: &[&str]) -> String {
    let script = output_of(Command::new(SIDETRACK).args(["completions", shell]));
    for (words, flags) in commands() {
        for word in words.iter().chain(&flags) {
            let bare = word.trim_start_matches('-');
            assert!(script.contains(bare), "{shell} does not complete {word}");
        }
    }
    let path = std::env::temp_dir().join(format!("sidetrack-{}.{shell}", std::process::id()));
    std::fs::write(&path, script).expect("a script");
    let printed = output_of(Command::new(shell).args(arguments).env("SCRIPT", &path));
    std::fs::remove_file(path).expect("the script");
    printed
}

#[test]
fn bash_completes_commands_and_flags() {
    let complete = "source $SCRIPT; words() { COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); \
                    _sidetrack sidetrack \"${!#}\" \"${@: -2:1}\"; echo \"${COMPREPLY[@]}\"; }; \
                    words sidetrack appl; words sidetrack apply --proxy-in; words sidetrack lint --ign";
    assert_eq!(
        completed("bash", &["-c", complete]),
        "apply\n--proxy-inbound-port\n--ignore\n"
    );
}

#[test]
fn fish_completes_commands_and_flags() {
    let complete = "source $SCRIPT; complete -C 'sidetrack appl'; complete -C 'sidetrack apply --proxy-in'";
    let printed = completed("fish", &["--no-config", "-c", complete]);
    let words: Vec<&str> = printed.lines().filter_map(|line| line.split('\t').next()).collect();
    assert_eq!(words, ["apply", "--proxy-inbound-port"]);
}

#[test]
fn zsh_accepts_the_completion_script() {
    let read = "autoload -U compinit && compinit -u -D && source $SCRIPT && echo $_comps[sidetrack]";
    assert_eq!(completed("zsh", &["-f", "-c", read]), "_sidetrack\n");
}
