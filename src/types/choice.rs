//! Options with a fixed list of values.

use std::fmt;

use super::Invalid;

/// One of a fixed list of values, each with a name.
pub trait Choice: Copy + 'static {
    /// The values in the order that help shows them, each with its name.
    const ALL: &'static [(Self, &'static str)];

    /// What other tools call values. Not shown in help.
    const ALIASES: &'static [(Self, &'static str)] = &[];

    /// Reads a name.
    ///
    /// # Errors
    /// The text is none of the names.
    fn parse(text: &str) -> Result<Self, Invalid> {
        let text = text.trim();
        let mut names = Self::ALL.iter().chain(Self::ALIASES);
        names
            .find(|(_, name)| *name == text)
            .map(|(choice, _)| *choice)
            .ok_or_else(|| {
                let names: Vec<_> = Self::ALL.iter().map(|(_, name)| *name).collect();
                Invalid::new(text, format!("one of {}", names.join(", ")))
            })
    }
}

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $text:literal $(| $alias:literal)*,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$value_doc])* $value,)* }

        impl Choice for $name {
            const ALL: &'static [(Self, &'static str)] = &[$((Self::$value, $text),)*];
            const ALIASES: &'static [(Self, &'static str)] = &[$($((Self::$value, $alias),)*)*];
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$value => $text,)* })
            }
        }
    };
}

choice! {
    /// Whose proxy redirected traffic goes to.
    MeshName {
        /// Istio's, or one that is set up like it.
        Istio = "istio",
        /// Kuma's.
        Kuma = "kuma",
        /// Linkerd's.
        Linkerd = "linkerd",
        /// Consul's.
        Consul = "consul",
        /// That of no mesh: an Envoy with a configuration of one's own.
        None = "none",
    }
}

choice! {
    /// Which IP families are redirected.
    IpFamily {
        /// IPv4, and IPv6 wherever the pod could use it.
        Auto = "auto",
        /// IPv4 alone; IPv6 is left untouched.
        Ipv4 = "ipv4",
        /// IPv6 alone; IPv4 is left untouched.
        Ipv6 = "ipv6",
        /// Both; an error where IPv6 cannot be redirected.
        Dual = "dual",
    }
}

choice! {
    /// How inbound connections get to the proxy.
    InboundMode {
        /// By translating their destination. The proxy asks the kernel where they were going.
        Redirect = "redirect",
        /// As they are, to a transparent socket: the app sees the client's own address.
        Tproxy = "tproxy",
    }
}

choice! {
    /// What the rules are written with.
    Backend {
        /// nftables, or legacy iptables where the kernel has no NAT in nf_tables.
        Auto = "auto",
        /// nf_tables over netlink.
        Nftables = "nftables",
        /// `iptables-nft-restore`.
        IptablesNft = "iptables-nft",
        /// `iptables-legacy-restore`.
        IptablesLegacy = "iptables-legacy",
    }
}

choice! {
    /// How a dry run prints the plan.
    Output {
        /// A script for `nft -f`.
        Nft = "nft",
        /// Input for `iptables-restore` and `ip6tables-restore`.
        Iptables = "iptables",
        /// The plan as JSON, each rule with its intent.
        Json = "json",
    }
}

choice! {
    /// How much is logged.
    LogLevel {
        /// What failed.
        Error = "error" | "fatal" | "panic",
        /// What needs attention.
        Warn = "warn" | "warning",
        /// What was done.
        Info = "info",
        /// How it was done.
        Debug = "debug",
        /// Every message to and from the kernel.
        Trace = "trace",
    }
}

choice! {
    /// How log lines look.
    LogFormat {
        /// For people.
        Text = "text" | "plain",
        /// One JSON object a line.
        Json = "json",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back() {
        for (backend, name) in Backend::ALL {
            assert_eq!(Backend::parse(name).unwrap(), *backend);
            assert_eq!(backend.to_string(), *name);
        }
    }

    #[test]
    fn names_of_other_tools_are_read() {
        assert_eq!(LogFormat::parse("plain"), Ok(LogFormat::Text));
        assert_eq!(LogLevel::parse("warning"), Ok(LogLevel::Warn));
        assert_eq!(LogLevel::parse("panic"), Ok(LogLevel::Error));
    }

    #[test]
    fn another_name_is_refused_with_the_list_of_names() {
        let error = IpFamily::parse("IPv4").unwrap_err();
        assert_eq!(error.expected, "one of auto, ipv4, ipv6, dual");
    }
}
