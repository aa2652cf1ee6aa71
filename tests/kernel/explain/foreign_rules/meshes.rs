//! The rules of meshes.

pub const ISTIO: &str = "\
*nat
-N ISTIO_INBOUND
-N ISTIO_IN_REDIRECT
-N ISTIO_OUTPUT
-N ISTIO_OUTPUT_DNS
-N ISTIO_REDIRECT
-A PREROUTING -p tcp -j ISTIO_INBOUND
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN
-A ISTIO_INBOUND -p tcp --dport 15090 -j RETURN
-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT
-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
-A ISTIO_OUTPUT -p tcp --dport 3306 -j RETURN
-A ISTIO_OUTPUT -s PASSTHROUGH -o lo -j RETURN
-A ISTIO_OUTPUT ! -d LOOPBACK -o lo -p tcp -m multiport ! --dports 53,15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -p tcp -m tcp ! --dport 53 -m owner ! --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT ! -d LOOPBACK -o lo -p tcp -m tcp ! --dport 15008 -m owner --gid-owner 1337 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -p tcp -m tcp ! --dport 53 -m owner ! --gid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -j ISTIO_OUTPUT_DNS
-A ISTIO_OUTPUT -d LOOPBACK -j RETURN
-A ISTIO_OUTPUT -d EXCLUDED -j RETURN
-A ISTIO_OUTPUT -j ISTIO_REDIRECT
-A ISTIO_OUTPUT_DNS -p tcp --dport 53 -j REDIRECT --to-ports 15053
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -j REDIRECT --to-ports 15053
COMMIT
*raw
-N ISTIO_INBOUND
-N ISTIO_OUTPUT_DNS
-A PREROUTING -j ISTIO_INBOUND
-A OUTPUT -j ISTIO_OUTPUT_DNS
-A ISTIO_INBOUND -p udp --sport 53 -j CT --zone 1
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -m owner --uid-owner 1337 -j CT --zone 1
-A ISTIO_OUTPUT_DNS -p udp --sport 15053 -m owner --uid-owner 1337 -j CT --zone 2
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -j CT --zone 2
COMMIT
";

pub const ISTIO_TPROXY: &str = "\
*nat
-N ISTIO_OUTPUT
-N ISTIO_REDIRECT
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
-A ISTIO_OUTPUT -s PASSTHROUGH -o lo -j RETURN
-A ISTIO_OUTPUT -o lo -m owner ! --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -d LOOPBACK -j RETURN
-A ISTIO_OUTPUT -j ISTIO_REDIRECT
COMMIT
*mangle
-N ISTIO_DIVERT
-N ISTIO_DROP
-N ISTIO_INBOUND
-N ISTIO_OUTPUT
-N ISTIO_TPROXY
-A PREROUTING -p tcp -j ISTIO_INBOUND
-A PREROUTING -p tcp -m mark --mark 0x539 -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff
-A OUTPUT -o lo -p tcp -m mark --mark 0x539 -j RETURN
-A OUTPUT ! -d LOOPBACK -o lo -p tcp -m owner --uid-owner 1337 -j MARK --set-xmark 0x53a/0xffffffff
-A OUTPUT -p tcp -m connmark --mark 0x539 -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff
-A ISTIO_DROP -j DROP
-A ISTIO_DIVERT -j MARK --set-xmark 0x539/0xffffffff
-A ISTIO_DIVERT -j ACCEPT
-A ISTIO_INBOUND -m conntrack --ctstate INVALID -j ISTIO_DROP
-A ISTIO_INBOUND -p tcp -m mark --mark 0x539 -j RETURN
-A ISTIO_INBOUND -s PASSTHROUGH -i lo -p tcp -j RETURN
-A ISTIO_INBOUND -i lo -p tcp -m mark ! --mark 0x53a -j RETURN
-A ISTIO_INBOUND -p tcp --dport 9090 -j RETURN
-A ISTIO_INBOUND -p tcp -m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT
-A ISTIO_INBOUND -p tcp -j ISTIO_TPROXY
-A ISTIO_TPROXY ! -d LOOPBACK -p tcp -j TPROXY --on-port 15006 --tproxy-mark 0x539/0xffffffff
COMMIT
";

pub const ISTIO_NATIVE: &str = "
table inet istio-proxy-nat {
    chain prerouting { type nat hook prerouting priority -100; meta l4proto tcp counter jump istio-inbound; }
    chain output { type nat hook output priority -100; counter jump istio-output; }
    chain istio-inbound {
        tcp dport 15008 counter return
        tcp dport { 15090, 15021, 15020 } counter return
        meta l4proto tcp counter jump istio-in-redirect
    }
    chain istio-redirect { meta l4proto tcp counter redirect to :15001; }
    chain istio-in-redirect { meta l4proto tcp counter redirect to :15006; }
    chain istio-output {
        oifname \"lo\" ip saddr 127.0.0.6/32 counter return
        oifname \"lo\" meta l4proto tcp ip daddr != 127.0.0.1/32 tcp dport != { 53, 15008 } skuid 1337 counter jump istio-in-redirect
        oifname \"lo\" meta l4proto tcp tcp dport != 53 skuid != 1337 counter return
        skuid 1337 counter return
        oifname \"lo\" meta l4proto tcp ip daddr != 127.0.0.1/32 tcp dport != 15008 skgid 1337 counter jump istio-in-redirect
        skgid 1337 counter return
        udp dport 53 counter redirect to :15053
        ip daddr 127.0.0.1/32 counter return
        ip daddr 10.0.0.0/9 counter return
        ip6 daddr 2001:db8::/33 counter return
        counter jump istio-redirect
    }
}
table inet istio-proxy-raw {
    chain output { type filter hook output priority -300; udp dport 53 meta skuid 1337 counter ct zone set 1; udp dport 53 counter ct zone set 2; }
}
table inet istio-proxy-mangle {
    chain prerouting { type filter hook prerouting priority -150; meta l4proto tcp ct state invalid counter drop; }
}
";

pub const AMBIENT: &str = "\
*mangle
-N ISTIO_PRERT
-N ISTIO_OUTPUT
-A PREROUTING -j ISTIO_PRERT
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_PRERT -m mark --mark 0x539/0xfff -j CONNMARK --set-xmark 0x111/0xfff
-A ISTIO_OUTPUT -m connmark --mark 0x111/0xfff -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff
COMMIT
*nat
-N ISTIO_PRERT
-N ISTIO_OUTPUT
-A OUTPUT -j ISTIO_OUTPUT
-A PREROUTING -j ISTIO_PRERT
-A ISTIO_PRERT -s PROBE -p tcp -m tcp -j ACCEPT
-A ISTIO_OUTPUT -d PROBE -p tcp -m tcp -j ACCEPT
-A ISTIO_PRERT ! -d LOOPBACK -p tcp -m tcp ! --dport 15008 -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15006
-A ISTIO_OUTPUT ! -o lo -p udp -m mark ! --mark 0x539/0xfff -m udp --dport 53 -j REDIRECT --to-ports 15053
-A ISTIO_OUTPUT ! -d LOOPBACK -p tcp -m tcp --dport 53 -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15053
-A ISTIO_OUTPUT -p tcp -m mark --mark 0x111/0xfff -j ACCEPT
-A ISTIO_OUTPUT ! -d LOOPBACK -o lo -j ACCEPT
-A ISTIO_OUTPUT ! -d LOOPBACK -p tcp -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15001
COMMIT
*raw
-N ISTIO_OUTPUT
-N ISTIO_PRERT
-A PREROUTING -j ISTIO_PRERT
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_OUTPUT -p udp -m mark --mark 0x539/0xfff -m udp --dport 53 -j CT --zone 1
-A ISTIO_PRERT -p udp -m mark ! --mark 0x539/0xfff -m udp --sport 53 -j CT --zone 1
COMMIT
";

pub const AMBIENT_NATIVE: &str = "
table inet istio-ambient-nat {
    chain prerouting { type nat hook prerouting priority -100; jump istio-prerouting; }
    chain output { type nat hook output priority -100; jump istio-output; }
    chain istio-prerouting {
        meta l4proto tcp ip saddr 169.254.7.127 counter accept
        ip daddr != 127.0.0.1/32 tcp dport != 15008 mark and 0xfff != 0x539 counter redirect to :15006
        ip6 daddr != ::1/128 tcp dport != 15008 mark and 0xfff != 0x539 counter redirect to :15006
    }
    chain istio-output {
        meta l4proto tcp ip daddr 169.254.7.127 counter accept
        oifname != lo mark and 0xfff != 0x539 udp dport 53 counter redirect to :15053
        ip daddr != 127.0.0.1/32 tcp dport 53 mark and 0xfff != 0x539 counter redirect to :15053
        meta l4proto tcp mark and 0xfff == 0x111 counter accept
        oifname lo ip daddr != 127.0.0.1/32 counter accept
        meta l4proto tcp ip daddr != 127.0.0.1/32 mark and 0xfff != 0x539 counter redirect to :15001
    }
}
table inet istio-ambient-mangle {
    chain prerouting { type filter hook prerouting priority -150; meta mark & 0xfff == 0x539 counter ct mark set ct mark & 0xfffff000 | 0x111; }
    chain output { type route hook output priority -150; ct mark and 0xfff == 0x111 counter meta mark set ct mark; }
}
";

pub const LINKERD: &str = "\
*nat
-N PROXY_INIT_REDIRECT
-N PROXY_INIT_OUTPUT
-A PROXY_INIT_REDIRECT -p tcp --match multiport --dports 4190,4191,4567:4568 -j RETURN -m comment --comment proxy-init/ignore-port
-A PROXY_INIT_REDIRECT -s EXCLUDED -j RETURN
-A PROXY_INIT_REDIRECT -p tcp -j REDIRECT --to-port 15006 -m comment --comment proxy-init/redirect-all-incoming-to-proxy-port
-A PREROUTING -j PROXY_INIT_REDIRECT -m comment --comment proxy-init/install-proxy-init-prerouting
-A PROXY_INIT_OUTPUT -m owner --uid-owner 1337 -j RETURN -m comment --comment proxy-init/ignore-proxy-user-id
-A PROXY_INIT_OUTPUT -m owner --gid-owner 101-1000 -j RETURN
-A PROXY_INIT_OUTPUT -o lo -j RETURN -m comment --comment proxy-init/ignore-loopback
-A PROXY_INIT_OUTPUT -p tcp --match multiport --dports 443,3306 -j RETURN
-A PROXY_INIT_OUTPUT -p tcp -j REDIRECT --to-port 15001 -m comment --comment proxy-init/redirect-all-outgoing-to-proxy-port
-A OUTPUT -j PROXY_INIT_OUTPUT -m comment --comment proxy-init/install-proxy-init-output
COMMIT
";

pub const KUMA: &str = "\
*raw
-A PREROUTING -p udp --sport 53 -j CT --zone 1
-A OUTPUT -p udp --dport 53 -m owner --uid-owner 1337 -j CT --zone 1
-A OUTPUT -p udp --sport 15053 -m owner --uid-owner 1337 -j CT --zone 2
-A OUTPUT -p udp --dport 53 -j CT --zone 2
COMMIT
*nat
-N KUMA_MESH_INBOUND
-N KUMA_MESH_OUTBOUND
-N KUMA_MESH_INBOUND_REDIRECT
-N KUMA_MESH_OUTBOUND_REDIRECT
-A PREROUTING -i eth1 -p udp --dport 53 -j REDIRECT --to-ports 15053
-A PREROUTING ! -d EXCLUDED -i eth1+ -p tcp -j REDIRECT --to-ports 15001
-A PREROUTING -p tcp -j KUMA_MESH_INBOUND
-A OUTPUT -p tcp -m multiport --dports 80,4000:8080 -m owner --uid-owner 1000 -j RETURN
-A OUTPUT -p udp --dport 53 -m owner --uid-owner 1337 -j RETURN
-A OUTPUT -p udp --dport 53 -j REDIRECT --to-ports 15053
-A OUTPUT -p tcp --dport 53 -m owner ! --uid-owner 1337 -j RETURN
-A OUTPUT -p tcp -j KUMA_MESH_OUTBOUND
-A KUMA_MESH_INBOUND -p tcp --dport 9090 -j RETURN
-A KUMA_MESH_INBOUND -p tcp -j KUMA_MESH_INBOUND_REDIRECT
-A KUMA_MESH_OUTBOUND -s PASSTHROUGH -o lo -j RETURN
-A KUMA_MESH_OUTBOUND -p tcp -o lo ! -d LOOPBACK -m owner --uid-owner 1337 -j KUMA_MESH_INBOUND_REDIRECT
-A KUMA_MESH_OUTBOUND -p tcp -o lo -m owner ! --uid-owner 1337 -j RETURN
-A KUMA_MESH_OUTBOUND -m owner --uid-owner 1337 -j RETURN
-A KUMA_MESH_OUTBOUND -d LOOPBACK -j RETURN
-A KUMA_MESH_OUTBOUND -j KUMA_MESH_OUTBOUND_REDIRECT
-A KUMA_MESH_INBOUND_REDIRECT -p tcp -j REDIRECT --to-ports 15006
-A KUMA_MESH_OUTBOUND_REDIRECT -p tcp -j REDIRECT --to-ports 15001
COMMIT
*mangle
-A PREROUTING -m conntrack --ctstate INVALID -j DROP
COMMIT
";

pub const CONSUL: &str = "\
*nat
-N CONSUL_PROXY_INBOUND
-N CONSUL_PROXY_IN_REDIRECT
-N CONSUL_PROXY_OUTPUT
-N CONSUL_PROXY_REDIRECT
-N CONSUL_DNS_REDIRECT
-A CONSUL_PROXY_REDIRECT -p tcp -j REDIRECT --to-ports 15001
-A CONSUL_DNS_REDIRECT -p udp -d LOOPBACK --dport 53 -j DNAT --to-destination LOOPBACK_ENDPOINT
-A CONSUL_DNS_REDIRECT -p tcp -d LOOPBACK --dport 53 -j DNAT --to-destination LOOPBACK_ENDPOINT
-A OUTPUT -p udp -d LOOPBACK --dport 53 -j CONSUL_DNS_REDIRECT
-A OUTPUT -p tcp -d LOOPBACK --dport 53 -j CONSUL_DNS_REDIRECT
-A OUTPUT -p tcp -j CONSUL_PROXY_OUTPUT
-A CONSUL_PROXY_OUTPUT -m owner --uid-owner 1000-1001 -j RETURN
-A CONSUL_PROXY_OUTPUT -d EXCLUDED -j RETURN
-A CONSUL_PROXY_OUTPUT -p tcp --dport 9000:9100 -j RETURN
-A CONSUL_PROXY_OUTPUT -m owner --uid-owner 1337 -j RETURN
-A CONSUL_PROXY_OUTPUT -d LOOPBACK -j RETURN
-A CONSUL_PROXY_OUTPUT -j CONSUL_PROXY_REDIRECT
-A CONSUL_PROXY_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
-A PREROUTING -p tcp -j CONSUL_PROXY_INBOUND
-A CONSUL_PROXY_INBOUND -p tcp --dport 8081 -j RETURN
-A CONSUL_PROXY_INBOUND -p tcp -j CONSUL_PROXY_IN_REDIRECT
COMMIT
";

pub const CONSUL_NATIVE: &str = "
table inet consul_tproxy {
    chain CONSUL_DNS_REDIRECT {
        ip daddr 127.0.0.1 udp dport 53 dnat ip to 127.0.0.1:8081
        ip daddr 127.0.0.1 tcp dport 53 dnat ip to 127.0.0.1:8081
    }
    chain CONSUL_PROXY_REDIRECT { meta l4proto tcp redirect to :15001; }
    chain CONSUL_PROXY_IN_REDIRECT { meta l4proto tcp redirect to :15006; }
    chain CONSUL_PROXY_OUTPUT {
        tcp dport 9000-9100 return
        ip6 daddr 2001:db8::/32 return
        meta skuid 1337 return
        ip daddr 127.0.0.1/32 return
        ip6 daddr ::1/128 return
        jump CONSUL_PROXY_REDIRECT
    }
    chain CONSUL_PROXY_INBOUND { tcp dport 8081 return; meta l4proto tcp jump CONSUL_PROXY_IN_REDIRECT; }
    chain CONSUL_NAT_OUTPUT {
        type nat hook output priority -100;
        ip daddr 127.0.0.1 udp dport 53 jump CONSUL_DNS_REDIRECT
        ip daddr 127.0.0.1 tcp dport 53 jump CONSUL_DNS_REDIRECT
        meta l4proto tcp jump CONSUL_PROXY_OUTPUT
    }
    chain CONSUL_NAT_PREROUTING { type nat hook prerouting priority -100; meta l4proto tcp jump CONSUL_PROXY_INBOUND; }
}
";
