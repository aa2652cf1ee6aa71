//! Options with a fixed set of values.

use std::fmt;

use super::Invalid;

/// A type with a fixed set of named values.
pub trait Choice: Copy + 'static {
    /// The values in the order that help shows them, each with its name.
    const ALL: &'static [(Self, &'static str)];

    /// The names that other tools use. Not shown in help.
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
    /// The mesh of the proxy that traffic is redirected to.
    MeshName {
        /// Istio, or a proxy that is configured like Istio's.
        Istio = "istio",
        /// Kuma.
        Kuma = "kuma",
        /// Linkerd.
        Linkerd = "linkerd",
        /// Consul.
        Consul = "consul",
        /// No mesh: an Envoy with a custom configuration.
        None = "none",
    }
}

choice! {
    /// Which IP families are redirected.
    IpFamily {
        /// IPv4, and IPv6 if the pod can use it.
        Auto = "auto",
        /// Only IPv4; IPv6 is not redirected.
        Ipv4 = "ipv4",
        /// Only IPv6; IPv4 is not redirected.
        Ipv6 = "ipv6",
        /// Both; an error if IPv6 cannot be redirected.
        Dual = "dual",
    }
}

choice! {
    /// How inbound connections reach the proxy.
    InboundMode {
        /// By destination NAT. The proxy asks the kernel for the original destination.
        Redirect = "redirect",
        /// Unchanged, to a transparent socket: the app sees the client's address.
        Tproxy = "tproxy",
    }
}

choice! {
    /// What becomes of traffic of one direction that is neither redirected nor excluded.
    Policy {
        /// It passes.
        Allow = "allow",
        /// It is rejected.
        ProxyOnly = "proxy-only",
    }
}

choice! {
    /// The backend that installs the rules.
    Backend {
        /// nftables, or legacy iptables if the kernel has no NAT in nf_tables.
        Auto = "auto",
        /// nf_tables over netlink: one table, or one for each IP family before Linux 5.2.
        Nftables = "nftables",
        /// nf_tables over netlink, one table for each IP family.
        NftablesPerFamily = "nftables-per-family",
        /// `iptables-nft-restore`.
        IptablesNft = "iptables-nft",
        /// `iptables-legacy-restore`.
        IptablesLegacy = "iptables-legacy",
    }
}

choice! {
    /// The output format of a dry run.
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
    /// The log level.
    LogLevel {
        /// Failures.
        Error = "error" | "fatal" | "panic",
        /// Warnings.
        Warn = "warn" | "warning",
        /// Changes.
        Info = "info",
        /// Details of each change.
        Debug = "debug",
        /// Every message to and from the kernel.
        Trace = "trace",
    }
}

choice! {
    /// The log format.
    LogFormat {
        /// Lines of text.
        Text = "text" | "plain",
        /// One JSON object per line.
        Json = "json",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for (backend, name) in Backend::ALL {
            assert_eq!(Backend::parse(name).unwrap(), *backend);
            assert_eq!(backend.to_string(), *name);
        }
    }

    #[test]
    fn aliases_of_other_tools_are_read() {
        assert_eq!(LogFormat::parse("plain"), Ok(LogFormat::Text));
        assert_eq!(LogLevel::parse("warning"), Ok(LogLevel::Warn));
        assert_eq!(LogLevel::parse("panic"), Ok(LogLevel::Error));
    }

    #[test]
    fn unknown_names_are_rejected_with_the_valid_names() {
        let error = IpFamily::parse("IPv4").unwrap_err();
        assert_eq!(error.expected, "one of auto, ipv4, ipv6, dual");
    }
}
