//! docs/reference.md: its tables of options and commands are written from the code, the others compared with it.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;
use sidetrack::options::problem::environment_name;
use sidetrack::options::table::{Group, OPTIONS, OptionSpec};
use sidetrack::render;

use crate::common::output_of;
use crate::plans::plan;
use crate::{SIDETRACK, cases};
use crate::{generated, page};

const PAGE: &str = "docs/reference.md";

fn text() -> String {
    std::fs::read_to_string(std::path::Path::new(page::ROOT).join(PAGE)).expect("docs/reference.md")
}

/// The options: a line for each, under the heading of its group.
#[test]
fn table_of_options_is_generated() {
    let mut table = "| Flag | Variable | Key | Default | Meaning |\n|---|---|---|---|---|\n".to_owned();
    let mut group: Option<Group> = None;
    for option in OPTIONS {
        if group != Some(option.group) {
            table += &format!("| **{}** | | | | |\n", option.group.heading());
            group = Some(option.group);
        }
        let value = option.value_name.map(|name| format!(" {name}")).unwrap_or_default();
        let default = match (option.default)().as_str() {
            "" => String::new(),
            default => format!(" `{default}`"),
        };
        let OptionSpec { name, help, .. } = option;
        let values: Vec<String> = (option.names)().iter().map(|name| format!("`{name}`")).collect();
        let values = match values.is_empty() {
            true => String::new(),
            false => format!(" ({})", values.join(", ")),
        };
        let variable = environment_name(name);
        table += &format!(
            "| `--{name}{value}` | `{variable}` | `{}` |{default} | {help}{values} |\n",
            generated::camel_case(name)
        );
    }
    generated::part(PAGE, "options", &table);
}

#[test]
fn table_of_other_names_is_generated() {
    let mut table = "| Flag | Is |\n|---|---|\n".to_owned();
    for option in OPTIONS.iter().filter(|option| !option.aliases.is_empty()) {
        let aliases: Vec<String> = option.aliases.iter().map(|alias| format!("`--{alias}`")).collect();
        table += &format!("| {} | `--{}` |\n", aliases.join(", "), option.name);
    }
    generated::part(PAGE, "aliases", &table);
}

/// Every command, what it is for, and its flags that are no options of `apply`.
#[test]
fn table_of_commands_is_generated() {
    let mut table = "| Command | What it does | Options of `apply` | Its own |\n|---|---|---|---|\n".to_owned();
    let root = sidetrack::cli::command();
    for command in root.get_subcommands() {
        rows(command, "sidetrack", &mut table);
    }
    generated::part(PAGE, "commands", &table);
}

fn rows(command: &clap::Command, before: &str, table: &mut String) {
    let name = format!("{before} {}", command.get_name());
    let of_others = [
        ("istio-iptables", "flags-and-variables"),
        ("kuma-init", "flags-configuration-and-variables"),
        ("linkerd-proxy-init", "flags"),
    ];
    if let Some((page, part)) = of_others.iter().find(|(page, _)| command.get_name() == *page) {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        *table += &format!("| `{name}` | {about} | | [flags of its own]({page}.md#{part}) |\n");
        return;
    }
    let is_option = |name: &str| OPTIONS.iter().any(|option| option.name == name);
    let flags: BTreeSet<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
    let options = flags.iter().filter(|name| is_option(name)).count();
    let options = match (options, OPTIONS.len()) {
        (0, _) => "none".to_owned(),
        (some, all) if some == all => "all".to_owned(),
        (some, _) if some < 5 => {
            let listed: Vec<String> = flags
                .iter()
                .filter(|name| is_option(name))
                .map(|name| format!("`--{name}`"))
                .collect();
            listed.join(", ")
        }
        (_, _) => {
            let missing = OPTIONS.iter().filter(|option| !flags.contains(option.name));
            let missing: Vec<String> = missing.map(|option| format!("`--{}`", option.name)).collect();
            format!("all but {}", missing.join(", "))
        }
    };
    let own = command.get_arguments().filter(|argument| {
        argument
            .get_long()
            .is_none_or(|name| !is_option(name) && name != "help")
    });
    let own: Vec<String> = own
        .map(|argument| match argument.get_long() {
            Some(flag) => format!("`--{flag}`"),
            None => format!("`{}`", argument.get_id()),
        })
        .collect();
    if !command.has_subcommands() || command.get_name() != "node" {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        *table += &format!("| `{name}` | {about} | {options} | {} |\n", own.join(", "));
    }
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        rows(inner, &name, table);
    }
}

#[test]
fn each_flag_is_documented() {
    let text = text();
    for command in ["apply", "check", "cleanup", "probe"] {
        // Flags of other programs have pages of their own.
        let help = help(command);
        let own: Vec<&str> = help.lines().filter(|line| !line.contains("kuma-init")).collect();
        assert_flags_are_described(&own.join("\n"), &["--help"], PAGE, &text);
    }
}

#[test]
fn every_field_of_the_json_plan_is_described() {
    let text = text();
    let (_, schema) = text.split_once("\n## JSON output\n").expect("the schema");
    let (schema, _) = schema.split_once("\n## ").expect("its end");
    let mut fields = BTreeSet::new();
    for (_, options) in cases::all_options() {
        let document = render::json::document(&plan(options));
        collect_fields(&serde_json::from_str(&document).expect("JSON"), &mut fields);
    }
    assert!(fields.len() > 20, "{fields:?}");
    assert_are_described(&fields, PAGE, schema);
}

/// What a command says about itself.
pub fn help(command: &str) -> String {
    output_of(Command::new(SIDETRACK).args([command, "--help"]))
}

/// The flags of every command, which docs/reference.md describes once.
pub const COMMON_FLAGS: [&str; 4] = ["--help", "--verbose", "--log-level", "--log-format"];

/// A part of a page says something about each flag that a help names, but for these.
pub fn assert_flags_are_described(help: &str, but: &[&str], page: &str, text: &str) {
    let words = help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    let flags: BTreeSet<&str> = words.filter(|word| word.starts_with("--")).collect();
    assert!(flags.contains("--help") && flags.len() > COMMON_FLAGS.len(), "{help}");
    for flag in flags.into_iter().filter(|flag| !but.contains(flag)) {
        let described = [format!("`{flag}`"), format!("`{flag} ")];
        assert!(
            described.iter().any(|words| text.contains(words)),
            "{page} says nothing about {flag}"
        );
    }
}

/// A part of a page says something about each of these fields.
pub fn assert_are_described(fields: &BTreeSet<String>, page: &str, text: &str) {
    for field in fields {
        let described = [format!("`{field}`"), format!("\"{field}\":")];
        assert!(
            described.iter().any(|words| text.contains(words)),
            "{page} says nothing about the field {field}"
        );
    }
}

/// The names of all fields of an object, and of those in it.
pub fn collect_fields(value: &Value, fields: &mut BTreeSet<String>) {
    match value {
        Value::Object(entries) => {
            fields.extend(entries.keys().cloned());
            entries.values().for_each(|value| collect_fields(value, fields));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_fields(item, fields)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn shown_rule_is_valid() {
    let text = text();
    let (_, rest) = text.split_once("```json\n").expect("a rule");
    let (rule, _) = rest.split_once("```").expect("its end");
    let rule: Value = serde_json::from_str(rule).expect("JSON");
    let document: Value = serde_json::from_str(&render::json::document(&plan(&[]))).expect("JSON");
    let chains = document["chains"].as_array().expect("chains");
    let mut rules = chains
        .iter()
        .flat_map(|chain| chain["rules"].as_array().expect("rules"));
    assert!(rules.any(|one| *one == rule), "not a rule: {rule}");
}
