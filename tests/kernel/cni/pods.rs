//! Pods: which of them are redirected, and that the redirection works under adverse conditions.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Map, Value, json};
use sidetrack::cni::attach;

use sidetrack::cni::netconf::NetConf;
use sidetrack::facts::Facts;
use sidetrack::mesh::pod::PodName;
use sidetrack::mesh::verdict::Verdict;
use sidetrack::options::table;
use sidetrack::plan::Plan;
use sidetrack::types::Family;

use super::{ANNOTATIONS, Request, has_rules, plugin, request};
use crate::cases;
use crate::common::{Caller, Netns, Owner, Pod, Server, To, Transport, call, output_of};
use crate::plans;
use crate::program::state;

#[test]
fn traffic_of_injected_pod_is_captured_in_both_directions_and_families() {
    let pod = Pod::new();
    let _servers = [
        Server::start(&pod.netns, "pod", Owner::ROOT, &[22, 8080, 15001, 15006]),
        Server::start(&pod.peer, "peer", Owner::ROOT, &[9090, 3306]),
    ];
    request("ADD", &pod.netns.path())
        .annotated("traffic.sidecar.istio.io/excludeInboundPorts", "22")
        .annotated("traffic.sidecar.istio.io/excludeOutboundPorts", "3306")
        .succeeds();
    let calls = [
        (Caller::App, To::Peer(9090), ("pod", 15001)),
        (Caller::App, To::Peer(3306), ("peer", 3306)),
        (Caller::Proxy, To::Peer(9090), ("peer", 9090)),
        (Caller::Peer, To::Pod(8080), ("pod", 15006)),
        (Caller::Peer, To::Pod(22), ("pod", 22)),
    ];
    for family in Family::BOTH {
        for (caller, to, landing) in calls {
            let call = call(&pod, Transport::Tcp, caller, to, family).expect("a connection");
            let arrival = call.arrival.expect("an answer");
            assert_eq!(
                (arrival.server.as_str(), arrival.port),
                landing,
                "{family}: {caller:?} to {to:?}"
            );
        }
    }
}

/// Istio injects a pod with the label `true` beside the annotation `false`, and runtimes hand no labels over. A pod
/// with templates of its own is injected, too.
#[test]
fn traffic_of_injected_pod_is_captured_with_any_injector_settings() {
    for (name, value) in [
        ("sidecar.istio.io/inject", "false"),
        ("linkerd.io/inject", "disabled"),
        ("inject.istio.io/templates", "custom,sidetrack"),
    ] {
        let pod = Pod::new();
        let _servers = [
            Server::start(&pod.netns, "pod", Owner::ROOT, &[8080, 15001, 15006]),
            Server::start(&pod.peer, "peer", Owner::ROOT, &[9090]),
        ];
        request("ADD", &pod.netns.path()).annotated(name, value).succeeds();
        for (caller, to, port) in [
            (Caller::App, To::Peer(9090), 15001),
            (Caller::Peer, To::Pod(8080), 15006),
        ] {
            let call = call(&pod, Transport::Tcp, caller, to, Family::V4).expect("a connection");
            let arrival = call.arrival.expect("an answer");
            assert_eq!(
                (arrival.server.as_str(), arrival.port),
                ("pod", port),
                "{name}: {caller:?} to {to:?}"
            );
        }
    }
}

#[test]
fn skipped_pods_have_no_rules_and_the_reason_is_logged() {
    let netns = Netns::new();
    let add = || request("ADD", &netns.path());
    let names = |namespace: &str, name: &str| format!("K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}");
    let cases = [
        (add().with("select", "never".into()), "select is never"),
        (
            add().with("runtimeConfig", json!({ ANNOTATIONS: {} })),
            "no annotation of an injected sidecar",
        ),
        (
            add().annotated("sidecar.istio.io/interceptionMode", "NONE"),
            "interception mode is NONE",
        ),
        (
            add().with(
                "runtimeConfig",
                json!({ ANNOTATIONS: { "sidecar.istio.io/inject": "false" } }),
            ),
            "injection is disabled",
        ),
        (add().annotated("traffic.sidetrack.dev/redirect", "false"), "is false"),
        (
            add().variable("CNI_ARGS", &names("kube-system", "coredns-0")),
            "kube-system",
        ),
        (
            add()
                .variable("CNI_ARGS", &names("sidetrack-system", "sidetrack-node-x7k2p"))
                .with("runtimeConfig", Value::Null),
            "installer",
        ),
        (
            add()
                .with("runtimeConfig", Value::Null)
                .with("onMissingAnnotations", "pass".into()),
            "its annotations are unknown",
        ),
    ];
    for (add, reason) in cases {
        let run = add.succeeds();
        let lines: Vec<&str> = run.stderr.lines().collect();
        assert!(lines.len() == 1 && lines[0].contains(reason), "{reason}: {run:?}");
        assert!(
            lines[0].contains("pod=") && lines[0].contains("not redirected"),
            "{run:?}"
        );
        assert!(!has_rules(&netns), "{reason}");
    }
    let error = add()
        .with("runtimeConfig", Value::Null)
        .with("capabilities", json!({}))
        .fails(101);
    assert!(
        error["details"].as_str().expect("text").contains("capabilities"),
        "{error}"
    );
    assert!(!has_rules(&netns));
}

/// Some ADDs at once.
fn add_all(namespaces: &[Netns]) {
    thread::scope(|scope| {
        for netns in namespaces {
            scope.spawn(|| request("ADD", &netns.path()).succeeds());
        }
    });
}

#[test]
fn concurrent_adds_of_fifty_pods_succeed() {
    let (alone, namespaces) = (Netns::new(), [(); 50].map(|()| Netns::new()));
    add_all(std::slice::from_ref(&alone));
    add_all(&namespaces);
    let wanted = state(&alone, "nftables");
    for netns in &namespaces {
        assert_eq!(state(netns, "nftables"), wanted);
    }
}

#[test]
fn repeated_and_concurrent_adds_give_the_same_rules() {
    let netns = Netns::new();
    add_all(std::slice::from_ref(&netns));
    let wanted = state(&netns, "nftables");
    let other = || request("ADD", &netns.path()).with("redirect", json!({ "exclude-uids": "7" }));
    for number in 0..20 {
        let mut child = other()
            .command()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the program");
        let stdin = child.stdin.take().expect("a pipe");
        (&stdin)
            .write_all(other().netconf.to_string().as_bytes())
            .expect("it reads");
        drop(stdin);
        thread::sleep(Duration::from_micros(500 * number));
        child.kill().expect("it may be killed");
        child.wait().expect("its end");
    }
    add_all(&vec![netns.clone(); 16]);
    assert_eq!(state(&netns, "nftables"), wanted);
    // Another network of the same pod.
    request("ADD", &netns.path()).variable("CNI_IFNAME", "net1").succeeds();
    assert_eq!(state(&netns, "nftables"), wanted);
}

/// A process in a user namespace and a network namespace of its own, as a pod with `hostUsers: false` has.
struct OtherUsers(Child);

/// Where users and groups of the pod begin on the host.
const FIRST_ID: u32 = 100_000;

impl OtherUsers {
    fn start() -> Self {
        let mut unshare = Command::new("unshare");
        let child = unshare
            .args(["--user", "--net", "sleep", "600"])
            .spawn()
            .expect("unshare (util-linux)");
        let other = Self(child);
        let own = fs::read_link("/proc/self/ns/net").expect("a namespace");
        let deadline = Instant::now() + Duration::from_secs(60);
        while fs::read_link(other.netns()).is_ok_and(|netns| netns == own) {
            assert!(Instant::now() < deadline, "unshare did not get anywhere");
            thread::sleep(Duration::from_millis(5));
        }
        for map in ["uid_map", "gid_map"] {
            let path = format!("/proc/{}/{map}", other.0.id());
            fs::write(path, format!("0 {FIRST_ID} 65536\n")).expect("a map");
        }
        other
    }

    fn netns(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.0.id()).into()
    }

    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(self.netns()).expect("the namespace");
        thread::scope(|scope| {
            let inside = || {
                setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter");
                work()
            };
            scope.spawn(inside).join().expect("the work")
        })
    }
}

impl Drop for OtherUsers {
    fn drop(&mut self) {
        let _gone = self.0.kill().and_then(|()| self.0.wait());
    }
}

#[test]
fn pod_in_user_namespace_is_redirected_by_its_own_ids() {
    let pod = OtherUsers::start();
    let setup = "link set lo up\nlink add eth0 type veth peer name eth1\nlink set eth1 up\naddress add 10.99.0.2/24 dev eth0\nlink set eth0 up\n";
    let listener = pod.run(|| {
        let mut ip = Command::new("ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("ip (iproute2)");
        ip.stdin
            .take()
            .expect("a pipe")
            .write_all(setup.as_bytes())
            .expect("it reads");
        assert!(ip.wait().expect("its end").success());
        TcpListener::bind("0.0.0.0:15001").expect("a port")
    });
    request("ADD", &pod.netns()).succeeds();
    request("CHECK", &pod.netns()).succeeds();
    let connect = |id: u32| {
        pod.run(|| {
            Owner::new(FIRST_ID + id, FIRST_ID + id).assume().expect("root may");
            let nobody = SocketAddr::from(([10, 99, 0, 9], 80));
            TcpStream::connect_timeout(&nobody, Duration::from_millis(300)).map(drop)
        })
    };
    assert!(connect(1000).is_ok(), "the app's connection goes to the proxy");
    assert!(
        connect(1337).is_err(),
        "the proxy's connection leaves for its destination, which does not exist"
    );
    drop(listener);
}

/// Another process on the host holds the only lock of legacy iptables, and name lookups never get an answer: no pod
/// has to wait for that.
#[test]
fn add_waits_for_no_lock_or_name_service_of_the_host() {
    // Held in the place of the real one, which other tests need.
    let path = std::env::temp_dir().join(format!("sidetrack-{}-xtables.lock", std::process::id()));
    let lock = File::create(&path).expect("a lock");
    lock.lock().expect("it is free");
    File::options()
        .create(true)
        .append(true)
        .open(XTABLES_LOCK)
        .expect("a place to put it");
    for backend in ["auto", "iptables-nft", "iptables-legacy"] {
        let netns = Netns::new();
        for verb in ["ADD", "CHECK"] {
            let request = request(verb, &netns.path()).with("redirect", json!({ "backend": backend }));
            let mut command = request.command();
            on_a_stuck_host(&mut command, &path);
            plugin(&mut command, request.netconf.to_string().as_bytes()).succeeded();
        }
        let backend = backend.replace("auto", "nftables");
        assert!(
            state(&netns, &backend).to_lowercase().contains("sidetrack"),
            "{backend}"
        );
    }
    drop(lock);
    std::fs::remove_file(path).expect("the lock");
}

/// The lock of legacy iptables.
const XTABLES_LOCK: &str = "/run/xtables.lock";

/// Makes `command`, and what it runs, wait for ever when it opens nsswitch.conf(5), and find this lock for that of
/// iptables.
#[expect(unsafe_code, reason = "file systems are mounted between fork and exec")]
fn on_a_stuck_host(command: &mut Command, lock: &Path) {
    let lock = lock.to_owned();
    let cover = move || {
        let nothing: Option<&str> = None;
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
        mount(Some(&lock), XTABLES_LOCK, nothing, MsFlags::MS_BIND, nothing)?;
        mount(nothing, "/mnt", Some("tmpfs"), MsFlags::empty(), nothing)?;
        mkfifo("/mnt/mute", Mode::S_IRUSR)?;
        Ok(mount(
            Some("/mnt/mute"),
            "/etc/nsswitch.conf",
            nothing,
            MsFlags::MS_BIND,
            nothing,
        )?)
    };
    // SAFETY: the closure makes system calls; what nix allocates for paths is small enough for its stack buffers.
    unsafe { command.pre_exec(cover) };
}

#[test]
fn log_file_is_written_and_may_be_unwritable() {
    let netns = Netns::new();
    let path = std::env::temp_dir().join(format!("sidetrack-{}-cni.log", std::process::id()));
    let log = |path: &Path, format: &str| {
        request("ADD", &netns.path())
            .with("logFile", path.to_str().into())
            .with("logFormat", format.into())
            .with("logLevel", "debug".into())
            .succeeds()
    };
    let run = log(&path, "json");
    let written = fs::read_to_string(&path).expect("a log");
    assert_eq!(written, run.stderr);
    let lines: Vec<Value> = written
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let decision = lines
        .iter()
        .find(|line| line["message"].as_str().is_some_and(|text| text == "redirected"));
    assert_eq!(decision.expect("a decision")["span"]["pod"], "shop/web-0", "{written}");
    log(&path, "text");
    assert!(
        fs::read_to_string(&path).expect("a log").starts_with(&written),
        "it is appended to"
    );
    fs::remove_file(&path).expect("it may be removed");
    assert!(
        log(Path::new("/no/such/directory/log"), "text")
            .stderr
            .contains("cannot write to logFile")
    );
}

/// Where lookups are captured, the name servers are the pod's own.
#[test]
fn name_servers_of_the_host_are_not_used_for_the_pod() {
    let dns = "proxyMetadata: {ISTIO_META_DNS_CAPTURE: \"true\"}";
    let rules = |netns: &Netns, add: &Request| {
        add.succeeds();
        output_of(netns.command("nft").args(["list", "table", "inet", "sidetrack"]))
    };
    let netns = Netns::new();
    let mut add = request("ADD", &netns.path()).annotated("proxy.istio.io/config", dns);
    let everybody = rules(&netns, &add);
    assert!(
        everybody.contains("15053") && !everybody.contains("ip daddr 10.96.0.10"),
        "{everybody}"
    );
    add.netconf["runtimeConfig"]["dns"] = json!({ "servers": ["10.96.0.10"], "searches": [], "options": [] });
    let told = rules(&netns, &add);
    assert!(told.contains("10.96.0.10"), "{told}");
}

/// Every case of the table, as flags of an init container, as annotations, and in the NetConf.
#[test]
fn flags_annotations_and_netconf_give_the_same_rules() {
    let path = Path::new("/run/netns/pod");
    for (name, options) in cases::all_options() {
        let (mut annotated, mut configured) = (request("ADD", path), request("ADD", path));
        let mut words = options.iter();
        while let Some(flag) = words.next() {
            let option = flag.trim_start_matches("--");
            let known = table::find(option).expect("an option");
            let value = known.value_name.map_or("true", |_| words.next().expect("a value"));
            annotated = annotated.annotated(&format!("traffic.sidetrack.dev/{option}"), value);
            configured.netconf["redirect"][option] = value.into();
        }
        for request in [annotated, configured] {
            let netconf = NetConf::parse(request.netconf.to_string().as_bytes()).expect("a NetConf");
            let verdict = attach::verdict(&netconf, &PodName::default()).expect("a verdict");
            let Verdict::Redirected(redirected) = verdict else {
                panic!("{name}: {verdict:?}");
            };
            let plan = Plan::new(&redirected.settings.config, &Facts::default()).expect("a plan");
            assert_eq!(plan, plans::plan(options), "{name}");
        }
    }
}

/// What libcni makes of a plugin's part of a conflist (section 3 of the specification).
fn derived(conflist: &Value, plugin: &Value, handed: &Value) -> Value {
    let mut netconf = plugin.clone();
    netconf["cniVersion"] = conflist["cniVersion"].clone();
    netconf["name"] = conflist["name"].clone();
    let asked = plugin["capabilities"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, asked)| **asked == true);
    let config: Map<String, Value> = asked
        .filter_map(|(name, _)| Some((name.clone(), handed.get(name)?.clone())))
        .collect();
    if !config.is_empty() {
        netconf["runtimeConfig"] = config.into();
    }
    netconf
}

#[test]
fn each_conflist_works_with_sidetrack_last() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("cni-conf");
    let files: Vec<PathBuf> = fs::read_dir(directory)
        .expect("cni-conf")
        .map(|file| file.expect("a file").path())
        .collect();
    let conflists: Vec<&PathBuf> = files
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "conflist"))
        .collect();
    assert_eq!(conflists.len(), 2, "{files:?}");
    for path in conflists {
        let text = fs::read_to_string(path).expect("text");
        let conflist: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let plugins = conflist["plugins"].as_array().expect("a list");
        let types: Vec<&str> = plugins.iter().filter_map(|plugin| plugin["type"].as_str()).collect();
        assert_eq!(
            (types.len(), types.last()),
            (plugins.len(), Some(&"sidetrack")),
            "{types:?}"
        );
        let netns = Netns::new();
        let handed = json!({
            ANNOTATIONS: { "sidecar.istio.io/status": "{}" },
            "dns": { "servers": ["10.96.0.10"] },
            "portMappings": [],
        });
        let netconf = derived(&conflist, plugins.last().expect("us"), &handed);
        let mut add = request("ADD", &netns.path());
        add.netconf = netconf;
        add.succeeds();
        assert!(has_rules(&netns), "{}", path.display());
    }
}
