//! The rules of the meshes' own programs have no policy. Whoever asks for one beside such a program must not take the pod
//! for locked.

use std::path::Path;

use super::failure::Failure;
use super::{args, settings};
use crate::linux::accounts::AccountFiles;
use crate::options::problem::environment_name;
use crate::options::sources::{self, Parsed};
use crate::options::table::OPTIONS;
use crate::types::Accounts;

/// The options of a lock. No such program has them.
const POLICIES: [&str; 3] = ["outbound-policy", "inbound-policy", "proxy-mark"];

/// The variable that names a file of options.
const FILE: &str = "SIDETRACK_CONFIG";

/// Checks that neither the environment nor the file that it names asks for what the rules of `program` do not have.
///
/// # Errors
/// Every option that does.
pub fn checked(program: &str) -> Result<(), Failure> {
    let mut refused = of_variables(program, settings::environment(), &AccountFiles);
    if let Some(path) = args::variable(FILE) {
        let file = settings::file_at(Path::new(&path));
        refused.extend(of(program, &file, |option| format!("{FILE}: {path}: {option}")));
    }
    match refused.is_empty() {
        true => Ok(()),
        false => Err(Failure::Input(refused)),
    }
}

/// The same for the variables of an init container.
///
/// # Errors
/// Every variable that asks for it.
pub fn checked_with(program: &str, variables: &[(&str, &str)], accounts: &dyn Accounts) -> Result<(), Vec<String>> {
    let owned = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let refused = of_variables(program, owned, accounts);
    if refused.is_empty() { Ok(()) } else { Err(refused) }
}

fn of_variables(
    program: &str,
    variables: impl Iterator<Item = (String, String)>,
    accounts: &dyn Accounts,
) -> Vec<String> {
    // The program does not read the others, so they may have any value.
    let names = POLICIES.map(environment_name);
    let variables = variables.filter(|(name, _)| names.contains(name));
    of(
        program,
        &sources::from_environment(variables, accounts),
        environment_name,
    )
}

fn of(program: &str, given: &Parsed, origin: impl Fn(&str) -> String) -> Vec<String> {
    let policies = OPTIONS.iter().filter(|option| POLICIES.contains(&option.name));
    let refused = policies.filter_map(|option| {
        let (value, default) = ((option.write)(&given.layer)?, (option.default)());
        let valid = match default.as_str() {
            "" => "unset it".to_owned(),
            default => format!("only {default} is valid"),
        };
        let (name, origin) = (option.name, origin(option.name));
        (value != default).then(|| {
            format!(
                "{origin}: {value:?} cannot take effect, since the rules of {program} have no policy: {valid}, or use \
                 sidetrack apply --{name}"
            )
        })
    });
    let problems = given.problems.iter().map(ToString::to_string);
    problems.chain(refused).collect()
}
