//! The rules of container engines, kube-proxy and firewalls, and rarer ones.

/// Its resolver in a container, and published ports as on a host.
pub const DOCKER: &str = "\
*nat
-N DOCKER_OUTPUT
-N DOCKER_POSTROUTING
-N DOCKER
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT -d 127.0.0.11/32 -j DOCKER_OUTPUT
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -d 127.0.0.11/32 -j DOCKER_POSTROUTING
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER_OUTPUT -d 127.0.0.11/32 -p tcp -m tcp --dport 53 -j DNAT --to-destination 127.0.0.11:15053
-A DOCKER_OUTPUT -d 127.0.0.11/32 -p udp -m udp --dport 53 -j DNAT --to-destination 127.0.0.11:15053
-A DOCKER_POSTROUTING -s 127.0.0.11/32 -p tcp -m tcp --sport 15053 -j SNAT --to-source :53
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.99.0.2:8081
-A DOCKER -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.99.1.1:443
COMMIT
*filter
-N DOCKER-USER
-A FORWARD -j DOCKER-USER
-A DOCKER-USER -j RETURN
COMMIT
";

pub const KUBE_PROXY: &str = "\
*nat
-N KUBE-MARK-MASQ
-N KUBE-NODEPORTS
-N KUBE-POSTROUTING
-N KUBE-SEP-ONE
-N KUBE-SEP-TWO
-N KUBE-SEP-ALONE
-N KUBE-SERVICES
-N KUBE-SVC-ALONE
-N KUBE-SVC-PAIR
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -j MASQUERADE
-A KUBE-SEP-ONE -p tcp -m tcp -j DNAT --to-destination 203.0.113.7:8080
-A KUBE-SEP-TWO -p tcp -m tcp -j DNAT --to-destination 9.9.9.9:8080
-A KUBE-SEP-ALONE -s 203.0.113.7/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-ALONE -p udp -m udp -j DNAT --to-destination 203.0.113.7:5353
-A KUBE-SEP-ALONE -p tcp -m tcp -j DNAT --to-destination 203.0.113.7:5353
-A KUBE-SERVICES -d 10.96.0.10/32 -p udp -m udp --dport 53 -j KUBE-SVC-ALONE
-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m tcp --dport 53 -j KUBE-SVC-ALONE
-A KUBE-SERVICES -d 10.0.0.5/32 -p tcp -m tcp --dport 443 -j KUBE-SVC-PAIR
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-NODEPORTS -p tcp -m tcp --dport 8080 -j KUBE-SVC-ALONE
-A KUBE-SVC-ALONE ! -s 10.244.0.0/16 -d 10.96.0.10/32 -j KUBE-MARK-MASQ
-A KUBE-SVC-ALONE -j KUBE-SEP-ALONE
-A KUBE-SVC-PAIR -m statistic --mode random --probability 0.5 -j KUBE-SEP-ONE
-A KUBE-SVC-PAIR -j KUBE-SEP-TWO
COMMIT
*filter
-N KUBE-FIREWALL
-A INPUT -j KUBE-FIREWALL
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
COMMIT
";

pub const KUBE_PROXY_NATIVE: &str = "
table ip kube-proxy {
    set cluster-ips { type ipv4_addr; elements = { 10.96.0.10, 10.0.0.5 } }
    map service-ips {
        type ipv4_addr . inet_proto . inet_service : verdict
        elements = { 10.96.0.10 . tcp . 53 : goto service-dns, 10.96.0.10 . udp . 53 : goto service-dns,
                     10.0.0.5 . tcp . 443 : goto service-pair }
    }
    map no-endpoint-services {
        type ipv4_addr . inet_proto . inet_service : verdict
        elements = { 10.0.0.5 . tcp . 80 : goto reject-chain }
    }
    chain nat-prerouting { type nat hook prerouting priority -100; jump services; }
    chain nat-output { type nat hook output priority -100; jump services; }
    chain filter-output { type filter hook output priority -110; ct state new jump service-endpoints-check; }
    chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }
    chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }
    chain reject-chain { reject; }
    chain mark-for-masquerade { meta mark set meta mark or 0x4000; }
    chain masquerading { meta mark & 0x4000 == 0 return; meta mark set meta mark ^ 0x4000; masquerade; }
    chain nat-postrouting { type nat hook postrouting priority 100; jump masquerading; }
    chain endpoint-one { meta l4proto tcp dnat to 203.0.113.7:8080; }
    chain endpoint-two { meta l4proto tcp dnat to 9.9.9.9:8080; }
    chain endpoint-dns { ip saddr 203.0.113.7 jump mark-for-masquerade; meta l4proto { tcp, udp } dnat to 203.0.113.7:5353; }
    chain service-dns { ip daddr 10.96.0.10 ip saddr != 10.244.0.0/16 jump mark-for-masquerade; goto endpoint-dns; }
    chain service-pair { numgen random mod 2 vmap { 0 : goto endpoint-one, 1 : goto endpoint-two }; }
}
";

pub const FIREWALL: &str = "\
*filter
:INPUT DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -i lo -p tcp -m tcp --dport 1:9090 -j ACCEPT
-A INPUT -p tcp -m multiport --dports 80,443,8080:8081 -j ACCEPT
-A INPUT -p udp -m udp --dport 53 -j ACCEPT
-A INPUT -p ipv6-icmp -j ACCEPT
-A INPUT -p tcp -m tcp --dport 22 -j REJECT
-A OUTPUT -m owner --uid-owner 101 -j REJECT
-A OUTPUT -p tcp -m tcp --dport 5432 -m owner ! --uid-owner 1337 -j DROP
-A OUTPUT -p tcp -m tcp --tcp-flags SYN,ACK SYN -m tcp --dport 3306 -m addrtype ! --dst-type LOCAL -j DROP
COMMIT
*nat
-A PREROUTING -p tcp -m tcp ! --dport 22 -j REDIRECT --to-ports 15006
-A OUTPUT -p tcp -m owner ! --uid-owner 1337 -j REDIRECT --to-ports 8080
COMMIT
*mangle
-A OUTPUT -p tcp -m tcp --dport 9090 -j LOG --log-prefix x
-A OUTPUT -p tcp -m tcp --dport 9090 -j MARK --set-xmark 0x7/0x7
COMMIT
";

pub const FIREWALL_NATIVE: &str = "
table inet filter {
    set blocked { type ipv4_addr; flags interval; elements = { 9.9.0.0/16, 203.0.113.7 } }
    set pairs { type inet_service . uid; elements = { 80 . 1000, 8080 . 0 } }
    chain input {
        type filter hook input priority 0; policy drop;
        ct state vmap { established : accept, related : accept, invalid : drop }
        iif lo accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept
        tcp dport { 80, 443, 8000-8090, 15006 } accept
        ip saddr 10.99.0.0/24 udp dport 53 accept
        meta nfproto ipv6 fib daddr type local udp dport 1-100 accept
    }
    chain output {
        type filter hook output priority 0; policy accept;
        ct state new ip daddr @blocked tcp dport != 443 drop
        oif eth1 tcp dport 9090 drop
        tcp dport . meta skuid @pairs reject
        tcp dport 5432 meta skgid 1000-1337 drop
        meta mark 0x7 drop
    }
}
table inet raw {
    chain prerouting { type filter hook prerouting priority raw; tcp dport 22 notrack; }
    chain output { type filter hook output priority raw; udp dport 53 notrack; }
}
table inet capture {
    chain prerouting { type nat hook prerouting priority dstnat; fib daddr type local tcp dport 1-10000 redirect to :15006; }
    chain output { type nat hook output priority -100; meta skuid != 1337 oifname \"eth*\" meta l4proto tcp redirect to :15001; }
}
";

pub const SEVERAL: &str = "
table inet first {
    chain output {
        type nat hook output priority -100;
        tcp dport 80 redirect to :15001
    }
}
table inet second {
    chain output {
        type nat hook output priority -100;
        tcp dport { 80, 443 } redirect to :15006
    }
}
table ip third {
    chain output {
        type filter hook output priority 0;
        ip daddr 10.0.0.0/8 ip saddr 10.99.0.2 tcp dport 443 drop
        limit rate 1/day accept
        tcp dport 22 drop
    }
    chain later {
        type nat hook output priority 0;
        meta l4proto tcp redirect to :8080
    }
}
";

pub const RARE: &str = "\
*raw
-A OUTPUT -p udp -m udp --dport 9090 -j CT --notrack
-A PREROUTING ! -p tcp -j CT --notrack
COMMIT
*mangle
-A PREROUTING -i eth+ -p tcp -m tcp --syn -m state --state NEW -j MARK --set-xmark 0x10/0xf0
-A PREROUTING -m mark --mark 0x10/0xff -p tcp -m tcp --dport 22 -j CONNMARK --save-mark --nfmask 0xff --ctmask 0xff0
-A INPUT -m connmark --mark 0x10/0xf0 -j DROP
-A OUTPUT -m owner --socket-exists -p tcp -m tcp --dport 3306 -j MARK --or-mark 0x3
-A OUTPUT -m mark --mark 0x3/0x3 -j CONNMARK --set-xmark 0x5/0xf
-A POSTROUTING -m connmark --mark 0x5/0x7 -m owner --uid-owner 1001 -j DROP
COMMIT
*nat
-N LATER
-A PREROUTING -p tcp -m tcp --dport 8080:8081 -j REDIRECT
-A PREROUTING -p tcp -m multiport --sports 1:19999 -j REDIRECT --to-ports 22
-A PREROUTING -p tcp -m tcp --dport 80 -j DNAT --to-destination :443
-A PREROUTING -p tcp -g LATER
-A LATER -p tcp -m tcp --dport 9050 -j RETURN
-A LATER -p tcp -m tcp --dport 4190 -j DNAT --to-destination LOOPBACK_ENDPOINT
-A INPUT -p tcp -m tcp --dport 443 -j SNAT --to-source OTHER
-A OUTPUT -m addrtype --src-type LOCAL ! --dst-type LOCAL -p tcp -m tcp --dport 1:100 -j REDIRECT --to-ports 15001
-A OUTPUT -p tcp -m tcp --dport 5432 -m conntrack ! --ctstate ESTABLISHED --ctdir ORIGINAL -j REDIRECT --to-ports 8080
-A POSTROUTING -o lo -p tcp -m tcp --dport 8080 -j SNAT --to-source OTHER
COMMIT
*filter
:INPUT ACCEPT [0:0]
-N CHECK
-A INPUT -i lo -s OTHER -p tcp -m tcp --dport 8080 -j CHECK
-A CHECK -m conntrack --ctstatus SEEN_REPLY -j ACCEPT
-A CHECK -m conntrack --ctstate SNAT -p tcp -m tcp --sport 1:100 -j ACCEPT
-A CHECK -j DROP
COMMIT
";

pub const RARE_NATIVE: &str = "
table inet rare {
    map ports { type inet_service : verdict; flags interval; elements = { 1-100 : jump low, 8080-8090 : goto high, * : continue } }
    set nets { type ipv4_addr . inet_service; flags interval; elements = { 10.0.0.0/8 . 1-1000, 9.9.9.9 . 8080, 203.0.0.0/16 . 5432 } }
    chain low {
        tcp dport 22 return
        ip saddr 10.99.0.2 ip daddr 10.0.0.5 drop
        tcp sport 1-19999 drop
        meta protocol ip6 tcp flags & (syn | ack) == syn redirect to :15006
    }
    chain high { meta l4proto tcp meta skuid != 1000 redirect to :15001; return; }
    chain output {
        type nat hook output priority -90; policy accept;
        meta l4proto tcp tcp dport vmap @ports
        ip daddr . tcp dport @nets dnat ip to 10.99.0.2:8081
        ip6 daddr & ffff:ffff:: == 2001:db8:: tcp dport 9090 dnat ip6 to [fd99::2]:8081
        tcp dport != { 1-5000, 9090 } meta skgid > 1001 redirect to :80-90
    }
    chain prerouting {
        type nat hook prerouting priority -90; policy accept;
        iifname { \"eth0\", \"eth1\" } ip daddr 10.99.0.2-10.99.0.9 tcp dport 80 redirect
        iifname \"eth1\" tcp dport < 1000 redirect to :15006
        ip6 saddr 2001:db8::/36 tcp dport >= 9000 dnat ip6 to [fd99:1::2]:443
    }
    chain input {
        type filter hook input priority 10; policy accept;
        meta l4proto udp ct original proto-dst 53 drop
        ct direction reply accept
        ct status & (snat | dnat) == dnat tcp dport 8081 meta mark set 0x4
        meta mark & 0x4 == 0x4 ct mark set meta mark
        ct mark 0x4 tcp dport 8081 ct state new iifname lo reject with tcp reset
    }
    chain route {
        type route hook output priority -150;
        meta mark set meta mark & 0xff00 | 0x1
        ip daddr 9.9.9.9 meta mark set 0x539
        udp dport { 53, 443 } meta l4proto . ip daddr { udp . 10.96.0.10, tcp . 9.9.9.9 } drop
    }
    chain last { type filter hook postrouting priority 200; policy accept; oifname != lo meta skuid 1338 drop; }
}
";
