//! `--persist`: a redirection that survives reboots on a host with systemd, and its removal.

use clap::ArgMatches;

use super::failure::Failure;
use super::{args, output, redirection, settings};
use crate::host::{self, FIREWALLS, Files, LATE_FIREWALLS};
use crate::mesh;
use crate::options::Config;
use crate::types::{DnsServers, Output, Port};

/// The port of ssh.
const SSH: Option<Port> = Port::new(22);

/// Redirects the traffic of this host, now and after every boot, or prints how.
///
/// # Errors
/// The options do not go together; this is no such host; or a file or the rules cannot be put in place. Then both are
/// as they were.
pub fn apply(matches: &ArgMatches) -> anyhow::Result<()> {
    let layer = settings::layer(matches)?;
    let settings = mesh::settings(layer.clone()).map_err(Failure::from)?;
    here(matches)?;
    if settings.config.processes.cgroup.is_some() {
        let reason = "--persist and --proxy-cgroup: at boot the rules come before the proxy, whose cgroup does not exist \
                      yet, and a proxy that is started again has another one. Recognise it by --proxy-mark, or run `sidetrack \
                      apply` after each start of the proxy";
        return Err(Failure::Usage(vec![reason.to_owned()]).into());
    }
    for warning in warnings(&settings.config) {
        tracing::warn!("{warning}");
    }
    if settings.dry_run.requested {
        if settings.dry_run.output == Output::Json {
            let reason = "--persist and --output json: JSON is the plan alone; leave one of them out".to_owned();
            return Err(Failure::Usage(vec![reason]).into());
        }
        if let Err(error) = host::check() {
            tracing::warn!("without --dry-run this would fail: {error}");
        }
        let text = format!("{}{}", redirection::text(&settings)?, Files::lasting(&layer)?);
        return Ok(output::print(&text)?);
    }
    host::check()?;
    let files = Files::lasting(&layer)?;
    files.put()?;
    if let Err(error) = redirection::apply(&settings) {
        files.take_back();
        return Err(error);
    }
    files.tell();
    for firewall in FIREWALLS
        .iter()
        .chain(&LATE_FIREWALLS)
        .filter(|firewall| firewall.is_enabled())
    {
        tracing::info!(
            firewall = firewall.unit,
            "this service is enabled here and flushes rules: sidetrack.service starts after it, and again whenever it is \
             restarted or reloaded by systemctl"
        );
    }
    tracing::info!(
        "sidetrack.service applies this at every boot; it counts as started after \
         `systemctl daemon-reload && systemctl start sidetrack`, or the next boot"
    );
    Ok(())
}

/// Removes the files of `--persist`, and the redirection.
///
/// # Errors
/// The system or the permissions do not allow it.
pub fn cleanup(matches: &ArgMatches) -> anyhow::Result<()> {
    here(matches)?;
    let files = Files::none()?;
    files.put()?;
    files.tell();
    redirection::cleanup()
}

/// Checks that the namespace is the host's own.
fn here(matches: &ArgMatches) -> Result<(), Failure> {
    match args::text_or_variable(matches, "netns") {
        None => Ok(()),
        Some(_) => Err(Failure::Usage(vec![
            "--persist and --netns: --persist redirects the host's own network namespace; leave one of \
             them out"
                .to_owned(),
        ])),
    }
}

/// Warnings about defaults that suit a pod but not a host.
fn warnings(config: &Config) -> Vec<&'static str> {
    let mut warnings = Vec::new();
    let inbound = &config.inbound;
    let captured = |port| inbound.include_ports.contains(port) && !inbound.exclude_ports.contains(port);
    if SSH.is_some_and(captured) {
        warnings.push(
            "new ssh connections to this host go to the proxy, too: while it does not listen, logins fail. \
             --exclude-inbound-ports 22 leaves them alone",
        );
    }
    if config.dns.redirect && config.dns.servers == DnsServers::ResolvConf {
        warnings.push(
            "the name servers in /etc/resolv.conf are read at boot, before the network configures any: \
             name them with --dns-servers, or `all`",
        );
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Settings;
    use crate::types::parse_ports;

    #[test]
    fn warns_of_captured_ssh_port() {
        let mut config = Settings::default().config;
        assert!(warnings(&config)[0].contains("--exclude-inbound-ports 22"));
        config.inbound.exclude_ports = parse_ports("20-25").unwrap();
        assert_eq!(warnings(&config), Vec::<&str>::new());
        config.inbound.exclude_ports = parse_ports("").unwrap();
        config.inbound.include_ports = parse_ports("80,443").unwrap();
        assert_eq!(warnings(&config), Vec::<&str>::new());
        config.dns.redirect = true;
        assert!(warnings(&config)[0].contains("/etc/resolv.conf"));
        config.dns.servers = DnsServers::All;
        assert_eq!(warnings(&config), Vec::<&str>::new());
    }
}
