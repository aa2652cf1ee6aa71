//! Sources of options, and their precedence. Only dry runs: these may read the network namespace of the
//! machine.

use std::process::Command;

use crate::SIDETRACK;
use crate::program::Run;
use crate::temporary::Temporary;

fn dry_run(options: &[&str]) -> Run {
    Run::of(Command::new(SIDETRACK).args(["apply", "--dry-run"]).args(options))
}

/// The ports that a dry run redirects to: inbound, outbound.
fn ports(run: &Run) -> (String, String) {
    let port = |comment| {
        let line = run
            .stdout
            .lines()
            .find(|line| line.contains(comment))
            .unwrap_or_else(|| panic!("{run:?}"));
        line.split_once("redirect to :")
            .expect("a redirection")
            .1
            .chars()
            .take_while(char::is_ascii_digit)
            .collect()
    };
    (port("inbound, to the proxy"), port("outbound, to the proxy"))
}

#[test]
fn flag_overrides_variable_overrides_file_overrides_default() {
    let file = Temporary::new("precedence.yaml", "proxyInboundPort: 3\nproxy-outbound-port: 4\n");
    let run = |flags: &[&str], variables: &[(&str, &str)]| {
        let mut command = Command::new(SIDETRACK);
        command
            .args(["apply", "--dry-run"])
            .args(flags)
            .envs(variables.iter().copied());
        ports(&Run::of(&mut command).succeeded())
    };
    let variable = ("SIDETRACK_PROXY_INBOUND_PORT", "2");
    let config = ["--config", file.path()];
    let flag = ["--proxy-inbound-port", "1"];
    let is = |one: &str, other: &str| (one.to_owned(), other.to_owned());
    assert_eq!(run(&[], &[]), is("15006", "15001"));
    assert_eq!(run(&config, &[]), is("3", "4"));
    assert_eq!(run(&config, &[variable]), is("2", "4"));
    assert_eq!(run(&[config, flag].concat(), &[variable]), is("1", "4"));
    assert_eq!(run(&[], &[variable, ("SIDETRACK_CONFIG", file.path())]), is("2", "4"));
}

#[test]
fn malformed_value_is_an_error_even_if_overridden() {
    let mut command = Command::new(SIDETRACK);
    command
        .args(["apply", "--dry-run", "--proxy-uid", "5"])
        .env("SIDETRACK_PROXY_UID", "five");
    Run::of(&mut command).failed(2, &["SIDETRACK_PROXY_UID"]);
}

#[test]
fn users_and_groups_may_be_given_by_name() {
    let run = dry_run(&["--proxy-uid", "daemon", "--proxy-gid", "daemon"]).succeeded();
    assert!(
        run.stdout.contains("meta skuid 1 return") && run.stdout.contains("meta skgid 1 return"),
        "{run:?}"
    );
    dry_run(&["--proxy-uid", "no-such-user"]).failed(2, &["no-such-user"]);
}
