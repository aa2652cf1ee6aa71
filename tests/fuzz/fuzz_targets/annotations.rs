//! Annotations of a pod: alternating names and values, separated by zero bytes. A value reaches a rule only as a parsed
//! type, and accepted annotations stay within the limits of every backend.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value, json};
use sidetrack::cni::attach::verdict;
use sidetrack::cni::netconf::NetConf;
use sidetrack::mesh::pod::PodName;
use sidetrack::mesh::verdict::Verdict;
use sidetrack_fuzz::{plan_and_render_of_pod, texts};

fuzz_target!(|data: &[u8]| {
    let mut texts = texts(data);
    let mut annotations = Map::new();
    while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
        annotations.insert(name, Value::String(value));
    }
    let netconf = json!({
        "cniVersion": "1.1.0",
        "name": "pods",
        "type": "sidetrack",
        "select": "always",
        "runtimeConfig": {"io.kubernetes.cri.pod-annotations": annotations},
    });
    let pod = PodName {
        namespace: Some("shop".to_owned()),
        name: Some("web-0".to_owned()),
    };
    let netconf = NetConf::parse(netconf.to_string().as_bytes()).expect("a NetConf");
    if let Ok(Verdict::Redirected(redirected)) = verdict(&netconf, &pod) {
        plan_and_render_of_pod(&redirected.settings.config);
    }
});
