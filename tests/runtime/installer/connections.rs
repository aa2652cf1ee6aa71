//! Connections of the node's pods by reason.

use std::net::TcpStream;

use super::attached::Attached;
use super::fixture::{Installer, eventually};
use crate::common::{Address, Caller, Pod};
use crate::program::apply;
use sidetrack::types::Family;

/// Makes so many connections from the pod, as the application. No server listens: the rules decide before that.
fn connect(pod: &Pod, port: u16, count: usize) {
    let to = (Address::PEER.of(Family::V4), port);
    let connect = || {
        for _ in 0..count {
            let refused = TcpStream::connect(to);
            assert!(refused.is_err(), "{refused:?}");
        }
        Ok(())
    };
    Caller::App.run(pod, connect).expect("refused connections");
}

#[test]
fn installer_counts_connections_of_pods_by_reason() {
    let attached = Attached::new();
    let [older, later] = [(); 2].map(|()| Pod::new());
    let options = ["--counters", "--exclude-outbound-ports", "3306"];
    for pod in [&older, &later] {
        apply(&pod.netns, "nftables", &options);
        connect(pod, 3306, 3);
        connect(pod, 9090, 4);
    }
    attached.attach("older", &attached.file(&older.netns.path()), &[]);
    let installer = Installer::start(attached.command(&["install", "--repair", "report"]));
    let count = |verdict: &str, reason: &str| {
        installer.metric(&format!(
            "sidetrack_node_connections_total{{direction=\"outbound\",verdict=\"{verdict}\",reason=\"{reason}\"}}"
        ))
    };
    eventually("the first pod is read", || {
        let text = installer.get("/metrics").1;
        let is_there = text.contains("sidetrack_node_connections_total{");
        if is_there { Ok(()) } else { Err(text) }
    });
    assert_eq!(
        count("accept", "excluded_outbound_ports"),
        0.0,
        "an earlier installer has counted these"
    );
    attached.attach("later", &attached.file(&later.netns.path()), &[]);
    eventually("a later pod's connections are added", || {
        let counts = [
            count("accept", "excluded_outbound_ports"),
            count("redirect", "outbound_to_the_proxy"),
        ];
        if counts == [3.0, 4.0] { Ok(()) } else { Err(counts) }
    });
}
