//! `sidetrack explain`: shows what happens to a packet, and which rules decide it.

mod manifest;
mod packets;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, IsTerminal as _};
use std::net::IpAddr;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use self::manifest::{contents, manifest_of, verdict_of};
use self::packets::{Asked, Packets};
use super::failure::Failure;
use super::place::{self, Place, PodOnNode};
use super::settings::{Around, around_pod, settings};
use super::{args, bound, front_end, name_servers, output, redirection};
use crate::backend::{Namespace, choice};
use crate::linux::interfaces;
use crate::mesh::verdict::{By, Verdict};
use crate::options::table::{OPTIONS, Scope};
use crate::options::{Config, Settings};
use crate::plan::{LoopbackRoute, Plan};
use crate::render;
use crate::simulate::packet_args::Description;
use crate::simulate::{self, Explanation, Packet, Simulation, json, text};
use crate::types::{Backend, InterfaceName};

/// A request: packets, the source of the rules, and the pod.
struct Question {
    packets: Packets,
    rules: Source,
    /// The pod's addresses, if given.
    addresses: Vec<IpAddr>,
    place: Place,
}

/// The source of the rules.
enum Source {
    Options(Box<Config>),
    Pod(Verdict),
    Saved(Plan),
    Kernel,
}

impl Source {
    /// The configuration that the rules are planned from.
    fn config(&mut self) -> Option<&mut Config> {
        match self {
            Self::Options(config) => Some(config),
            Self::Pod(Verdict::Redirected(redirected)) => Some(&mut redirected.settings.config),
            Self::Pod(Verdict::Skipped(_)) | Self::Saved(_) | Self::Kernel => None,
        }
    }
}

/// The source of the rules, as far as the arguments alone show it.
enum Given {
    Source(Source),
    /// What the plugin has for a pod of this node, and the options around that.
    OnNode(Box<Around>),
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
             Example: sidetrack explain outbound tcp 10.0.0.5:443 --uid 1000 --from-kernel --netns pod",
        )
        .args(packets::arguments())
        .arg(value(
            "pod",
            "FILE|NAMESPACE/NAME",
            RULES,
            "Explain the pod of this manifest (- is standard input) or node",
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
    let question = question(matches)?;
    let answer = |coloured| answer(&question, matches.get_flag("json"), coloured);
    let coloured = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let text = question.place.administer(|| answer(coloured))??;
    Ok(output::print(&text)?)
}

/// Reads all arguments, and what they refer to.
///
/// # Errors
/// All mistakes in the arguments, or the pod is not on this node.
fn question(matches: &ArgMatches) -> anyhow::Result<Question> {
    let mut mistakes = Vec::new();
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let on_node = text("pod").and_then(|value| place::named_on_node(&value));
    let file = text("pod").filter(|_| on_node.is_none());
    let pod = note(manifest_of(file.as_deref(), matches), &mut mistakes);
    let rules_are_elsewhere = text("plan").is_some() || matches.get_flag("from-kernel");
    // contradictions() checks which arguments a front end may have.
    let given: Vec<&str> = args::given(matches).collect();
    let of_front_end = front_end::asked(matches, &given);
    let (rules, netns) = match (of_front_end, pod.as_ref().filter(|pod| pod.is_given)) {
        (Some(Ok((settings, netns))), _) => {
            let source = Source::Options(Box::new(settings.config));
            (Ok(Given::Source(source)), netns)
        }
        (Some(Err(failure)), _) => (Err(failure), None),
        (None, _) if on_node.is_some() && !rules_are_elsewhere => {
            (around_pod(matches).map(|around| Given::OnNode(Box::new(around))), None)
        }
        (None, Some(pod)) if !rules_are_elsewhere => {
            let verdict = verdict_of(pod, matches);
            (verdict.map(|verdict| Given::Source(Source::Pod(verdict))), None)
        }
        (None, _) => {
            let settings = settings(matches);
            (settings.map(|settings| Given::Source(options(settings, matches))), None)
        }
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
    let name_servers = pod.as_ref().and_then(manifest::name_servers);
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
        Some(path) => note(saved(&path), &mut mistakes).map(|plan| Given::Source(Source::Saved(plan))),
        None => rules,
    };
    let netns = netns.or_else(|| args::text_or_variable(matches, "netns"));
    if on_node.is_some() && netns.is_some() {
        mistakes.push(place::both_given());
    }
    if on_node.is_some() && is_given(matches, "annotation") {
        let reason = "--annotation has no effect: --pod names a pod of this node, whose annotations the runtime has";
        mistakes.push(reason.to_owned());
    }
    let (Some(packets), Some(given), true) = (packets, rules, mistakes.is_empty()) else {
        return Err(Failure::Input(mistakes).into());
    };
    let pod = on_node.map(PodOnNode::find).transpose()?;
    let mut rules = match (given, &pod) {
        (Given::Source(rules), _) => rules,
        (Given::OnNode(around), Some(pod)) => Source::Pod(pod.verdict(&around)?),
        (Given::OnNode(_), None) => return Err(Failure::Input(vec!["--pod: no pod".to_owned()]).into()),
    };
    let place = match (pod, netns) {
        (Some(pod), _) => {
            rules
                .config()
                .into_iter()
                .for_each(|config| pod.settle_name_servers(config));
            pod.place()
        }
        (None, Some(netns)) => {
            if let Some(config) = rules.config() {
                name_servers::of_netns(config, &netns)?;
            }
            Place::Netns(netns)
        }
        (None, None) => {
            if let Source::Pod(Verdict::Redirected(redirected)) = &mut rules {
                name_servers::of_distant_pod(&mut redirected.settings.config, name_servers.as_deref());
            }
            Place::Here
        }
    };
    Ok(Question {
        packets,
        rules,
        addresses,
        place,
    })
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

fn saved(path: &str) -> Result<Plan, String> {
    render::json::read(&contents(path)?).map_err(|error| format!("--plan: {path}: {error}"))
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
    let options = OPTIONS.iter().filter(|option| option.scope.is_planned());
    let names = options.map(|option| option.name).chain(["annotation"]);
    names.filter(|name| is_given(matches, name)).collect()
}

fn answer(question: &Question, as_json: bool, coloured: bool) -> anyhow::Result<String> {
    let asked = match &question.packets {
        Packets::One(asked) => {
            return explain(question, asked, &simulation(question, asked)?, |explanation| {
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
    let mut simulations: HashMap<[Option<&InterfaceName>; 2], Simulation> = HashMap::new();
    let mut lines = String::new();
    for (number, asked) in (1..).zip(asked) {
        let simulation = match simulations.entry([asked.packet.interface(), asked.bound_to.as_ref()]) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(simulation(question, asked)?),
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
    bound::warn(asked.bound_to.as_ref(), &path, &simulation.loopback_routes);
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
    let routed = match (&question.rules, &question.place) {
        (Source::Kernel, _) | (_, Place::Netns(_) | Place::Pod(_)) => asked.destination(),
        (Source::Options(_) | Source::Pod(_) | Source::Saved(_), Place::Here) => None,
    };
    let interface = routed.and_then(|destination| interfaces::leading_to(destination, &pod.addresses));
    let packet = asked.clone().with_default_interface(interface);
    packet
        .packet(pod)
        .map_err(|mistake| Failure::Input(vec![mistake.to_string()]))
}

fn simulation(question: &Question, asked: &Asked) -> anyhow::Result<Simulation> {
    let packet = &asked.packet;
    Ok(match &question.rules {
        Source::Options(config) => planned(
            "the plan of these options",
            redirection::plan(config)?,
            question,
            packet,
        ),
        Source::Pod(Verdict::Skipped(_)) => {
            Simulation::without_rules(described_pod(question, packet), packet.interface())
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
            planned(
                &rules,
                redirection::plan(&redirected.settings.config)?,
                question,
                packet,
            )
        }
        Source::Saved(plan) => planned("the saved plan", plan.clone(), question, packet),
        Source::Kernel => installed(question, asked)?,
    })
}

fn planned(rules: &str, plan: Plan, question: &Question, asked: &Description) -> Simulation {
    Simulation::planned(rules, plan, described_pod(question, asked), asked.interface())
}

/// The pod, as described by arguments or observed.
fn described_pod(question: &Question, asked: &Description) -> simulate::Pod {
    match (question.addresses.as_slice(), &question.place) {
        ([], Place::Netns(_) | Place::Pod(_)) => observed_pod().unwrap_or_default(),
        ([], Place::Here) => simulate::Pod::default(),
        (given, _) => simulate::Pod::with_addresses(given, asked.interface()),
    }
}

/// The pod of this network namespace.
fn observed_pod() -> io::Result<simulate::Pod> {
    Ok(simulate::Pod {
        addresses: interfaces::addresses()?,
        local_marks: Vec::new(),
        route_localnet: interfaces::route_localnet(),
    })
}

/// All rules that are installed in this network namespace.
fn installed(question: &Question, asked: &Asked) -> anyhow::Result<Simulation> {
    let mut namespace = Namespace::default();
    let observed = namespace.observe()?;
    observed.warn_of_loopback();
    let mut pod = match question.addresses.as_slice() {
        [] => observed_pod()?,
        given => simulate::Pod::with_addresses(given, asked.packet.interface()),
    };
    pod.local_marks = namespace.local_marks()?;
    pod.route_localnet = interfaces::route_localnet();
    let source = match choice::holding(Backend::Auto, &observed) {
        None => "all that are installed, none of which sidetrack owns".to_owned(),
        Some(backend) => format!("all that are installed, sidetrack's with {backend}"),
    };
    let mut loopback_routes = Vec::new();
    if let Some(interface) = asked.bound_to.clone() {
        let family = described_packet(question, &asked.packet, &pod)?.family();
        let route = LoopbackRoute { family, interface };
        if namespace.has_loopback_route(&route)? {
            loopback_routes.push(route);
        }
    }
    Ok(Simulation {
        source,
        rules: namespace.netfilter()?,
        pod,
        loopback_routes,
    })
}
