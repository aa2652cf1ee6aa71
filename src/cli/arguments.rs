//! What clap knows of the command line; the options come from their table.

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{completions, help, istio_iptables, node};
use crate::options::problem::environment_name;
use crate::options::table::{Group, OPTIONS, OptionSpec, Scope};

/// The command line. The arguments of a command are built only once it is the one that was typed, or help is wanted.
pub fn command() -> Command {
    let deferred = |name: &'static str, about: &'static str, arguments: fn(Command) -> Command| {
        Command::new(name).about(about).defer(arguments)
    };
    let commands = [
        deferred(
            "apply",
            "Redirects the TCP traffic of a network namespace to its proxy",
            apply,
        ),
        deferred(
            "check",
            "Says whether what is installed is what apply would install, and what differs",
            check,
        ),
        deferred(
            "cleanup",
            "Removes all that sidetrack put into a network namespace, and nothing else",
            cleanup,
        ),
        deferred(
            "explain",
            "Says what becomes of a packet, and which rules say so",
            explain,
        ),
        deferred(
            "graph",
            "Draws the way of packets through the rules that applying would write",
            graph,
        ),
        deferred(
            "lint",
            "Looks at Kubernetes manifests for what defeats redirection",
            lint,
        ),
        node::command(),
        deferred(
            "probe",
            "Proves an installed redirection by making connections through it",
            probe,
        ),
        istio_iptables::command(),
        completions::command(),
        help::command(),
    ];
    Command::new("sidetrack")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Puts a pod's TCP traffic through its sidecar proxy")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommands(commands)
        .after_help("Example: sidetrack apply --dry-run")
}

fn apply(command: Command) -> Command {
    command
        .after_help("Example: sidetrack apply --exclude-outbound-ports 3306,6379 --exclude-inbound-ports 22")
        .arg(netns())
        .arg(persist("Apply at every boot, too: on a host with systemd"))
        .arg(config())
        .args(options(|_| true))
        .arg(verbose())
}

fn check(command: Command) -> Command {
    command
        .disable_help_subcommand(true)
        .after_help(
            "The options are those of apply. It exits with 0 where all is as planned, and with 3 otherwise.\n\
             Examples: sidetrack check --netns pod --exclude-outbound-ports 3306,6379\n          \
             sidetrack check istio-iptables -p 15001 -z 15006 -b '*'",
        )
        .arg(netns())
        .arg(config())
        .args(options(|option| option.scope != Scope::DryRun))
        .arg(json().global(true))
        .arg(verbose())
        .subcommand(istio_iptables::command().about("Compares with what istio-iptables with these flags would install"))
}

fn explain(command: Command) -> Command {
    const PACKET: &str = "Packet";
    const RULES: &str = "Rules";
    let word = |name: &'static str, help: &'static str| Arg::new(name).required(true).help(help);
    let value = |name: &'static str, value: &'static str, heading: &'static str, help: &'static str| {
        let argument = Arg::new(name).long(name).value_name(value);
        argument.allow_hyphen_values(true).help_heading(heading).help(help)
    };
    let switch = |name: &'static str, heading: &'static str, help: &'static str| {
        let argument = Arg::new(name).long(name).action(ArgAction::SetTrue);
        argument.help_heading(heading).help(help)
    };
    command
        .disable_help_subcommand(true)
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
            "Take annotations and addresses of this pod; - is standard input",
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
            "Follow the rules of a saved dry run in JSON; - is standard input",
        ))
        .arg(switch("from-kernel", RULES, "Follow the rules that are installed"))
        .arg(json())
        .arg(netns())
        .arg(config())
        .args(options(|option| option.scope != Scope::DryRun))
        .arg(verbose())
        .subcommand(
            istio_iptables::command()
                .about("Explains what istio-iptables with these flags would install")
                .hide(true),
        )
}

fn cleanup(command: Command) -> Command {
    command
        .after_help("Example: sidetrack cleanup --netns pod")
        .arg(netns())
        .arg(persist("Apply at no boot any more, too"))
        .args(options(|option| option.scope == Scope::Logging))
        .arg(verbose())
}

fn graph(command: Command) -> Command {
    command
        .after_help("Example: sidetrack graph --format svg --redirect-dns > graph.svg")
        .arg(
            Arg::new("format")
                .long("format")
                .value_name("FORMAT")
                .default_value(super::graph::FORMATS[0].0)
                .value_parser(super::graph::FORMATS.map(|(name, _)| name))
                .hide_default_value(true)
                .hide_possible_values(true)
                .help("mermaid for Markdown, dot for Graphviz, or svg [mermaid]"),
        )
        .arg(config())
        .args(options(says_nothing_of_applying))
        .arg(verbose())
}

fn lint(command: Command) -> Command {
    command
        .after_help(
            "Exit codes: 0 nothing found, 3 findings, 2 a file cannot be read.\n\
             Example: kubectl get deployments -A -o yaml | sidetrack lint -",
        )
        .arg(
            Arg::new("files")
                .value_name("FILE")
                .num_args(1..)
                .required(true)
                .help("YAML or JSON, of any number of documents; - is standard input"),
        )
        .arg(json())
        .arg(
            Arg::new("ignore")
                .long("ignore")
                .value_name("CODES")
                .action(ArgAction::Append)
                .help("Leave out the findings of these codes, such as ST303,ST401"),
        )
        .arg(config())
        .args(options(says_nothing_of_applying))
        .arg(verbose())
}

fn probe(command: Command) -> Command {
    command
        .after_help(
            "Give the options that the redirection was applied with.\n\
             Exit codes: 0 all passed, 3 some failed, 1 some could not be made.\n\
             Example: sidetrack probe --netns /proc/4321/ns/net --exclude-outbound-ports 3306,6379",
        )
        .arg(netns())
        .arg(config())
        .args(options(says_nothing_of_applying))
        .arg(
            Arg::new("timeout")
                .long("timeout")
                .value_name("DURATION")
                .default_value("5s")
                .hide_default_value(true)
                .help("How long to wait for connections that get no answer [5s]")
                .help_heading(Group::Run.heading()),
        )
        .arg(json())
        .arg(verbose())
}

/// Whether an option matters to commands that only want to know what the rules would be.
fn says_nothing_of_applying(option: &OptionSpec) -> bool {
    matches!(option.scope, Scope::Pod | Scope::Logging)
}

/// The options that are `wanted`.
fn options(wanted: fn(&OptionSpec) -> bool) -> impl Iterator<Item = Arg> {
    OPTIONS.iter().filter(move |option| wanted(option)).map(argument)
}

fn json() -> Arg {
    Arg::new("json")
        .long("json")
        .action(ArgAction::SetTrue)
        .help("Print the result as JSON")
        .help_heading(Group::Run.heading())
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

fn persist(help: &'static str) -> Arg {
    let argument = Arg::new("persist").long("persist").action(ArgAction::SetTrue);
    argument.help(help).help_heading(Group::Run.heading())
}

/// `-v`.
pub fn verbose() -> Arg {
    Arg::new("verbose")
        .short('v')
        .long("verbose")
        .action(ArgAction::Count)
        .help("Log more; twice for even more")
        .help_heading(Group::Run.heading())
}

/// An option of the table, as clap knows it.
pub fn argument(option: &'static OptionSpec) -> Arg {
    let argument = Arg::new(option.name)
        .long(option.name)
        .aliases(option.aliases)
        .help_heading(option.group.heading());
    let help = match (option.default)().as_str() {
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

/// What is wrong with a command line, without the usage that follows it.
pub fn first_line(error: &clap::Error) -> Vec<String> {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    vec![line.strip_prefix("error: ").unwrap_or(line).to_owned()]
}
