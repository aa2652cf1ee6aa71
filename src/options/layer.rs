//! What one source says: every option may be missing.

use crate::types::{
    Backend, Cidrs, DnsServers, Gids, InboundMode, InterfaceName, IpFamily, LogFormat, LogLevel, LoopbackCidr, Mark,
    Output, Port, Ports, PortsForUids, RouteTable, Uids,
};

macro_rules! layer {
    ($($field:ident: $type:ty,)*) => {
        /// What one source says. The fields are the options of [`super::table`], by their names.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[expect(missing_docs, reason = "each field is the option of its name, described in the table of options")]
        pub struct Layer {
            $(pub $field: Option<$type>,)*
        }

        impl Layer {
            /// This layer, and below it another one that speaks where this one is silent.
            #[must_use]
            pub fn over(self, lower: Self) -> Self {
                Self { $($field: self.$field.or(lower.$field),)* }
            }
        }
    };
}

layer! {
    proxy_inbound_port: Port,
    proxy_outbound_port: Port,
    proxy_uid: Uids,
    proxy_gid: Gids,
    mesh_ports: Ports,
    include_inbound_ports: Ports,
    exclude_inbound_ports: Ports,
    exclude_inbound_cidrs: Cidrs,
    include_outbound_ports: Ports,
    exclude_outbound_ports: Ports,
    include_outbound_cidrs: Cidrs,
    exclude_outbound_cidrs: Cidrs,
    exclude_uids: Uids,
    include_gids: Gids,
    exclude_gids: Gids,
    exclude_outbound_ports_for_uids: Vec<PortsForUids>,
    redirect_dns: bool,
    dns_port: Port,
    dns_servers: DnsServers,
    inbound_mode: InboundMode,
    tproxy_mark: Mark,
    tproxy_route_table: RouteTable,
    exclude_interfaces: Vec<InterfaceName>,
    reroute_interfaces: Vec<InterfaceName>,
    drop_invalid: bool,
    loopback_cidr: LoopbackCidr,
    ip_family: IpFamily,
    backend: Backend,
    dry_run: bool,
    output: Output,
    log_level: LogLevel,
    log_format: LogFormat,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upper_layer_wins_and_the_lower_one_fills_in() {
        let upper = Layer {
            proxy_inbound_port: Port::new(1),
            ..Layer::default()
        };
        let lower = Layer {
            proxy_inbound_port: Port::new(2),
            proxy_outbound_port: Port::new(3),
            ..Layer::default()
        };
        let merged = upper.over(lower);
        assert_eq!(merged.proxy_inbound_port, Port::new(1));
        assert_eq!(merged.proxy_outbound_port, Port::new(3));
    }
}
