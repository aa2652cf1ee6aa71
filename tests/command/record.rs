//! The record of a plan: options that are read back from it lead to the same plan.

use std::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use sidetrack::facts::Facts;
use sidetrack::mesh;
use sidetrack::options::table::OPTIONS;
use sidetrack::options::{Layer, Settings};
use sidetrack::plan::Plan;
use sidetrack::plan::record::{MAX_COMMENT_LENGTH, MAX_COMMENTS, Unusable, VERSION, digest, read, record};
use sidetrack::ruleset::Record;
use sidetrack::types::{Choice as _, MeshName};

use crate::cases;
use crate::plans::plan;
use crate::random;

/// The plan of the options in the record of a plan, or why there is none.
fn planned_from_record(plan: &Plan) -> Result<Plan, Unusable> {
    let record = plan.ruleset.record.as_ref().expect("a record");
    assert!(record.comments().count() <= MAX_COMMENTS);
    for comment in record.comments() {
        assert!(comment.len() <= MAX_COMMENT_LENGTH, "{comment}");
        assert!(!comment.contains(['"', '\'', '\\']) && comment.is_ascii(), "{comment}");
    }
    let recorded = read(record)?;
    // Not the name servers that the plan was computed with: those are in the record.
    let later: Vec<IpAddr> = vec!["192.0.2.99".parse().expect("an address")];
    let facts = Facts {
        resolvers: recorded.resolvers.unwrap_or(later),
        ..Facts::default()
    };
    Ok(Plan::new(&recorded.config, &facts).expect("a plan"))
}

#[test]
fn record_of_each_case_leads_to_the_same_plan() {
    for (name, options) in cases::all_options() {
        let plan = plan(options);
        assert_eq!(planned_from_record(&plan), Ok(plan), "{name}");
    }
}

#[test]
fn record_of_any_options_leads_to_the_same_plan() {
    random::each(500, |options| {
        let plan = plan(options);
        match planned_from_record(&plan) {
            Err(Unusable::Incomplete(omitted)) => assert!(!omitted.is_empty()),
            planned => assert_eq!(planned, Ok(plan)),
        }
    });
}

/// Parts of words, such as a process with `NET_ADMIN` in the pod could combine.
const PARTS: [&str; 24] = [
    "--proxy-uid=",
    "--proxy-gid=",
    "--exclude-outbound-ports=",
    "--exclude-outbound-cidrs=",
    "--mesh=",
    "--inbound-mode=",
    "--redirect-dns",
    "--dns-servers=",
    "--drop-invalid",
    "rules-as=",
    "istio-iptables",
    "kumactl",
    "uid-order=",
    "vnet=",
    "no-name-servers",
    "omitted=",
    "7",
    ",",
    "3-9",
    "*",
    "10.0.0.0/8",
    "docker0:172.17.0.0/16",
    "kuma",
    "tproxy",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn words_of_any_origin_are_refused_or_lead_to_a_plan(
        words in vec(vec(select(PARTS.to_vec()), 1..4).prop_map(|parts| parts.concat()), 0..5)
    ) {
        let head = format!("sidetrack {VERSION} {:016x}:", digest(words.iter().map(String::as_str)));
        match read(&Record::new([head].into_iter().chain(words))) {
            Ok(recorded) => {
                let again = record(&recorded.config, &Facts { resolvers: recorded.resolvers.unwrap_or_default(), ..Facts::default() });
                prop_assert_eq!(read(&again).expect("a record").config, recorded.config.clone());
                prop_assert!(Plan::new(&recorded.config, &Facts::default()).is_ok());
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}

/// A record without an option means its default. A changed line here is a new version of the record; an added line, for
/// an option that is new, is not.
#[test]
fn version_of_the_record_belongs_to_these_defaults() {
    let options = || OPTIONS.iter().filter(|option| option.scope.is_planned());
    let mut lines = vec![format!("version {VERSION}")];
    lines.extend(options().map(|option| format!("{}={}", option.name, (option.default)())));
    for (name, text) in MeshName::ALL {
        let layer = Layer {
            mesh: Some(*name),
            ..Layer::default()
        };
        let settings = mesh::settings(layer).expect("no contradiction");
        let differing = settings.config.differing(&Settings::default().config);
        lines.extend(
            differing
                .iter()
                .map(|(option, value)| format!("{text}: {option}={value}")),
        );
    }
    insta::with_settings!({ snapshot_path => "../golden", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("record_defaults", lines.join("\n"));
    });
}
