//! Plans from options, as the program makes them.

use std::collections::HashMap;

use sidetrack::facts::Facts;
use sidetrack::mesh;
use sidetrack::options::{Settings, sources, table};
use sidetrack::plan::Plan;
use sidetrack::types::NoAccounts;

/// The plan that options lead to in an ordinary pod.
pub fn plan(options: &[&str]) -> Plan {
    Plan::new(&settings(options).config, &Facts::default()).expect("a plan")
}

/// The settings that options lead to.
pub fn settings(options: &[&str]) -> Settings {
    let mut texts: HashMap<&str, Vec<String>> = HashMap::new();
    let mut words = options.iter();
    while let Some(name) = words.next() {
        let name = name
            .strip_prefix("--")
            .unwrap_or_else(|| panic!("{name} is not an option"));
        let option = table::find(name).filter(|option| option.name == name);
        let option = option.unwrap_or_else(|| panic!("no option {name}"));
        let value = match option.value_name {
            Some(_) => words.next().unwrap_or_else(|| panic!("--{name} has no value")),
            None => "true",
        };
        texts.entry(name).or_default().push(value.to_owned());
    }
    let parsed = sources::from_flags(|option| texts.get(option.name).cloned(), &NoAccounts);
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    mesh::settings(parsed.layer).expect("no contradictions")
}
