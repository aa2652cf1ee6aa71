//! Manifests for `sidetrack lint`: each finding has a position in the text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidetrack::lint::{Context, Invocation, Linted, github, json, lint, sarif, text};
use sidetrack::options::Layer;

fuzz_target!(|manifest: &str| {
    let settings = Layer::default();
    let context = Context {
        settings: &settings,
        read: &|_: &Invocation<'_>| None,
    };
    let Ok(report) = lint(manifest, &context) else {
        return;
    };
    let lines = 1 + manifest.matches(['\r', '\n']).count();
    assert!(
        report
            .findings
            .iter()
            .all(|finding| (1..=lines).contains(&finding.at.line))
    );
    let linted = [Linted {
        file: "pod.yaml".to_owned(),
        report,
    }];
    for machines in [json, sarif] {
        assert!(serde_json::from_str::<serde_json::Value>(&machines(&linted)).is_ok());
    }
    assert_eq!(github(&linted).lines().count(), linted[0].report.findings.len());
    text(&linted);
});
