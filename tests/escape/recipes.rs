//! The recipes of docs/locked-egress.md that no runtime of the tests runs: Kubernetes' by the plugin, and Compose's by
//! what its keys mean.

use std::fs;
use std::path::Path;

use caps::Capability;
use serde_json::Value;
use sidetrack::types::Family;
use sidetrack::yaml;

use crate::SIDETRACK;
use crate::attacks::{earlier, plain};
use crate::cni::{plugin, request};
use crate::common::Owner;
use crate::lab::Lab;
use crate::program::Run;

/// The block of the page in this language that begins like this.
fn block(language: &str, begin: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/locked-egress.md");
    let page = fs::read_to_string(page).expect("the page");
    let fence = format!("```{language}\n");
    let mut blocks = page.split(&fence).skip(1).filter_map(|rest| rest.split("```").next());
    let found = blocks.find(|block| block.starts_with(begin));
    found.unwrap_or_else(|| panic!("no block in {language}")).to_owned()
}

/// Neither sends the application, nor does it answer.
fn assert_is_locked(lab: &mut Lab) {
    let attacks = [plain::udp, plain::quic, plain::ping, earlier::answer];
    for family in Family::BOTH {
        for attack in attacks {
            let outcome = lab.run(family, || Owner::APP.assume(), attack, |_| {});
            assert_eq!(outcome.escaped, [""; 0], "{family}: {:?}", outcome.result);
        }
    }
}

#[test]
fn the_recipe_for_kubernetes_locks_a_pod() {
    let recipe: Value = serde_json::from_str(&block("json", "{")).expect("JSON");
    let mut lab = Lab::new();
    let mut add = request("ADD", &lab.pod.netns.path());
    for (key, value) in recipe.as_object().expect("an object") {
        add.netconf[key] = value.clone();
    }
    plugin(&mut add.command(), add.netconf.to_string().as_bytes()).succeeded();
    assert_is_locked(&mut lab);
}

/// What a service of a file for Compose says.
struct Service<'n>(&'n yaml::Node);

impl Service<'_> {
    fn word(&self, key: &str) -> Option<String> {
        self.0.get(key)?.scalar().map(str::to_owned)
    }

    fn list(&self, key: &str) -> Vec<String> {
        let items = self.0.get(key).map(yaml::Node::items).unwrap_or_default();
        items
            .iter()
            .filter_map(|item| item.scalar().map(str::to_owned))
            .collect()
    }

    fn waits_for_the_rules(&self) -> bool {
        let condition = self
            .0
            .get("depends_on")
            .and_then(|after| after.get("rules")?.get("condition")?.scalar());
        condition == Some("service_completed_successfully")
    }
}

#[test]
fn the_recipe_for_compose_locks_the_job() {
    let file = yaml::document(&block("yaml", "# compose.yaml")).expect("YAML");
    let services = file.get("services").expect("services");
    let service = |name: &str| Service(services.get(name).unwrap_or_else(|| panic!("no service {name}")));
    let (rules, proxy, job) = (service("rules"), service("proxy"), service("job"));
    let mut lab = Lab::new();
    for of_the_pod in [&rules, &proxy, &job] {
        assert_eq!(of_the_pod.word("network_mode").as_deref(), Some("service:lock"));
        assert_eq!(of_the_pod.list("cap_drop"), ["ALL"]);
    }
    assert!(proxy.waits_for_the_rules() && job.waits_for_the_rules());
    assert_eq!(
        (proxy.word("user"), job.word("user")),
        (Some("1337:1337".into()), Some("1000:1000".into()))
    );
    assert_eq!(job.list("security_opt"), ["no-new-privileges:true"]);
    assert_eq!(
        (rules.word("user").as_deref(), rules.list("cap_add")),
        (Some("0"), vec!["NET_ADMIN".to_owned()])
    );
    let mut apply = lab
        .pod
        .netns
        .command_with(Owner::ROOT, Capability::CAP_NET_ADMIN, SIDETRACK);
    Run::of(apply.args(rules.list("command"))).succeeded();
    for family in Family::BOTH {
        let outcome = lab.run(family, || Owner::APP.assume(), plain::udp, |_| {});
        assert_eq!(outcome.escaped, [""; 0], "{family}: {:?}", outcome.result);
    }
}
