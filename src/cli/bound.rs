//! Sockets bound to an interface, in `sidetrack explain`: a redirect goes to an address that this interface does not
//! have.

use crate::plan::LoopbackRoute;
use crate::simulate::{End, PacketPath, Verdict};
use crate::types::{Family, InterfaceName};

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

/// Logs a warning if the connection of such a socket is redirected to an address of the loopback interface, and its
/// interface has no route to that address.
pub fn warn(bound_to: Option<&InterfaceName>, path: &PacketPath, routes: &[LoopbackRoute]) {
    let bound_to = bound_to.filter(|name| **name != InterfaceName::loopback());
    if let (Some(name), Verdict::Redirect(_), End::Delivered(to)) = (bound_to, path.verdict, &path.end)
        && to.ip().is_loopback()
    {
        let route = LoopbackRoute {
            family: Family::of(to.ip()),
            interface: name.clone(),
        };
        if !routes.contains(&route) {
            tracing::warn!(
                "the socket is bound to {name}, and {} is no address of that interface: the connection is lost. Pass \
                 --bound-interfaces {name} to let it reach the proxy, or --exclude-interfaces {name} to exclude it",
                to.ip()
            );
        }
    }
}
