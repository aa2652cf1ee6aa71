//! Packets of the host outside that arrive on an interface of the pod other than the link's, or go to behind one.

use std::fs;
use std::net::IpAddr;

use nix::errno::Errno;

use super::link::wait_for_routes;
use crate::linux::interfaces;
use crate::linux::netlink::Refusal;
use crate::linux::route::{Neighbour, Route, RouteError};
use crate::probe::{Ends, Entry};
use crate::types::InterfaceName;

/// Both sides of the link, in one family.
pub struct Host<'l> {
    /// The netlink socket of the pod.
    pub near: &'l mut Route,
    /// The pod's end of the link.
    pub near_index: u32,
    /// The netlink socket of the host outside.
    pub far: &'l mut Route,
    /// Its end of the link.
    pub far_index: u32,
    /// The addresses.
    pub ends: &'l Ends,
    /// More addresses that the host outside has got.
    pub sources: Vec<IpAddr>,
}

impl Host<'_> {
    /// Lets packets with the source of the entry arrive on its interface, by a filter on the link. The interface itself
    /// stays unchanged. The error is a text for people.
    pub fn add_entry(&mut self, entry: &Entry) -> Result<(), String> {
        let Entry {
            interface,
            source,
            remote,
            is_forwarded,
            is_answered,
            ..
        } = entry;
        if source.is_ipv4() && *is_answered && filters_strictly(interface) {
            return Err(format!(
                "the kernel drops packets of probes that arrive on {interface}, by its strict reverse path filter: \
                 net.ipv4.conf.all.rp_filter or that of the interface is 1"
            ));
        }
        let index = index(interface)?;
        let text = |error: RouteError| error.to_string();
        if !is_answered {
            self.forget(index, interface, *source)?;
        }
        let refused = |what: &str| {
            let what = what.to_owned();
            move |refusal| format!("{what}, for packets that arrive on {interface}, was refused: {refusal}")
        };
        self.add_source(*source, *is_answered)?;
        if let Some(remote) = remote.as_ref().filter(|_| *is_forwarded) {
            let added = self.near.add_route(self.near_index, *remote, None).map_err(text)?;
            added.map_err(refused(&format!("a route to {remote}")))?;
        }
        if let Some(remote) = remote {
            self.add_far_route(*remote)?
                .map_err(refused(&format!("a route to {remote}")))?;
        }
        let added = self.near.enter_by(self.near_index, *source, index).map_err(text)?;
        added.map_err(|refusal| {
            format!(
                "packets of probes cannot arrive on {interface}: a filter on the link was refused: {refusal}. It takes a \
                 kernel with sch_ingress, cls_u32 and act_mirred"
            )
        })
    }

    /// Gives the host outside one more address, to which answers come by the link or not. The error is a text for people.
    fn add_source(&mut self, source: IpAddr, is_answered: bool) -> Result<(), String> {
        let text = |error: RouteError| error.to_string();
        let added = self
            .far
            .add_ends(self.far_index, source, self.ends.near)
            .map_err(text)?;
        added.map_err(|refusal| format!("the address {source} for a link was refused: {refusal}"))?;
        self.sources.push(source);
        if is_answered {
            let added = self.near.add_route(self.near_index, source, None).map_err(text)?;
            added.map_err(|refusal| format!("a route to {source} by a link was refused: {refusal}"))?;
        }
        Ok(())
    }

    /// Makes packets of the host outside from this source to an address behind an interface go to the pod. The error is a text
    /// for people.
    pub fn add_way_to(
        &mut self,
        interface: &InterfaceName,
        address: IpAddr,
        source: Option<IpAddr>,
    ) -> Result<(), String> {
        let index = index(interface)?;
        self.forget(index, interface, address)?;
        if let Some(source) = source {
            self.add_source(source, true)?;
        }
        self.add_far_route(address)?.map_err(|refusal| {
            format!("a route to {address}, for packets to behind {interface}, was refused: {refusal}")
        })
    }

    /// Lets the host outside send packets to this address to the pod. The outer error is a text for people.
    fn add_far_route(&mut self, destination: IpAddr) -> Result<Result<(), Refusal>, String> {
        let added = self.far.add_route(self.far_index, destination, Some(self.ends.near));
        match added.map_err(|error| error.to_string())? {
            // It is there for packets that arrive on another interface.
            Err(refusal) if refusal.errno == Errno::EEXIST => Ok(Ok(())),
            added => Ok(added),
        }
    }

    /// Waits until all its addresses get packets. The error is a text for people.
    pub fn wait_for_sources(&mut self) -> Result<(), String> {
        match wait_for_routes(self.far, &self.sources)? {
            None => Ok(()),
            Some(missing) => Err(format!(
                "the address {missing} for a link does not become usable in time"
            )),
        }
    }

    /// Makes the kernel look for a neighbour again once it sends something there.
    fn forget(&mut self, index: u32, interface: &InterfaceName, address: IpAddr) -> Result<(), String> {
        let text = |error: RouteError| error.to_string();
        let refused = |refusal| format!("the neighbour {address} cannot be forgotten: {refusal}");
        let mut known = self.near.neighbour(index, address).map_err(text)?;
        if known == Some(Neighbour::Sought) {
            // By an earlier probe.
            let forgotten = self.near.forget_neighbour(index, address).map_err(text)?;
            forgotten.map_err(refused)?;
            known = self.near.neighbour(index, address).map_err(text)?;
        }
        match known {
            None => Ok(()),
            Some(Neighbour::Sought) => Err(refused(Errno::EBUSY.into())),
            Some(Neighbour::Known) => Err(format!(
                "probes cannot use the address {address} behind {interface}: another host has it"
            )),
        }
    }
}

fn index(interface: &InterfaceName) -> Result<u32, String> {
    interfaces::index(interface).ok_or_else(|| format!("the interface {interface} is gone"))
}

/// Whether the kernel drops IPv4 packets that arrive on an interface by which it would not answer
/// (Documentation/networking/ip-sysctl.rst: the larger value counts).
fn filters_strictly(interface: &InterfaceName) -> bool {
    const STRICT: u32 = 1;
    let value = |name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"));
        text.ok()
            .and_then(|text| text.trim().parse::<u32>().ok())
            .unwrap_or_default()
    };
    value("all").max(value(interface.as_str())) == STRICT
}
