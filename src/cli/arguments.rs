//! What clap knows of the command line; the options come from their table.

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::istio_iptables;
use crate::config::options::{Group, OPTIONS, OptionSpec};
use crate::config::problem::environment_name;

/// The whole command line.
pub fn command() -> Command {
    Command::new("sidetrack")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Puts a pod's TCP traffic through its sidecar proxy")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommand(apply())
        .subcommand(cleanup())
        .subcommand(explain())
        .subcommand(istio_iptables::command())
}

fn apply() -> Command {
    Command::new("apply")
        .about("Redirects the TCP traffic of a network namespace to its proxy")
        .after_help(
            "Each option is also the variable SIDETRACK_… of its name and a key of the file; a flag counts before a \
             variable, a variable before the file.\n\
             Example: sidetrack apply --exclude-outbound-ports 3306,6379 --exclude-inbound-ports 22",
        )
        .arg(netns())
        .arg(config())
        .args(OPTIONS.iter().map(argument))
        .arg(verbose())
}

fn explain() -> Command {
    const PACKET: &str = "Packet";
    const RULES: &str = "Rules";
    let of_the_plan = |option: &&OptionSpec| !matches!(option.name, "dry-run" | "output");
    let word = |name: &'static str, help: &'static str| Arg::new(name).required(true).help(help);
    let value = |name: &'static str, value: &'static str, heading: &'static str, help: &'static str| {
        let argument = Arg::new(name).long(name).value_name(value);
        argument.allow_hyphen_values(true).help_heading(heading).help(help)
    };
    let switch = |name: &'static str, heading: &'static str, help: &'static str| {
        let argument = Arg::new(name).long(name).action(ArgAction::SetTrue);
        argument.help_heading(heading).help(help)
    };
    Command::new("explain")
        .about("Says what becomes of a packet, and which rules say so; needs neither root nor a kernel")
        .after_help(
            "The options of apply say what the plan is; so do the flags of istio-iptables after that word.\n\
             Examples: sidetrack explain outbound tcp 10.0.0.5:443 --uid 1000 --exclude-outbound-ports 443\n          \
             sidetrack explain inbound tcp :8080 --from 10.1.2.3 --from-kernel --netns pod\n          \
             sidetrack explain outbound tcp :8080 --uid 1337 istio-iptables -i '*' -b '*'",
        )
        .arg(word(
            "DIRECTION",
            "outbound: a process of the pod sends it; inbound: it arrives",
        ))
        .arg(word("PROTOCOL", "tcp or udp"))
        .arg(word("DESTINATION", "ADDRESS:PORT; without the address, the pod's own"))
        .arg(value("uid", "UID", PACKET, "User that sends it [1000]"))
        .arg(value("gid", "GID", PACKET, "Group that sends it [as --uid]"))
        .arg(
            value(
                "source",
                "ADDRESS[:PORT]",
                PACKET,
                "Where it comes from [the pod, or some other host]",
            )
            .visible_alias("from"),
        )
        .arg(value(
            "interface",
            "NAME",
            PACKET,
            "Where it arrives, or leaves for other hosts [eth0]",
        ))
        .arg(value("mark", "MARK", PACKET, "Its mark, or that of the socket [0]"))
        .arg(value(
            "connection-state",
            "STATE",
            PACKET,
            "new, established, related or invalid [new]",
        ))
        .arg(value("pod-ip", "ADDRESSES", PACKET, "The pod's own addresses").action(ArgAction::Append))
        .arg(value(
            "pod",
            "FILE",
            RULES,
            "Take annotations and addresses of this pod, in YAML or JSON; - for standard input",
        ))
        .arg(
            value(
                "annotation",
                "NAME=VALUE",
                RULES,
                "Take this annotation, too; may be repeated",
            )
            .action(ArgAction::Append),
        )
        .arg(value(
            "plan",
            "FILE",
            RULES,
            "Follow the rules of a saved dry run (--output json); - for standard input",
        ))
        .arg(switch("from-kernel", RULES, "Follow the rules that are installed"))
        .arg(switch("json", Group::Run.heading(), "Print the explanation as JSON"))
        .arg(netns())
        .arg(config())
        .args(
            OPTIONS
                .iter()
                .filter(of_the_plan)
                .map(|option| argument(option).hide(true)),
        )
        .arg(verbose())
        .subcommand(
            istio_iptables::command()
                .about("Explains what istio-iptables with these flags would install")
                .hide(true),
        )
}

fn cleanup() -> Command {
    let logging = |option: &&OptionSpec| option.name.starts_with("log-");
    Command::new("cleanup")
        .about("Removes everything that sidetrack put into a network namespace, and nothing else")
        .after_help("Example: sidetrack cleanup --netns pod")
        .arg(netns())
        .args(OPTIONS.iter().filter(logging).map(argument))
        .arg(verbose())
}

fn config() -> Arg {
    Arg::new("config")
        .long("config")
        .value_name("FILE")
        .help("Read options from a JSON or YAML file")
        .help_heading(Group::Run.heading())
}

fn netns() -> Arg {
    Arg::new("netns")
        .long("netns")
        .value_name("PATH|NAME")
        .help("Work in this network namespace [the current one]")
        .help_heading(Group::Run.heading())
}

fn verbose() -> Arg {
    Arg::new("verbose")
        .short('v')
        .long("verbose")
        .action(ArgAction::Count)
        .help("Log more; twice for even more")
        .help_heading(Group::Run.heading())
}

fn argument(option: &'static OptionSpec) -> Arg {
    let argument = Arg::new(option.name)
        .long(option.name)
        .aliases(option.aliases)
        .help_heading(option.group.heading());
    let help = match option.default {
        "" | "false" => option.help.to_owned(),
        default => format!("{} [{default}]", option.help),
    };
    match option.value_name {
        Some(value_name) => argument
            .value_name(value_name)
            .action(ArgAction::Append)
            .allow_hyphen_values(true),
        None => argument.action(ArgAction::SetTrue),
    }
    .help(help)
}

/// The texts that flags give for an option, or none where the flag is absent, or the command does not have it.
pub fn texts(matches: &ArgMatches, option: &OptionSpec) -> Option<Vec<String>> {
    match option.value_name {
        Some(_) => {
            let texts = matches.try_get_many::<String>(option.name).ok().flatten()?;
            Some(texts.cloned().collect())
        }
        None => {
            let given = matches.try_get_one::<bool>(option.name).ok().flatten();
            (given == Some(&true)).then(|| vec!["true".to_owned()])
        }
    }
}

/// A text from a flag, or else from the variable of the option's name.
pub fn text_or_variable(matches: &ArgMatches, option: &str) -> Option<String> {
    let flag = matches.get_one::<String>(option).cloned();
    flag.or_else(|| std::env::var(environment_name(option)).ok())
}
