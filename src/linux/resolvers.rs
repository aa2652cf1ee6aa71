//! The name servers that this file system's processes ask (resolv.conf(5)).

use std::fs;
use std::io::{self, ErrorKind};
use std::net::IpAddr;

use thiserror::Error;

/// The file is there, and cannot be read.
#[derive(Debug, Error)]
#[error(
    "reading /etc/resolv.conf, whose name servers' lookups are to be captured: {0}. \
     Name the servers with --dns-servers, or pass --dns-servers all"
)]
pub struct ResolversError(#[source] io::Error);

/// The name servers of `/etc/resolv.conf`; none where there is no such file.
///
/// # Errors
/// It cannot be read.
pub fn read() -> Result<Vec<IpAddr>, ResolversError> {
    match fs::read_to_string("/etc/resolv.conf") {
        Ok(text) => Ok(name_servers(&text)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            tracing::debug!("no name servers: there is no /etc/resolv.conf");
            Ok(Vec::new())
        }
        Err(error) => Err(ResolversError(error)),
    }
}

/// The addresses in the lines that begin with `nameserver`, each once. The interface of a link-local one is left out.
fn name_servers(text: &str) -> Vec<IpAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let address = words
            .next()
            .and_then(|word| word.split('%').next())
            .and_then(|word| word.parse::<IpAddr>().ok())
            .map(|address| address.to_canonical());
        if let Some(address) = address
            && !servers.contains(&address)
        {
            servers.push(address);
        }
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_found_among_other_lines() {
        let text = "# nameserver 9.9.9.9\nsearch a.b\nnameserver 10.96.0.10\n nameserver\t::1 # no comment\n\
                    nameserver fe80::1%eth0\nnameserver ::ffff:10.96.0.10\nnameserver bad\nnameservers 1.1.1.1\n";
        let servers: Vec<String> = name_servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.96.0.10", "::1", "fe80::1"]);
    }
}
