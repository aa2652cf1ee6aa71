//! Standard input of the CNI plugin: any bytes. An accepted configuration leads to a sound plan.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidetrack::cni::attach::verdict;
use sidetrack::cni::netconf::NetConf;
use sidetrack::cni::result::Answer;
use sidetrack::cni::version::Version;
use sidetrack::mesh::pod::PodName;
use sidetrack::mesh::verdict::Verdict;
use sidetrack_fuzz::plan_and_render;

fuzz_target!(|data: &[u8]| {
    let pod = PodName {
        namespace: Some("shop".to_owned()),
        name: Some("web-0".to_owned()),
    };
    match NetConf::parse(data).and_then(|netconf| verdict(&netconf, &pod)) {
        Ok(Verdict::Redirected(redirected)) => plan_and_render(&redirected.settings.config),
        Ok(Verdict::Skipped(skipped)) => assert!(!skipped.reason.is_empty()),
        Err(error) => {
            let answer = Answer::error(Version::NEWEST, &error);
            let response: serde_json::Value = serde_json::from_slice(&answer.stdout).expect("JSON");
            assert!(response["code"].is_u64() && response["msg"].is_string());
        }
    }
});
