//! README.md and the pages of `docs`: every command in them is run, and what they show is what is printed.
//!
//! Blocks in `sh` hold commands; those in `console` commands after `$ `, with what they print: a line or part of a line
//! that is `…` stands for any. Comments before a block, which the page does not show, say more:
//! `<!-- lab: COMMANDS -->`, commands to run before it; `<!-- rules: those asked about -->`: each command finds the rules
//! that its options would write; `<!-- exit: CODE -->`, how its commands end. A block in
//! `yaml` that begins with `# NAME.yaml` is a file there. `UPDATE_README=1` writes what is printed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::resume_unwind;
use std::path::Path;
use std::thread;

use crate::generated;
use crate::page::{self, Block, Page, ROOT};
use crate::shell::{Ended, Shell, is_whole};

/// Commands that are not run here, by what they begin with, and why. Scripts must be there all the same, and names of
/// tests must be some.
const ELSEWHERE: &[(&str, &str)] = &[
    (
        "sidetrack apply --persist",
        "needs a machine that systemd boots: the tests of hosts run it on one",
    ),
    ("sidetrack cleanup --persist", "the same"),
    (
        "sidetrack apply --config /etc/sidetrack/config.yaml --proxy-cgroup",
        "needs a service that systemd started: the tests of the proxy's cgroup make one of their own",
    ),
    (
        "sidetrack check --config /etc/sidetrack/config.yaml --proxy-cgroup",
        "the same",
    ),
    ("scripts/bench", "takes minutes; a test checks what it compares"),
    ("scripts/book", "installs mdBook; `.ci/run` runs it"),
    ("scripts/build", "`scripts/test` begins with it"),
    ("scripts/deb", "a test of its own installs the package"),
    ("scripts/demo", "`.ci/run` runs it"),
    ("scripts/fuzz", "`.ci/run` runs it"),
    ("scripts/image", "the test of the image runs it"),
    ("scripts/oracle", "`scripts/test` runs it"),
    ("scripts/test", "this test is one of those that it runs"),
    (".ci/run", "this test is one of those that it runs"),
    ("CONNECTIONS=", "a test with another number of rounds"),
    ("PACKETS=", "a test with another number of rounds"),
    ("cargo ", "builds the tests, this one among them"),
    (
        "skopeo copy",
        "asks a registry; the archive is read back by podman in the test of the image",
    ),
    ("podman ", "the tests of the image and of the locked pod run it"),
    ("apt-get ", "installs packages: `scripts/setup` does"),
    ("git clone", "asks another host"),
    ("dpkg ", "installs a package: the test of the package does"),
    ("systemctl ", "needs systemd"),
];

/// A command of a page.
struct Command<'p> {
    page: &'p str,
    line: usize,
    text: String,
    /// How it should end.
    exit: i32,
    /// What it should print, where the page shows that.
    shown: Option<String>,
}

/// The commands of a block that holds some.
fn commands<'p>(page: &'p Page, block: &Block) -> Vec<Command<'p>> {
    let console = match block.language.as_str() {
        "sh" => false,
        "console" => true,
        _ => return Vec::new(),
    };
    let mut commands: Vec<Command> = Vec::new();
    let mut pending = String::new();
    for (number, line) in block.text.lines().enumerate() {
        let part = if console && pending.is_empty() {
            line.strip_prefix("$ ")
        } else {
            Some(line)
        };
        match (part, commands.last_mut()) {
            (Some(part), _) => pending += part,
            (None, Some(command)) => {
                let shown = command.shown.get_or_insert_default();
                *shown += &format!("{line}\n");
                continue;
            }
            (None, None) => panic!("{}:{}: begins with no command", page.name, block.line),
        }
        if !is_whole(&pending) {
            pending.push('\n');
            continue;
        }
        let text = std::mem::take(&mut pending);
        if !text.trim().is_empty() {
            commands.push(Command {
                page: &page.name,
                line: block.line + number,
                text,
                exit: block.exit,
                shown: console.then(String::new),
            });
        }
    }
    assert_eq!(pending, "", "{}:{}: a command without end", page.name, block.line);
    commands
}

/// Programs of meshes, whose flags are read as Go reads them.
const PROGRAMS: [&str; 3] = ["istio-iptables", "linkerd-proxy-init", "kuma-init"];

/// The apply with the same options, before a command that reads rules.
fn applied_before(command: &str) -> Option<String> {
    let command = command.split(['#', '|']).next().unwrap_or_default().trim();
    let rest = command.strip_prefix("sidetrack ")?;
    let (verb, options) = rest.split_once(' ').unwrap_or((rest, ""));
    if !told_of_rules(verb, options) {
        return None;
    }
    if PROGRAMS.iter().any(|program| options.starts_with(program)) {
        return Some(format!("sidetrack {options}"));
    }
    let mut kept = Vec::new();
    let mut words = options.split_whitespace();
    while let Some(word) = words.next() {
        match (verb, word) {
            (_, "--json") => {}
            (_, "--timeout") => drop(words.next()),
            ("explain", "--netns") => kept.extend([word, words.next().unwrap_or_default()]),
            ("explain", _) => {}
            _ => kept.push(word),
        }
    }
    Some(format!("sidetrack apply {}", kept.join(" ")))
}

fn told_of_rules(verb: &str, options: &str) -> bool {
    matches!(verb, "check" | "probe") || verb == "explain" && options.contains("--from-kernel")
}

/// The reason why a command is not run here.
fn elsewhere(command: &str) -> Option<&'static str> {
    let begins = |(begin, _): &&(&str, &str)| command.starts_with(begin);
    ELSEWHERE.iter().find(begins).map(|(_, reason)| *reason)
}

/// The mismatches of a page's commands.
fn run(page: &Page) -> Vec<String> {
    let mut shell = Shell::of(page);
    let (mut waiting, mut preparing) = (Vec::new(), Vec::new());
    for block in &page.blocks {
        prepare(&mut shell, &mut preparing, block.lab.clone());
        for command in commands(page, block) {
            if elsewhere(&command.text).is_some() {
                continue;
            }
            if block.finds_rules {
                prepare(&mut shell, &mut preparing, applied_before(&command.text));
            }
            let number = shell.add(&command.text);
            waiting.push((command, number));
        }
    }
    for (line, text) in page.inline.iter().filter(|(_, text)| is_instruction(text)) {
        if elsewhere(text).is_none() {
            let command = Command {
                page: &page.name,
                line: *line,
                text: text.clone(),
                exit: 0,
                shown: None,
            };
            prepare(&mut shell, &mut preparing, applied_before(text));
            let number = shell.add(text);
            waiting.push((command, number));
        }
    }
    if waiting.is_empty() {
        return Vec::new();
    }
    let ended = shell.run();
    let mut wrong: Vec<String> = preparing
        .iter()
        .filter(|(_, number)| ended[number].code != 0)
        .map(|(text, number)| format!("{}: before a command, {text}: {}", page.name, ended[number].output))
        .collect();
    wrong.extend(
        waiting
            .iter()
            .filter_map(|(command, number)| compare(command, &ended[number])),
    );
    let updated = updated(page, &waiting, &ended);
    if updated != page.text && std::env::var_os("UPDATE_README").is_some() {
        generated::file(&page.name, &updated);
    }
    wrong
}

fn prepare(shell: &mut Shell, preparing: &mut Vec<(String, usize)>, command: Option<String>) {
    if let Some(command) = command {
        // Each part of it has to succeed.
        let number = shell.add(&format!(
            "failed=0; trap 'failed=1' ERR\n{command}\ntrap - ERR; [ $failed = 0 ]"
        ));
        preparing.push((command, number));
    }
}

/// What is wrong with how a command ended.
fn compare(command: &Command, ended: &Ended) -> Option<String> {
    let mut wrong = String::new();
    if ended.code != command.exit {
        let _ = write!(wrong, "ended with {}, not {}. ", ended.code, command.exit);
    }
    if command
        .shown
        .as_ref()
        .is_some_and(|shown| !is_like(shown, &ended.output))
    {
        wrong += "printed something else than the page shows. ";
    }
    (!wrong.is_empty()).then(|| {
        let Command { page, line, text, .. } = command;
        format!("{page}:{line}: {text}\n  {wrong}It printed:\n{}", ended.output)
    })
}

/// The page with what its commands have printed.
fn updated(page: &Page, commands: &[(Command, usize)], ended: &BTreeMap<usize, Ended>) -> String {
    let mut lines: Vec<String> = page.text.lines().map(str::to_owned).collect();
    for (command, number) in commands.iter().rev() {
        let printed = &ended[number].output;
        if let Some(shown) = command.shown.as_ref().filter(|shown| !is_like(shown, printed)) {
            let begin = command.line;
            lines.splice(begin..begin + shown.lines().count(), printed.lines().map(str::to_owned));
        }
    }
    lines.join("\n") + "\n"
}

/// Whether a text is what is shown, in which `…` stands for anything: alone in a line, for any lines.
fn is_like(shown: &str, printed: &str) -> bool {
    let parts: Vec<&str> = shown.split('…').collect();
    let [first, .., last] = parts.as_slice() else {
        return shown == printed;
    };
    let Some(mut rest) = printed.strip_prefix(first) else {
        return false;
    };
    for part in &parts[1..parts.len() - 1] {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last.trim_start_matches('\n'))
}

/// Whether code in the text is a whole command that one could type, not the name of one.
fn is_instruction(text: &str) -> bool {
    let is_placeholder =
        |word: &&str| word.contains('…') || word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase());
    let words: Vec<&str> = text.split(' ').collect();
    let is_whole = match words[0] {
        // Without --once, the installer stays.
        "sidetrack" if text.starts_with("sidetrack node install") => words.contains(&"--once"),
        "sidetrack" => words
            .iter()
            .any(|word| word.starts_with("--") || word.contains(['.', ':'])),
        "crictl" | "helm" | "install" | "kubectl" | "nft" => words.len() > 2,
        _ => false,
    };
    is_whole && !words.iter().any(is_placeholder)
}

#[test]
fn commands_in_docs_run_and_print_what_is_shown() {
    let pages = page::all();
    assert!(pages.len() > 8, "{}", pages.len());
    // On a busy machine a probe may run out of time: what fails is tried again in a fresh shell.
    let twice = |page| Some(run(page)).filter(Vec::is_empty).unwrap_or_else(|| run(page));
    let mut wrong = Vec::new();
    for pages in pages.chunks(4) {
        wrong.extend(thread::scope(|scope| {
            let runs: Vec<_> = pages.iter().map(|page| scope.spawn(|| twice(page))).collect();
            let joined = runs
                .into_iter()
                .map(|run| run.join().unwrap_or_else(|panic| resume_unwind(panic)));
            joined.flatten().collect::<Vec<_>>()
        }));
    }
    assert!(wrong.is_empty(), "{} commands:\n\n{}", wrong.len(), wrong.join("\n"));
}

/// Scripts exist, and the tests that they and cargo run exist.
#[test]
fn scripts_and_tests_in_docs_exist() {
    let tests = sources(&Path::new(ROOT).join("tests"));
    for page in page::all() {
        let blocks = page.blocks.iter().flat_map(|block| commands(&page, block));
        let blocks = blocks.map(|command| (command.line, command.text));
        for (line, text) in blocks.chain(page.inline.clone()) {
            if elsewhere(&text).is_none() {
                continue;
            }
            let words: Vec<&str> = text.split_whitespace().take_while(|word| *word != "#").collect();
            if let ["sidetrack", words @ ..] = words.as_slice() {
                let known = is_known(&sidetrack::cli::command(), &words.join(" "));
                assert!(known, "{}:{line}: {text}", page.name);
            }
            for script in words
                .iter()
                .filter(|word| word.starts_with("scripts/") || word.starts_with(".ci/"))
            {
                let is_there = Path::new(ROOT).join(script).exists();
                assert!(is_there, "{}:{line}: no {script}", page.name);
            }
            let name = match words.as_slice() {
                [.., "scripts/test", name] | [.., "--", name, "--nocapture"] | [.., "--", name] => *name,
                _ => continue,
            };
            let last = name.rsplit("::").next().unwrap_or(name);
            let named = [format!("fn {last}"), format!("_{last}"), format!("mod {last};")];
            assert!(
                last.chars().all(|c| c.is_ascii_uppercase()) || named.iter().any(|named| tests.contains(named)),
                "{}:{line}: no test is called {name}",
                page.name
            );
        }
    }
}

/// Tests that the page about what was tested names are some.
#[test]
fn tests_named_in_docs_exist() {
    let sources = sources(&Path::new(ROOT).join("tests"));
    let pages = page::all();
    let page = pages.iter().find(|page| page.name == "docs/compatibility.md");
    let names = page
        .expect("docs/compatibility.md")
        .inline
        .iter()
        .filter(|(_, text)| text.contains("::"));
    let mut count = 0;
    for (line, text) in names {
        count += 1;
        for part in text.split("::") {
            let named = [format!("fn {part}("), format!("mod {part};")];
            let exists = named.iter().any(|named| sources.contains(named));
            assert!(exists, "docs/compatibility.md:{line}: {text}: there is no {part}");
        }
    }
    assert!(count > 5, "{count}");
}

/// All Rust below a folder.
fn sources(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let text = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.expect("an entry").path();
        match path.extension() {
            _ if path.is_dir() => sources(&path),
            Some(extension) if extension == "rs" => std::fs::read_to_string(&path).expect("text"),
            _ => String::new(),
        }
    };
    entries.map(text).collect()
}

/// Commands that are only named have words and flags that exist.
#[test]
fn commands_named_in_docs_exist() {
    for page in page::all() {
        for (line, text) in &page.inline {
            if let Some(words) = text.strip_prefix("sidetrack ") {
                let place = format!("{}:{line}: {text}", page.name);
                assert!(is_known(&sidetrack::cli::command(), words), "{place}");
            }
        }
    }
}

fn is_known(command: &clap::Command, words: &str) -> bool {
    let mut command = command;
    let mut known = true;
    for word in words.split_whitespace() {
        if let Some(inner) = command.find_subcommand(word) {
            command = inner;
        } else if let Some(flag) = word.strip_prefix("--") {
            let name = flag.split('=').next().unwrap_or(flag);
            let mut flags = command
                .get_arguments()
                .filter_map(clap::Arg::get_long_and_visible_aliases)
                .flatten();
            known &= ["help", "version"].contains(&name) || flags.any(|flag| flag == name);
        } else if PROGRAMS.contains(&word) {
            return known;
        } else {
            known &= command.get_positionals().next().is_some()
                || word.chars().any(|c| !c.is_ascii_lowercase())
                || command.get_name() == "help"
                || words.contains("--");
        }
    }
    known
}

/// What pages show in JSON and YAML is some.
#[test]
fn json_and_yaml_in_docs_are_valid() {
    for page in page::all() {
        for block in &page.blocks {
            let place = format!("{}:{}", page.name, block.line);
            match block.language.as_str() {
                "json" => drop(serde_json::from_str::<serde_json::Value>(&block.text).expect(&place)),
                "yaml" => drop(
                    sidetrack::yaml::document(&block.text).unwrap_or_else(|error| panic!("{place}: {}", error.reason)),
                ),
                "sh" | "console" | "text" | "nft" | "diff" | "dockerfile" | "ini" => {}
                other => panic!("{place}: a block in {other:?}"),
            }
        }
    }
}

#[test]
fn shown_output_is_compared() {
    assert!(is_like("a\nb\n", "a\nb\n"));
    assert!(!is_like("a\nb\n", "a\nc\n"));
    assert!(is_like("a\n…\nd\n", "a\nb\nc\nd\n"));
    assert!(is_like("took … ms\n", "took 3 ms\n"));
    assert!(!is_like("took … ms\n", "took 3 s\n"));
}
