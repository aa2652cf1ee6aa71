//! `sidetrack lint`: findings in each of `tests/manifests`, and errors of unreadable files.
//!
//! Review the files in `tests/golden/lint` like code.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;
use sidetrack::lint::code::Explanation;
use sidetrack::lint::{Code, Context};
use sidetrack::options::Layer;

use crate::program::Run;
use crate::temporary::{Directory, Temporary};
use crate::{SIDETRACK, generated};

const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/manifests");

/// Runs `sidetrack lint` among the manifests.
fn lint(arguments: &[&str]) -> Run {
    let mut command = Command::new(SIDETRACK);
    Run::of(command.arg("lint").args(arguments).current_dir(MANIFESTS))
}

/// The names of the manifests, without `.yaml`.
fn names() -> Vec<String> {
    let entries = fs::read_dir(MANIFESTS).expect("manifests");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let name = |path: &PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
    paths.iter().map(name).collect()
}

/// The codes that JSON output names.
fn codes(run: &Run) -> BTreeSet<String> {
    let document: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"));
    assert_eq!(document["version"], 1);
    let findings = document["findings"].as_array().expect("findings");
    findings
        .iter()
        .map(|finding| finding["code"].as_str().expect("a code").to_owned())
        .collect()
}

#[test]
fn findings_of_each_manifest_match_golden() {
    insta::with_settings!({ snapshot_path => "../golden/lint", prepend_module_to_snapshot => false, omit_expression => true }, {
        for name in names() {
            let found = lint(&[&format!("{name}.yaml")]).stdout;
            // The explanations are the same for each code, and are in docs/lint.md.
            let lines: Vec<&str> = found.lines().filter(|line| !line.starts_with(' ')).collect();
            insta::assert_snapshot!(name, lines.join("\n"));
        }
    });
}

#[test]
fn each_code_has_a_manifest_and_clean_ones_have_none() {
    for code in Code::ALL {
        let file = format!("{}.yaml", code.id());
        let run = lint(&["--json", &file]);
        assert_eq!(run.code, Some(3), "{run:?}");
        assert!(codes(&run).contains(code.id()), "{run:?}");
    }
    for file in ["clean.yaml", "injected.yaml"] {
        let run = lint(&["--json", file]).succeeded();
        assert!(codes(&run).is_empty(), "{run:?}");
    }
}

#[test]
fn position_is_that_of_the_value() {
    let run = lint(&["--json", "ST202.yaml"]);
    let document: Value = serde_json::from_str(&run.stdout).expect("JSON");
    let places: Vec<_> = document["findings"].as_array().expect("findings").iter().collect();
    let text = fs::read_to_string(Path::new(MANIFESTS).join("ST202.yaml")).expect("a manifest");
    assert_eq!(places.len(), 2);
    for place in places {
        let number = |key: &str| usize::try_from(place[key].as_u64().expect("a number")).expect("small");
        let line = text.lines().nth(number("line") - 1).expect("a line");
        assert_eq!(&line[number("column") - 1..][..4], "1337", "{place}");
    }
}

#[test]
fn standard_input_and_several_files_are_read() {
    let mut command = Command::new(SIDETRACK);
    let mut child = command
        .args(["lint", "ST101.yaml", "-", "clean.yaml"])
        .current_dir(MANIFESTS)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("sidetrack");
    let manifest = fs::read(Path::new(MANIFESTS).join("ST102.yaml")).expect("a manifest");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(&manifest)
        .expect("it is read");
    let output = child.wait_with_output().expect("its end");
    let found = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(3));
    assert!(
        found.contains("\n-:4:14: ST102: ") || found.starts_with("-:4:14: ST102: "),
        "{found}"
    );
    assert!(
        found.starts_with("ST101.yaml:7:20: ST101: DaemonSet infra/agent: "),
        "{found}"
    );
    let log = String::from_utf8(output.stderr).expect("text");
    assert!(log.contains("pods=14"), "{log}");
}

#[test]
fn unreadable_files_are_reported_with_position_and_others_checked() {
    let run = lint(&["../golden", "ST101.yaml", "no-such-file.yaml", "../../Cargo.toml"]);
    assert_eq!(run.code, Some(2), "{run:?}");
    for said in [
        "../golden: ",
        "no-such-file.yaml: No such file",
        "../../Cargo.toml:2:1: ",
    ] {
        assert!(run.stderr.contains(said), "{said} is not said in {run:?}");
    }
    assert!(run.stdout.contains("ST101.yaml:7:20: ST101"), "{run:?}");
}

#[test]
fn disabled_codes_are_omitted() {
    let run = lint(&["--ignore", "ST201,ST101", "ST201.yaml", "ST101.yaml"]).succeeded();
    assert_eq!(run.stdout, "");
    lint(&["--ignore", "ST999", "ST201.yaml"]).failed(2, &["\"ST999\" is no code"]);
}

#[test]
fn annotations_override_options_of_the_mesh() {
    let mesh = ["--proxy-uid", "7", "--exclude-inbound-ports", "*"];
    let found = |file: &str| codes(&lint(&[&["--json", file][..], &mesh].concat()));
    assert!(found("ST401.yaml").is_empty(), "the ports are excluded");
    // One of its two pods names its proxy's user; the other one relies on the mesh.
    let run = lint(&[&["ST201.yaml"][..], &mesh].concat());
    assert!(
        run.stdout.contains("another-proxy") && !run.stdout.contains("nightly"),
        "{run:?}"
    );
}

#[test]
fn file_without_pods_is_warned_of() {
    let run = lint(&["--ignore", "ST303", "/dev/null"]).succeeded();
    assert!(run.stderr.contains("no pod found"), "{run:?}");
}

#[test]
fn table_of_codes_matches_the_code() {
    let mut table =
        "| Code | Level | What is found | Why it matters | What to do |\n|---|---|---|---|---|\n".to_owned();
    for code in Code::ALL {
        let Explanation {
            id,
            level,
            title,
            why,
            fix,
        } = code.explanation();
        table += &format!("| {id} | {} | {title} | {why} | {fix} |\n", level.name());
    }
    generated::part("docs/lint.md", "codes", &table);
}

#[test]
fn every_field_of_the_json_is_described() {
    let described = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/lint.md")).expect("docs/lint.md");
    let document: Value = serde_json::from_str(&lint(&["--json", "ST101.yaml"]).stdout).expect("JSON");
    let fields = document.as_object().expect("an object").keys();
    let of_finding = document["findings"][0].as_object().expect("a finding").keys();
    for field in fields.chain(of_finding) {
        assert!(
            described.contains(&format!("`{field}`")),
            "docs/lint.md says nothing about {field}"
        );
    }
}

/// `sidetrack lint` with a text as its standard input.
fn piped(arguments: &[&str], text: &str) -> Run {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let file = Temporary::new(&format!("lint-input-{}", COUNT.fetch_add(1, Ordering::Relaxed)), text);
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec \"$0\" lint \"$@\" < \"$INPUT\"", SIDETRACK])
        .args(arguments);
    Run::of(command.env("INPUT", file.path()))
}

const BOTH: [&str; 2] = ["ST101.yaml", "ST202.yaml"];

/// The requirements of SARIF 2.1.0 (sections 3.13, 3.14, 3.19, 3.27, 3.28 to 3.30, 3.49) on the parts that are written.
#[test]
fn findings_are_results_of_sarif_at_their_place() {
    let run = lint(&[&["--format", "sarif"], &BOTH[..]].concat());
    assert_eq!(run.code, Some(3), "{run:?}");
    let log: Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(log["version"], "2.1.0");
    assert!(
        log["$schema"]
            .as_str()
            .is_some_and(|schema| schema.ends_with("sarif-schema-2.1.0.json"))
    );
    let [run] = log["runs"].as_array().expect("runs").as_slice() else {
        panic!("{log:#}");
    };
    let driver = &run["tool"]["driver"];
    assert_eq!(driver["name"], "sidetrack");
    let rules = driver["rules"].as_array().expect("rules");
    let levels = ["none", "note", "warning", "error"];
    let is_level = |level: &Value| levels.iter().any(|known| level == known);
    let ids: BTreeSet<&str> = rules.iter().map(|rule| rule["id"].as_str().expect("an id")).collect();
    assert_eq!(
        (ids.len(), rules.len()),
        (Code::ALL.len(), Code::ALL.len()),
        "each once"
    );
    for rule in rules {
        for text in ["shortDescription", "fullDescription", "help"] {
            assert!(
                rule[text]["text"].as_str().is_some_and(|text| !text.is_empty()),
                "{rule:#}"
            );
        }
        assert!(is_level(&rule["defaultConfiguration"]["level"]), "{rule:#}");
    }
    let of_json: Value = serde_json::from_str(&lint(&[&["--json"], &BOTH[..]].concat()).stdout).expect("JSON");
    let findings = of_json["findings"].as_array().expect("findings");
    let results = run["results"].as_array().expect("results");
    assert_eq!(results.len(), findings.len());
    for (result, finding) in results.iter().zip(findings) {
        let index = usize::try_from(result["ruleIndex"].as_u64().expect("an index")).expect("small");
        assert_eq!(rules[index]["id"], result["ruleId"]);
        assert_eq!(result["ruleId"], finding["code"]);
        assert_eq!(result["level"], rules[index]["defaultConfiguration"]["level"]);
        let message = result["message"]["text"].as_str().expect("a message");
        assert!(
            message.contains(finding["message"].as_str().expect("a message")),
            "{result:#}"
        );
        let [location] = result["locations"].as_array().expect("locations").as_slice() else {
            panic!("{result:#}");
        };
        let place = &location["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], finding["file"]);
        assert_eq!(place["region"]["startLine"], finding["line"]);
        assert_eq!(place["region"]["startColumn"], finding["column"]);
        assert_eq!(location["logicalLocations"][0]["fullyQualifiedName"], finding["object"]);
    }
}

#[test]
fn sarif_files_are_uri_references() {
    let named = |name: &str| {
        let directory = Directory::new("lint-uri");
        fs::copy(Path::new(MANIFESTS).join("ST101.yaml"), directory.path().join(name)).expect("a copy");
        let run = Run::of(
            Command::new(SIDETRACK)
                .args(["lint", "--format", "sarif", name])
                .current_dir(directory.path()),
        );
        let log: Value = serde_json::from_str(&run.stdout).expect("JSON");
        log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].clone()
    };
    assert_eq!(named("a b:ä.yaml"), "a%20b%3A%C3%A4.yaml");
    assert_eq!(named("./web.yaml"), "web.yaml");
    let path = Path::new(MANIFESTS).join("ST101.yaml");
    let run = lint(&["--format", "sarif", path.to_str().expect("text")]);
    assert!(
        run.stdout.contains(&format!("\"uri\": \"file://{}\"", path.display())),
        "{run:?}"
    );
}

#[test]
fn github_format_is_one_command_a_line() {
    let run = lint(&["--format", "github", "ST202.yaml", "ST506.yaml"]);
    assert_eq!(run.code, Some(3), "{run:?}");
    let document: Value = serde_json::from_str(&lint(&["--json", "ST202.yaml", "ST506.yaml"]).stdout).expect("JSON");
    let findings = document["findings"].as_array().expect("findings");
    assert_eq!(run.stdout.lines().count(), findings.len());
    for (line, finding) in run.stdout.lines().zip(findings) {
        let level = match finding["level"].as_str() {
            Some("note") => "notice",
            level => level.expect("a level"),
        };
        let text = |key: &str| finding[key].as_str().expect("text");
        let beginning = format!(
            "::{level} file={},line={},col={},title={}%3A ",
            text("file"),
            finding["line"],
            finding["column"],
            text("code")
        );
        assert!(line.starts_with(&beginning), "{line}");
        assert!(
            line.ends_with(&format!("{}. {}", text("message"), text("fix"))),
            "{line}"
        );
    }
}

#[test]
fn unknown_format_is_refused() {
    assert_eq!(
        lint(&["--format", "json", "ST101.yaml"]).stdout,
        lint(&["--json", "ST101.yaml"]).stdout
    );
    assert_eq!(
        lint(&["--format", "text", "ST101.yaml"]).stdout,
        lint(&["ST101.yaml"]).stdout
    );
    lint(&["--format", "xml", "ST101.yaml"]).failed(2, &["xml", "sarif"]);
    lint(&["--format", "sarif", "--json", "ST101.yaml"]).failed(2, &["--json", "--format"]);
}

#[test]
fn skipped_documents_are_reported() {
    let text = "kind: ConfigMap\n---\nkind: ConfigMap\n---\n{kind: Foo, spec: {a: b}}\n---\na: b\n---\n\
                {kind: Pod, spec: {containers: [{name: a}]}}\n";
    let run = piped(&["-"], text).succeeded();
    assert!(run.stderr.contains("1 without a kind, 2 ConfigMap, 1 Foo"), "{run:?}");
    let document: Value = serde_json::from_str(&piped(&["--json", "-"], text).stdout).expect("JSON");
    assert_eq!(
        document["skipped"],
        serde_json::json!({ "": 1, "ConfigMap": 2, "Foo": 1 })
    );
    assert_eq!(document["pods"], 1);
}

#[test]
fn json_stream_is_checked() {
    let pod = |name: &str| {
        format!(
            "{{\"kind\": \"Pod\", \"metadata\": {{\"name\": \"{name}\"}},\n\"spec\": {{\"containers\": [{{\"name\": \"a\", \
                 \"securityContext\": {{\"runAsUser\": 1337}}}}]}}}}\n"
        )
    };
    let run = piped(&["-"], &[pod("one"), pod("two")].concat());
    let lines: Vec<&str> = run.stdout.lines().filter(|line| line.contains("ST201")).collect();
    assert_eq!(lines.len(), 2, "{run:?}");
    assert!(
        lines[0].starts_with("-:2:") && lines[0].contains("Pod one"),
        "{lines:?}"
    );
    assert!(
        lines[1].starts_with("-:4:") && lines[1].contains("Pod two"),
        "{lines:?}"
    );
}

#[test]
fn helm_template_is_reported_as_such() {
    let template = "kind: Pod\nspec:\n  {{- with .Values.x }}\n  containers: [{name: a}]\n  {{- end }}\n";
    piped(&["-"], template).failed(2, &["-:", "template of Helm", "helm template"]);
    let run = piped(&["-"], "kind: Pod\nspec: [\n").failed(2, &["-:"]);
    assert!(!run.stderr.contains("Helm"), "{run:?}");
}

/// Services of one file apply to pods of another.
#[test]
fn services_of_any_file_apply() {
    let directory = Directory::new("lint-services");
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).expect("a file");
    write(
        "pod.yaml",
        "{kind: Pod, metadata: {name: db, labels: {app: db}}, spec: {containers: [{name: db, ports: [{containerPort: 3306}]}]}}",
    );
    let found = |selector: &str, port: &str| {
        let text =
            format!("{{kind: Service, metadata: {{name: db}}, spec: {{selector: {{{selector}}}, ports: [{port}]}}}}");
        write("service.yaml", &text);
        let mut command = Command::new(SIDETRACK);
        Run::of(
            command
                .args(["lint", "pod.yaml", "service.yaml"])
                .current_dir(directory.path()),
        )
        .stdout
    };
    let is_known = |found: String| !found.contains("port 3306 of container db");
    assert!(is_known(found("app: db", "{name: tcp-db, port: 3306}")));
    assert!(is_known(found(
        "app: db",
        "{name: mysql, port: 33060, targetPort: 3306}"
    )));
    assert!(is_known(found("app: db", "{appProtocol: mysql, port: 3306}")));
    assert!(!is_known(found("app: db", "{name: db, port: 3306}")));
    assert!(!is_known(found("app: db", "{name: tcp-db, port: 3307}")));
    assert!(!is_known(found("app: other", "{name: tcp-db, port: 3306}")));
    assert!(!is_known(found("", "{name: tcp-db, port: 3306}")));
}

/// Small texts that expand to large documents.
fn bombs() -> Vec<String> {
    let laughs: String = (1..60)
        .map(|n| format!("a{n}: &a{n} [*a{0}, *a{0}, *a{0}]\n", n - 1))
        .collect();
    let lists: String = (1..30)
        .map(|n| format!("- &l{n} {{kind: List, items: [*l{0}, *l{0}, *l{0}, *l{0}]}}\n", n - 1))
        .collect();
    let pod = "{kind: Pod, spec: {containers: [{name: a, ports: [{containerPort: 15001}]}]}}";
    vec![
        format!("a0: &a0 [x]\n{laughs}"),
        format!("kind: List\nitems:\n- &l0 {pod}\n{lists}"),
        "[".repeat(1_000_000),
        "{a: ".repeat(1_000_000),
        "- ".repeat(1_000_000),
        "? ".repeat(1_000_000),
        "{\"kind\": \"List\", \"items\": [".repeat(100_000),
    ]
}

#[test]
fn yaml_alias_bombs_are_refused() {
    let context = Context {
        settings: &Layer::default(),
        read: &|_| None,
    };
    for bomb in bombs() {
        let refused = sidetrack::lint::lint(&bomb, &context).expect_err("it is too much");
        let said = refused.to_string();
        let bounds = ["expand to more than", "nest deeper", "recursion limit"];
        assert!(bounds.iter().any(|bound| said.contains(bound)), "{said}");
    }
}

/// What is put into lines.
const ODDITIES: [&str; 12] = [
    ": ",
    "~",
    "[]",
    "{}",
    "*a",
    "&a ",
    "<<: *a",
    "- - -",
    "\"\\u00e9\"",
    "-1",
    "!!str ",
    "\t",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Manifests with missing, repeated and garbled lines: lint never panics.
    #[test]
    fn garbled_manifests_are_looked_at_or_refused(
        file in any::<Index>(),
        changes in proptest::collection::vec((any::<Index>(), any::<Index>(), any::<Index>(), 0..4), 1..6),
    ) {
        let names = names();
        let path = Path::new(MANIFESTS).join(format!("{}.yaml", file.get(&names)));
        let mut lines: Vec<String> = fs::read_to_string(path).expect("a manifest").lines().map(str::to_owned).collect();
        for (from, to, oddity, change) in changes {
            let (line, at) = (lines[from.index(lines.len())].clone(), to.index(lines.len()));
            match change {
                0 if lines.len() > 1 => drop(lines.remove(at)),
                1 => lines.insert(at, line),
                2 => lines[at] = line,
                _ => {
                    let places: Vec<usize> = lines[at].char_indices().map(|(place, _)| place).collect();
                    if !places.is_empty() {
                        lines[at].insert_str(*from.get(&places), ODDITIES[oddity.index(ODDITIES.len())]);
                    }
                }
            }
        }
        let context = Context { settings: &Layer::default(), read: &|_| None };
        if let Ok(report) = sidetrack::lint::lint(&lines.join("\n"), &context) {
            for finding in report.findings {
                prop_assert!(finding.at.line <= lines.len() + 1, "{:?}", finding);
            }
        }
    }
}
