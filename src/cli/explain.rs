//! `sidetrack explain`: shows what happens to a packet, and which rules decide it.

mod packets;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, IsTerminal as _};
use std::net::IpAddr;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Map, Value};

use self::packets::{Asked, Packets};
use super::failure::Failure;
use super::settings::{Around, around_pod, settings};
use super::{args, bound, front_end, invocation, output, redirection};
use crate::backend::{Namespace, choice};
use crate::linux::{interfaces, netns};
use crate::mesh::annotations::Annotations;
use crate::mesh::manifest;
use crate::mesh::pod::Pod;
use crate::mesh::policy::Policy;
use crate::mesh::verdict::{self, By, Inputs, SkipKind, Skipped, Undecided, Unseen, Verdict};
use crate::options::table::{OPTIONS, Scope};
use crate::options::{Config, Settings};
use crate::plan::Plan;
use crate::render;
use crate::simulate::packet_args::Description;
use crate::simulate::{self, Explanation, Packet, Simulation, json, text};
use crate::types::{Backend, InterfaceName};
use crate::yaml::{self, Node};

/// A request: packets, the source of the rules, and the pod.
struct Question {
    packets: Packets,
    rules: Source,
    /// The pod's addresses, if given.
    addresses: Vec<IpAddr>,
    netns: Option<String>,
}

/// The source of the rules.
enum Source {
    Options(Box<Config>),
    Pod(Verdict),
    Saved(Plan),
    Kernel,
}

/// The name of the command.
pub const NAME: &str = "explain";

/// The definition of the command line.
pub fn command() -> Command {
    Command::new(NAME)
        .about("Explain what happens to a packet, and which rules decide it")
        .defer(arguments)
}

fn arguments(command: Command) -> Command {
    const RULES: &str = "Rules";
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
            "The options of apply select the plan, or the flags of istio-iptables after that word.\n\
             Examples: sidetrack explain outbound tcp 10.0.0.5:443 --uid 1000 --exclude-outbound-ports 443\n          \
             sidetrack explain inbound tcp :8080 --from 10.1.2.3 --from-kernel --netns pod\n          \
             sidetrack explain outbound tcp :8080 --uid 1337 istio-iptables -i '*' -b '*'",
        )
        .args(packets::arguments())
        .arg(value(
            "pod",
            "FILE",
            RULES,
            "Explain the pod of this manifest; - is standard input",
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
        .arg(args::json())
        .arg(args::netns())
        .arg(args::config())
        .args(args::options(|option| option.scope != Scope::DryRun))
        .arg(args::verbose())
        .subcommands(front_end::commands("Explain").into_iter().map(|word| word.hide(true)))
}

/// Runs the command.
pub fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let mut question = question(matches)?;
    if let Some(netns) = question.netns.clone() {
        match &mut question.rules {
            Source::Options(config) => redirection::settle_name_servers(config, &netns)?,
            Source::Pod(Verdict::Redirected(redirected)) => {
                redirection::settle_name_servers(&mut redirected.settings.config, &netns)?;
            }
            Source::Pod(Verdict::Skipped(_)) | Source::Saved(_) | Source::Kernel => {}
        }
    }
    let answer = |coloured| answer(&question, matches.get_flag("json"), coloured);
    let coloured = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let text = match &question.netns {
        Some(netns) => netns::within(netns::path(netns), || answer(coloured))??,
        None => answer(coloured)?,
    };
    Ok(output::print(&text)?)
}

/// Reads all arguments.
///
/// # Errors
/// All mistakes in it.
fn question(matches: &ArgMatches) -> Result<Question, Failure> {
    let mut mistakes = Vec::new();
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let pod = note(manifest_of(text("pod").as_deref(), matches), &mut mistakes);
    let rules_are_elsewhere = text("plan").is_some() || matches.get_flag("from-kernel");
    // contradictions() checks which arguments a front end may have.
    let given: Vec<&str> = args::given(matches).collect();
    let of_front_end = front_end::asked(matches, &given);
    let (rules, netns) = match (of_front_end, pod.as_ref().filter(|pod| pod.is_given)) {
        (Some(Ok((settings, netns))), _) => (Ok(Source::Options(Box::new(settings.config))), netns),
        (Some(Err(failure)), _) => (Err(failure), None),
        (None, Some(pod)) if !rules_are_elsewhere => (verdict_of(pod, matches).map(Source::Pod), None),
        (None, _) => (settings(matches).map(|settings| options(settings, matches)), None),
    };
    let rules = match rules {
        Ok(rules) => Some(rules),
        Err(Failure::Input(wrong) | Failure::Usage(wrong)) => {
            mistakes.extend(wrong);
            None
        }
    };
    let packets = packets::read(matches, &mut mistakes);
    let given: Vec<&String> = matches.get_many("pod-ip").into_iter().flatten().collect();
    let mut addresses = pod.map(|pod| pod.addresses).unwrap_or_default();
    for text in given
        .iter()
        .flat_map(|text| text.split(','))
        .map(str::trim)
        .filter(|text| !text.is_empty())
    {
        match text.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => mistakes.push(format!("--pod-ip: {text:?} is not an address")),
        }
    }
    mistakes.extend(contradictions(matches));
    let rules = match text("plan") {
        Some(path) => note(saved(&path), &mut mistakes).map(Source::Saved),
        None => rules,
    };
    match (packets, rules) {
        (Some(packets), Some(rules)) if mistakes.is_empty() => Ok(Question {
            packets,
            rules,
            addresses,
            netns: netns.or_else(|| args::text_or_variable(matches, "netns")),
        }),
        _ => Err(Failure::Input(mistakes)),
    }
}

fn note<T>(result: Result<T, String>, mistakes: &mut Vec<String>) -> Option<T> {
    result.map_err(|mistake| mistakes.push(mistake)).ok()
}

/// The rules of options alone.
fn options(settings: Settings, matches: &ArgMatches) -> Source {
    match matches.get_flag("from-kernel") {
        true => Source::Kernel,
        false => Source::Options(Box::new(settings.config)),
    }
}

/// The description of a pod.
struct Manifest {
    /// Whether a file or annotations describe it.
    is_given: bool,
    document: Node,
    annotations: Annotations,
    addresses: Vec<IpAddr>,
}

/// The manifest, if there is one, and the annotations given as arguments, which override its own.
fn manifest_of(path: Option<&str>, matches: &ArgMatches) -> Result<Manifest, String> {
    let document = match path {
        Some(path) => yaml::document(&contents(path)?)
            .map_err(|error| format!("--pod: {path}:{}:{}: {}", error.at.line, error.at.column, error.reason))?,
        None => Node::empty(),
    };
    let pod = manifest::only_pod(&document).map_err(|error| format!("--pod: {error}"))?;
    let mut annotations = match pod.annotations().map(Node::to_json) {
        Some(Value::Object(annotations)) => annotations,
        _ => Map::new(),
    };
    let mut is_given = path.is_some();
    for given in matches.get_many::<String>("annotation").into_iter().flatten() {
        let Some((name, value)) = given.split_once('=') else {
            return Err(format!("--annotation: {given:?} is not NAME=VALUE"));
        };
        annotations.insert(name.to_owned(), value.into());
        is_given = true;
    }
    let status = document.get("status").and_then(|status| status.get("podIPs"));
    let addresses = status.map(Node::items).unwrap_or_default().iter();
    let addresses = addresses.filter_map(|entry| entry.get("ip")?.scalar()?.parse().ok());
    Ok(Manifest {
        is_given,
        addresses: addresses.collect(),
        annotations: Annotations::of(&Value::Object(annotations))
            .map_err(|error| format!("--pod: annotations: {error}"))?,
        document,
    })
}

/// Whether a pod is redirected, and how.
fn verdict_of(pod: &Manifest, matches: &ArgMatches) -> Result<Verdict, Failure> {
    let mistake = |text: String| Failure::Input(vec![text]);
    let Around { before, after } = around_pod(matches)?;
    let described = manifest::only_pod(&pod.document).map_err(mistake)?;
    let facts = Pod::of_manifest(&described, pod.annotations.clone());
    let inputs = Inputs {
        policy: &Policy::default(),
        overrides: &before,
        fallbacks: &after,
        read: &invocation::read,
    };
    let verdict = match verdict::verdict(&facts, &inputs) {
        Ok(Verdict::Skipped(Skipped {
            kind: SkipKind::InitContainer(name),
            reason,
        })) => verdict::by_unknown_init_container(&facts, &inputs, name, &reason),
        Ok(verdict) => verdict,
        Err(Undecided::NoAnnotations) => return Err(mistake("--pod: its annotations are not known".to_owned())),
        Err(Undecided::Invalid(problems)) => return Err(problems.into()),
        Err(Undecided::Arguments { container, mistakes }) => {
            let mistakes = mistakes.iter().map(|text| format!("--pod: {container}: {text}"));
            return Err(Failure::Input(mistakes.collect()));
        }
    };
    if let Verdict::Redirected(redirected) = &verdict {
        if let (
            By::InitContainer {
                name,
                has_known_arguments: true,
            },
            Some(flag),
        ) = (&redirected.by, plan_flags(matches).first())
        {
            let reason =
                format!("--{flag} has no effect: the arguments of the init container {name} determine the rules");
            return Err(mistake(reason));
        }
        for Unseen {
            what,
            annotation,
            value,
            ..
        } in &redirected.unseen
        {
            tracing::warn!("the plugin does not see that {what}; set {annotation}: {value:?}");
        }
    }
    Ok(verdict)
}

fn saved(path: &str) -> Result<Plan, String> {
    render::json::read(&contents(path)?).map_err(|error| format!("--plan: {path}: {error}"))
}

/// The text of a file, or of standard input.
fn contents(path: &str) -> Result<String, String> {
    let read = match path {
        "-" => io::read_to_string(io::stdin()),
        path => std::fs::read_to_string(path),
    };
    read.map_err(|error| format!("{path}: {error}"))
}

/// Sources of rules that exclude each other.
fn contradictions(matches: &ArgMatches) -> Vec<String> {
    let mut sources: Vec<&str> = ["plan", "from-kernel"]
        .into_iter()
        .filter(|name| is_given(matches, name))
        .collect();
    // --pod is not among them: the addresses of a pod are useful with any source.
    sources.extend(plan_flags(matches).first());
    let mut sources: Vec<String> = sources.iter().map(|flag| format!("--{flag}")).collect();
    sources.extend(matches.subcommand_name().map(str::to_owned));
    match sources.as_slice() {
        [] | [_] => Vec::new(),
        [first, second, ..] => vec![format!(
            "{first} and {second}: each selects the rules to follow; give only one"
        )],
    }
}

fn is_given(matches: &ArgMatches, name: &str) -> bool {
    let source = matches.try_contains_id(name).ok().filter(|known| *known);
    source.and_then(|_| matches.value_source(name)) == Some(ValueSource::CommandLine)
}

/// The given flags that change the plan.
fn plan_flags(matches: &ArgMatches) -> Vec<&'static str> {
    let options = OPTIONS.iter().filter(|option| option.scope == Scope::Pod);
    let names = options.map(|option| option.name).chain(["annotation"]);
    names.filter(|name| is_given(matches, name)).collect()
}

fn answer(question: &Question, as_json: bool, coloured: bool) -> anyhow::Result<String> {
    let asked = match &question.packets {
        Packets::One(asked) => {
            return explain(question, asked, &simulation(question, &asked.packet)?, |explanation| {
                let style = if coloured {
                    text::Style::Coloured
                } else {
                    text::Style::Plain
                };
                match as_json {
                    true => json::document(explanation),
                    false => text::document(explanation, style),
                }
            });
        }
        Packets::Many(asked) => asked,
    };
    // The interface of a packet is that of the pod's addresses, if these are given.
    let mut simulations: HashMap<Option<&InterfaceName>, Simulation> = HashMap::new();
    let mut lines = String::new();
    for (number, asked) in (1..).zip(asked) {
        let simulation = match simulations.entry(asked.packet.interface()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(simulation(question, &asked.packet)?),
        };
        let explained = explain(question, asked, simulation, |explanation| match as_json {
            true => json::line(explanation),
            false => format!("{number}: {}\n", text::line(explanation)),
        });
        lines += &match explained {
            Ok(line) => line,
            // A packet that this pod cannot send says nothing about the others.
            Err(error) => match error.downcast::<Failure>()? {
                failure if as_json => json::failure(&failure.to_string()),
                failure => format!("{number}: {failure}\n"),
            },
        };
    }
    Ok(lines)
}

fn explain(
    question: &Question,
    asked: &Asked,
    simulation: &Simulation,
    write: impl FnOnce(&Explanation) -> String,
) -> anyhow::Result<String> {
    let packet = described_packet(question, &asked.packet, &simulation.pod)?;
    let path = simulate::simulate(&simulation.rules, &simulation.pod, &packet)?;
    bound::warn(asked.bound_to.as_ref(), &path);
    Ok(write(&Explanation {
        source: &simulation.source,
        pod: match &question.rules {
            Source::Pod(verdict) => Some(verdict),
            Source::Options(_) | Source::Saved(_) | Source::Kernel => None,
        },
        rules: &simulation.rules,
        packet: &packet,
        path: &path,
    }))
}

/// The packet. If the pod's namespace is accessible, its routes determine the outgoing interface.
fn described_packet(question: &Question, asked: &Description, pod: &simulate::Pod) -> Result<Packet, Failure> {
    let routed = match (&question.rules, &question.netns) {
        (Source::Kernel, _) | (_, Some(_)) => asked.destination(),
        (Source::Options(_) | Source::Pod(_) | Source::Saved(_), None) => None,
    };
    let interface = routed.and_then(|destination| interfaces::leading_to(destination, &pod.addresses));
    let packet = asked.clone().with_default_interface(interface);
    packet
        .packet(pod)
        .map_err(|mistake| Failure::Input(vec![mistake.to_string()]))
}

fn simulation(question: &Question, asked: &Description) -> anyhow::Result<Simulation> {
    Ok(match &question.rules {
        Source::Options(config) => planned("the plan of these options", redirection::plan(config)?, question, asked),
        Source::Pod(Verdict::Skipped(_)) => {
            Simulation::without_rules(described_pod(question, asked), asked.interface())
        }
        Source::Pod(Verdict::Redirected(redirected)) => {
            let rules = match &redirected.by {
                By::InitContainer {
                    name,
                    has_known_arguments: true,
                } => format!("the plan of the arguments of container {name}"),
                By::InitContainer {
                    has_known_arguments: false,
                    ..
                }
                | By::Plugin => "the plan for this pod".to_owned(),
            };
            planned(&rules, redirection::plan(&redirected.settings.config)?, question, asked)
        }
        Source::Saved(plan) => planned("the saved plan", plan.clone(), question, asked),
        Source::Kernel => installed(question, asked)?,
    })
}

fn planned(rules: &str, plan: Plan, question: &Question, asked: &Description) -> Simulation {
    Simulation::planned(rules, plan, described_pod(question, asked), asked.interface())
}

/// The pod, as described by arguments or observed.
fn described_pod(question: &Question, asked: &Description) -> simulate::Pod {
    match (question.addresses.as_slice(), &question.netns) {
        ([], Some(_)) => observed_pod().unwrap_or_default(),
        ([], None) => simulate::Pod::default(),
        (given, _) => simulate::Pod::with_addresses(given, asked.interface()),
    }
}

/// The pod of this network namespace.
fn observed_pod() -> io::Result<simulate::Pod> {
    Ok(simulate::Pod {
        addresses: interfaces::addresses()?,
        local_marks: Vec::new(),
    })
}

/// All rules that are installed in this network namespace.
fn installed(question: &Question, asked: &Description) -> anyhow::Result<Simulation> {
    let mut namespace = Namespace::default();
    let observed = namespace.observe()?;
    observed.warn_of_loopback();
    let mut pod = match question.addresses.as_slice() {
        [] => observed_pod()?,
        given => simulate::Pod::with_addresses(given, asked.interface()),
    };
    pod.local_marks = namespace.local_marks()?;
    let source = match choice::holding(Backend::Auto, &observed) {
        None => "all that are installed, none of which sidetrack owns".to_owned(),
        Some(backend) => format!("all that are installed, sidetrack's with {backend}"),
    };
    Ok(Simulation {
        source,
        rules: namespace.netfilter()?,
        pod,
    })
}
