//! Probes in a running pod: no probe may listen on a port in place of the pod's processes.

use std::net::SocketAddr;

use super::{Expected, Subject, Trial};
use crate::types::Port;

impl Trial {
    /// The probes that need no socket of their own: outbound connections of the application, if the proxy already
    /// listens at one of `listening`.
    #[must_use]
    pub fn beside(mut self, listening: &[SocketAddr]) -> Self {
        let takes = |port: Port, is_v4: bool| {
            listening.iter().any(|at| {
                // A socket of both families is an IPv6 one.
                let of_family = at.is_ipv4() == is_v4 || (is_v4 && at.ip().is_unspecified());
                of_family && at.port() == port.get()
            })
        };
        self.probes.retain(|probe| match (probe.subject, probe.expected) {
            (Subject::Outbound, Expected::Captured(port)) => takes(port, probe.destination.is_ipv4()),
            _ => false,
        });
        let expected = |port: &Port| {
            self.probes
                .iter()
                .any(|probe| probe.expected == Expected::Captured(*port))
        };
        self.ports = self.ports.iter().copied().filter(expected).collect();
        self.ends.clear();
        self.stand_ins.clear();
        self.entries.clear();
        self.transparent = None;
        self
    }
}

#[cfg(test)]
mod tests {
    use crate::facts::Facts;
    use crate::options::Settings;
    use crate::plan::Plan;
    use crate::probe::{Owner, Subject, Surroundings, Trial, trial};
    use crate::types::{Gid, Id as _, Port, Uid};

    fn all() -> Trial {
        let (config, facts) = (Settings::default().config, Facts::default());
        let surroundings = Surroundings {
            routes: ["0.0.0.0/0", "::/0"].map(|net| net.parse().unwrap()).to_vec(),
            addresses: ["10.0.0.2", "fd00::2"].map(|address| address.parse().unwrap()).to_vec(),
            interfaces: Vec::new(),
            forwarding: Vec::new(),
            forwarding_links: Vec::new(),
            caller: Owner {
                uid: Uid::new(0).unwrap(),
                gid: Gid::new(0).unwrap(),
                mark: None,
            },
            may_switch: false,
        };
        let families = Plan::new(&config, &facts).unwrap().ruleset.families;
        trial(&config, &facts, families, &surroundings, Port::new(15002).unwrap())
    }

    #[test]
    fn keeps_only_probes_to_listening_ports() {
        let beside = |listening: &[&str]| {
            let listening: Vec<_> = listening.iter().map(|at| at.parse().unwrap()).collect();
            let trial = all().beside(&listening);
            let mut probes = trial.probes.iter();
            assert!(probes.all(|probe| probe.subject == Subject::Outbound));
            (trial.probes.len(), trial.ports.len())
        };
        assert!(all().probes.len() > 2);
        assert_eq!(beside(&[]), (0, 0));
        assert_eq!(beside(&["0.0.0.0:15006", "10.0.0.2:8080"]), (0, 0));
        assert_eq!(beside(&["0.0.0.0:15001"]), (1, 1));
        assert_eq!(beside(&["127.0.0.1:15001", "[::1]:15001"]), (2, 1));
        assert_eq!(beside(&["[::]:15001"]), (2, 1));
    }
}
