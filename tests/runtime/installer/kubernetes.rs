//! Pods that lack their rules, by way of the API server: a server on loopback that gives the recorded answers of real
//! ones (1.20, and 1.34 with the policies of `cni-conf/kubernetes/restart`; `scripts/test-admission` asks one).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Map, Value, json};

use super::attached::{Attached, UID};
use super::fixture::{Installer, Written, eventually};
use crate::cni::has_rules;
use crate::common::{Pod, output_of};

/// The token of the service account.
const TOKEN: &str = "a.service.account";
/// The label of pods that bypass their proxy.
const LABEL: &str = "traffic.sidetrack.dev/bypasses-proxy";

pub fn recorded(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/kubernetes")
        .join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("JSON")
}

/// The recorded pod, as a running one that a ReplicaSet would recreate.
fn pod(name: &str) -> Value {
    let mut pod = recorded("pod-200.json");
    assert_eq!(pod["metadata"]["uid"], UID);
    pod["metadata"]["name"] = name.into();
    pod["metadata"]["ownerReferences"] = json!([{ "kind": "ReplicaSet", "name": "web", "controller": true }]);
    pod["status"]["phase"] = "Running".into();
    pod
}

const EVENTS: &str = "/api/v1/namespaces/shop/events";

fn path(name: &str) -> String {
    format!("/api/v1/namespaces/shop/pods/{name}")
}

/// The API server.
pub struct Server {
    child: Child,
    port: String,
    account: PathBuf,
    answers: PathBuf,
    /// Its port, then each request before it is answered.
    written: Written,
}

impl Server {
    /// One with these answers.
    pub fn start(root: &Path, answers: Map<String, Value>) -> Self {
        let account = root.join("account");
        fs::create_dir(&account).expect("a directory");
        fs::write(account.join("token"), format!("{TOKEN}\n")).expect("a file");
        certificate(&account.join("ca.crt"), &root.join("key"));
        let file = root.join("answers");
        write_answers(&file, answers);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubernetes/server.py");
        let written = Written::new();
        let child = Command::new("python3")
            .arg(script)
            .args([&account.join("ca.crt"), &root.join("key"), &file])
            .stdout(written.stdio())
            .spawn()
            .expect("python3");
        let mut server = Self {
            child,
            port: String::new(),
            account,
            answers: file,
            written,
        };
        eventually("a port", || {
            let first = server.written.lines().into_iter().next();
            server.port = first.ok_or("the server does not listen yet")?;
            Ok::<_, &str>(())
        });
        server
    }

    /// Answers like this from now on.
    pub fn answer(&self, answers: Map<String, Value>) {
        write_answers(&self.answers, answers);
    }

    pub fn requests(&self) -> Vec<Value> {
        let lines = self.written.lines();
        let requests = lines.iter().skip(1);
        requests.map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Requests of this method, or to this path, by their beginning.
    pub fn requests_to(&self, begin: &str) -> Vec<Value> {
        let mut requests = self.requests();
        requests.retain(|request| request["request"].as_str().expect("a text").starts_with(begin));
        requests
    }

    /// The installer in a pod of the cluster.
    fn installer(&self, attached: &Attached, mode: &str) -> Installer {
        self.installer_with(attached, &["--repair", mode])
    }

    pub fn installer_with(&self, attached: &Attached, options: &[&str]) -> Installer {
        let mut command = attached.command(&[&["install"], options].concat());
        command
            .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            .env("KUBERNETES_SERVICE_PORT", &self.port)
            .env("SIDETRACK_NODE_SERVICE_ACCOUNT_DIR", &self.account);
        Installer::start(command)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// At one instant: the server reads the file for each request.
fn write_answers(file: &Path, answers: Map<String, Value>) {
    let new = file.with_extension("new");
    fs::write(&new, Value::Object(answers).to_string()).expect("a file");
    fs::rename(&new, file).expect("its place");
}

/// A certificate for 127.0.0.1 that vouches for itself.
fn certificate(path: &Path, key: &Path) {
    let arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=kube-apiserver \
                     -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE";
    let mut openssl = Command::new("openssl");
    openssl.args(arguments.split_whitespace()).stderr(Stdio::null());
    output_of(openssl.arg("-keyout").arg(key).arg("-out").arg(path));
}

/// Attaches a pod that lacks its rules.
fn attach(attached: &Attached, name: &str) -> Pod {
    let pod = Pod::new();
    attached.attach(name, &attached.file(&pod.netns.path()), &[]);
    pod
}

fn failures(installer: &Installer, reason: &str) -> f64 {
    installer.metric(&format!(
        "sidetrack_node_pod_repair_failures_total{{reason=\"{reason}\"}}"
    ))
}

/// The reasons of the events about a pod.
fn events_about(server: &Server, name: &str) -> Vec<String> {
    let requests = server.requests_to(&format!("POST {EVENTS}"));
    let about = requests
        .iter()
        .filter(|request| request["body"]["involvedObject"]["name"] == name);
    about
        .map(|request| request["body"]["reason"].as_str().expect("a reason").to_owned())
        .collect()
}

fn treated(installer: &Installer, mode: &str) -> f64 {
    installer.metric(&format!("sidetrack_node_pod_repairs_total{{mode=\"{mode}\"}}"))
}

/// Each pod has another answer. A failure of one is reported, and does not affect the others.
#[test]
fn pods_are_labelled_by_uid_and_refusals_are_reported() {
    let attached = Attached::new();
    let refused = |code: u16, message: &str| json!({ "kind": "Status", "code": code, "message": message });
    let answers = [
        ("web-0", 200, pod("web-0")),
        ("other", 422, recorded("other-uid-422.json")),
        ("unauthorized", 401, recorded("unauthorized-401.json")),
        ("forbidden", 403, recorded("label-403.json")),
        ("gone", 404, recorded("pod-404.json")),
        ("busy", 429, refused(429, "too many requests")),
        ("broken", 500, Value::Null),
    ];
    let mut pods: Vec<Pod> = Vec::new();
    for (name, ..) in &answers {
        pods.push(attach(&attached, name));
    }
    let answers = answers
        .into_iter()
        .map(|(name, status, body)| (format!("PATCH {}/status", path(name)), json!([status, body])));
    let event = (format!("POST {EVENTS}"), json!([201, {}]));
    let server = Server::start(attached.machine.root(), answers.chain([event]).collect());
    let installer = server.installer(&attached, "label");
    for said in [
        "request to the API server done pod=\"shop/web-0\" container=\"id-web-0\" done=\"labelled\"",
        "401: Unauthorized. The token is not taken",
        "403: pods \\\"far-0\\\" is forbidden: ValidatingAdmissionPolicy",
        "no repair needed pod=\"shop/gone\" container=\"id-gone\" why=\"it has gone",
        "429: too many requests",
        "500: no reason is given",
        "no repair needed pod=\"shop/other\" container=\"id-other\" why=\"it has gone, or another pod has its name by now\"",
    ] {
        installer.eventually_logs(said);
    }
    eventually("all is counted", || {
        match (treated(&installer, "label"), failures(&installer, "api")) {
            (1.0, 4.0) => Ok(()),
            other => Err(other),
        }
    });
    installer.eventually_ready();
    assert!(!installer.log().contains(TOKEN));

    let requests = server.requests();
    assert!(
        requests
            .iter()
            .all(|request| request["authorization"] == format!("Bearer {TOKEN}"))
    );
    let patched = server.requests_to(&format!("PATCH {}/status", path("web-0")));
    assert_eq!(patched.len(), 1, "{requests:#?}");
    assert_eq!(patched[0]["type"], "application/merge-patch+json");
    let patch = json!({ "metadata": { "uid": UID, "labels": { LABEL: "true" } } });
    assert_eq!(patched[0]["body"], patch);
    assert_eq!(server.requests_to("GET").len(), 0, "its account may not read");
    let events = server.requests_to("POST");
    assert_eq!(events.len(), 1, "{events:#?}");
    let event = &events[0]["body"];
    assert_eq!(
        (&event["reason"], &event["type"]),
        (&json!("BypassesProxy"), &json!("Warning"))
    );
    let about = json!({ "apiVersion": "v1", "kind": "Pod", "namespace": "shop", "name": "web-0", "uid": UID });
    assert_eq!(event["involvedObject"], about);
    assert!(event["lastTimestamp"].as_str().is_some_and(|time| time.ends_with('Z')));
    assert!(pods.iter().all(|pod| !has_rules(&pod.netns)));
}

#[test]
fn recreated_pods_are_evicted_and_others_labelled() {
    for (restart, expected) in [("Always", "evicted"), ("Never", "labelled")] {
        let attached = Attached::new();
        let _netns = attach(&attached, "web-0");
        let mut found = pod("web-0");
        found["spec"]["restartPolicy"] = restart.into();
        let eviction = format!("{}/eviction", path("web-0"));
        let answers = [
            (format!("PATCH {}/status", path("web-0")), json!([200, found])),
            (
                format!("POST {eviction}"),
                json!([201, { "kind": "Status", "status": "Success" }]),
            ),
            // Who may not write events does the rest all the same.
            (
                "POST /api/v1/namespaces/shop/events".to_owned(),
                json!([403, recorded("forbidden-403.json")]),
            ),
        ];
        let server = Server::start(attached.machine.root(), answers.into_iter().collect());
        let installer = server.installer(&attached, "delete");
        installer.eventually_logs(&format!(
            "request to the API server done pod=\"shop/web-0\" container=\"id-web-0\" done=\"{expected}\""
        ));
        assert!(
            installer
                .log()
                .contains("the event that tells of it could not be written")
        );
        assert_eq!(failures(&installer, "api"), 0.0);
        let evictions = server.requests_to(&format!("POST {eviction}"));
        let events = server.requests_to("POST /api/v1/namespaces/shop/events");
        let reason = events[0]["body"]["message"].as_str().expect("a message").to_owned();
        if expected == "evicted" {
            assert_eq!(evictions.len(), 1);
            let body = json!({
                "apiVersion": "policy/v1",
                "kind": "Eviction",
                "metadata": { "namespace": "shop", "name": "web-0" },
                "deleteOptions": { "preconditions": { "uid": UID } },
            });
            assert_eq!(evictions[0]["body"], body);
        } else {
            assert_eq!(evictions.len(), 0);
            assert!(reason.contains("its restart policy is Never"), "{reason}");
        }
        assert_eq!(server.requests_to("PATCH").len(), 1, "labelled in any case");
        assert_eq!(server.requests_to("DELETE").len(), 0);
    }
}

/// Two pods whose PodDisruptionBudget allows no eviction come first, and wait for each other for ever.
#[test]
fn pods_under_a_disruption_budget_do_not_delay_others() {
    let attached = Attached::new();
    let names = ["blocked-0", "blocked-1", "lonely", "web-0", "web-1"];
    let _netns = names.map(|name| attach(&attached, name));
    let mut answers = Map::new();
    for name in names {
        let mut found = pod(name);
        if name == "lonely" {
            found["metadata"]["ownerReferences"] = Value::Null;
        }
        let eviction = match name.starts_with("blocked") {
            true => json!([429, recorded("eviction-429.json")]),
            false => json!([201, recorded("eviction-201.json")]),
        };
        answers.insert(format!("PATCH {}/status", path(name)), json!([200, found]));
        answers.insert(format!("POST {}/eviction", path(name)), eviction);
    }
    answers.insert(format!("POST {EVENTS}"), json!([201, {}]));
    let server = Server::start(attached.machine.root(), answers);
    let installer = server.installer_with(&attached, &["--repair", "delete", "--eviction-interval", "1h"]);
    installer.eventually_logs("pod=\"shop/web-1\" container=\"id-web-1\" done=\"labelled; its eviction waits");
    for said in [
        "pod=\"shop/lonely\" container=\"id-lonely\" done=\"labelled\"",
        "pod=\"shop/web-0\" container=\"id-web-0\" done=\"evicted\"",
        "pod=\"shop/blocked-0\" container=\"id-blocked-0\" reason=\"disruption-budget\"",
        "Cannot evict pod as it would violate the pod's disruption budget. The disruption budget blocked needs 1 healthy",
    ] {
        assert!(installer.log().contains(said), "{said}: {}", installer.log());
    }
    for name in names {
        let labelled = server.requests_to(&format!("PATCH {}/status", path(name)));
        assert_eq!(labelled.len(), 1, "{name}: at once");
    }
    let evictions = |name: &str| server.requests_to(&format!("POST {}/eviction", path(name))).len();
    assert_eq!(names.map(evictions), [1, 1, 0, 1, 0], "one in an hour");
    for (name, expected) in [
        ("blocked-0", vec!["BypassesProxy", "EvictionBlocked"]),
        ("lonely", vec!["BypassesProxy"]),
        ("web-0", vec!["BypassesProxy", "EvictedForRedirection"]),
        ("web-1", vec!["BypassesProxy"]),
    ] {
        assert_eq!(events_about(&server, name), expected, "{name}");
    }
    assert_eq!(failures(&installer, "disruption-budget"), 2.0);
    assert_eq!(failures(&installer, "api"), 0.0);
    // Pods that were only labelled are not counted as restarted, except the one without an owner.
    assert_eq!(treated(&installer, "delete"), 2.0);
}

#[test]
fn pace_of_evictions_is_configurable() {
    let attached = Attached::new();
    let names = ["web-0", "web-1", "web-2"];
    let _netns = names.map(|name| attach(&attached, name));
    let mut answers = Map::new();
    for name in names {
        answers.insert(format!("PATCH {}/status", path(name)), json!([200, pod(name)]));
        answers.insert(
            format!("POST {}/eviction", path(name)),
            json!([201, recorded("eviction-201.json")]),
        );
    }
    let server = Server::start(attached.machine.root(), answers);
    let installer = server.installer_with(&attached, &["--repair", "delete", "--eviction-interval", "100ms"]);
    eventually("all are evicted before the next look", || {
        match treated(&installer, "delete") {
            3.0 => Ok(()),
            other => Err(other),
        }
    });
}

/// No server, another server, no account: reported and counted, and the installer continues.
#[test]
fn unreachable_api_server_is_reported_and_affects_nothing_else() {
    let attached = Attached::new();
    let _netns = attach(&attached, "web-0");
    let answers = || {
        [(format!("PATCH {}/status", path("web-0")), json!([200, pod("web-0")]))]
            .into_iter()
            .collect()
    };
    let mut server = Server::start(attached.machine.root(), answers());
    let fails = |server: &Server, said: &str| {
        let installer = server.installer(&attached, "label");
        installer.eventually_logs("repair failed pod=\"shop/web-0\" container=\"id-web-0\" reason=\"api\"");
        assert!(installer.log().contains(said), "{said}: {}", installer.log());
        assert_eq!(failures(&installer, "api"), 1.0);
        installer.eventually_ready();
        assert_eq!(server.requests(), [Value::Null; 0], "no other server gets the token");
    };
    let root = attached.machine.root();
    certificate(&server.account.join("ca.crt"), &root.join("other-key"));
    fails(&server, "certificate");
    fs::remove_file(server.account.join("token")).expect("a file");
    fails(&server, "automountServiceAccountToken");
    fs::write(server.account.join("token"), TOKEN).expect("a file");
    server.child.kill().expect("it ends");
    server.child.wait().expect("its end");
    fails(&server, "Connection refused");
}
