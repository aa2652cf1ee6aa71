//! Sockets bound to an interface, in `sidetrack explain`: a redirect goes to an address that this interface does not
//! have.

use crate::simulate::{End, PacketPath, Verdict};
use crate::types::InterfaceName;

/// The interface that the packet's socket is bound to, if given.
///
/// # Errors
/// The name is invalid, or the packet is inbound.
pub fn read(name: Option<&str>, direction: &str) -> Result<Option<InterfaceName>, String> {
    let Some(name) = name else {
        return Ok(None);
    };
    if direction != "outbound" {
        return Err("--bound-to: only outbound packets have a local socket; leave it out".to_owned());
    }
    let name = InterfaceName::parse(name);
    let name = name.map_err(|invalid| format!("--bound-to: {:?} is not {}", invalid.value, invalid.expected))?;
    Ok(Some(name))
}

/// Logs a warning if the connection of such a socket is redirected to an address of the loopback interface.
pub fn warn(bound_to: Option<&InterfaceName>, path: &PacketPath) {
    let bound_to = bound_to.filter(|name| **name != InterfaceName::loopback());
    if let (Some(name), Verdict::Redirect(_), End::Delivered(to)) = (bound_to, path.verdict, &path.end)
        && to.ip().is_loopback()
    {
        let (address, option) = (to.ip(), if to.is_ipv4() { "-4" } else { "-6" });
        tracing::warn!(
            "the socket is bound to {name}, and {address} is no address of that interface: the connection is lost \
             unless there is a route. Either `ip {option} route add local {address} dev {name} table local metric 15006`, \
             or --exclude-interfaces {name}"
        );
    }
}
