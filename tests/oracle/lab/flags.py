"""Random command lines of the meshes' own programs, the same for a seed and a number.

Most have values that work. Some have one that only the real program can say something about: odd ports, names, empty
items. Everything is chosen so that probes of `matrix.py` could notice it.
"""

import random

from .case import Case

PORTS = ("53", "80", "443", "3306", "4000", "5000", "6000", "7000", "8080", "9090", "15008", "15021", "31000", "32000")
RANGES = ((4000, 6000), (8000, 9000), (3000, 3400), (31000, 32000), (79, 81), (15000, 15100))
ODD_PORTS = ("", " 8080", "8080 ", "http", "0", "65536", "80-", "9000-8000", "-1", "08080", "0x50", "*", "+80")
NETWORKS = ("10.0.0.0/8", "9.9.0.0/16", "9.9.9.0/24", "1.1.0.0/16", "10.96.0.10/32", "192.168.0.0/16", "9.9.200.0/21",
            "10.0.0.5/32", "172.16.0.0/12", "172.16.0.10/32", "11.0.0.0/8", "1.1.1.1/32", "192.168.7.7/32",
            "2001:db8::/32", "2001:db8::5/128", "fd00::/8", "2001:dead::/64", "2001:db8:11::/48", "fd00:a::10/128")
EVERYWHERE = ("0.0.0.0/0", "::/0", "126.0.0.0/7", "2001::/16")
LOOPBACK = ("127.0.0.0/8", "127.1.2.3/32", "127.1.0.0/16", "::1/128", "::/96")
ODD_NETWORKS = ("", "10.0.0.1", " 9.9.0.0/16", "9.9.9.9/16", "10.0.0.0/33", "2001:db8::1", "foo", "*",
                "10.0.0.0/255.0.0.0", "010.0.0.0/8", "2001:db8::5/32", "fe80::1%eth0/128", "::ffff:10.0.0.5/128")
RESOLV_CONFS = (
    [], ["nameserver 10.96.0.10"], ["nameserver 127.0.0.53", "options edns0 trust-ad"], ["nameserver 2001:dead::5"],
    ["nameserver 10.96.0.10", "nameserver 2001:dead::5"], ["nameserver ::127.0.0.53", "nameserver 127.0.0.53"],
    ["# a comment", "search a.b c.d", "nameserver 10.96.0.10", "nameserver 10.96.0.10", "nameserver 192.168.7.7"],
    ["nameserver 10.96.0.10", "nameserver 2001:dead::5", "nameserver ::1"], ["search x", "options ndots:5"],
)


def case(front_end, seed, number):
    """Case `number` of `seed`."""
    dice = _Dice(f"{front_end} {seed} {number}")
    made = _MESHES[front_end](dice)
    return Case(f"{seed}-{number}", "random flags", "own", program=front_end, **made)


class _Dice(random.Random):
    """What all meshes choose from."""

    def __init__(self, text):
        super().__init__(text)
        self.odd = self.chance(.25)

    def chance(self, of):
        return self.random() < of

    def several(self, values, most=4):
        return self.sample(values, self.randint(1, min(most, len(values))))

    def ports(self, between="-", most=6):
        """A list of ports, and ranges with `between` in them if there is such a thing."""
        items = self.several(PORTS, most)
        if between and self.chance(.3):
            items.append(between.join(map(str, self.choice(RANGES))))
        return self._with_odd(items, ODD_PORTS)

    def networks(self, more=()):
        return self._with_odd(self.several(NETWORKS + tuple(more)), ODD_NETWORKS)

    def _with_odd(self, items, odd):
        if self.odd and self.chance(.3):
            items.insert(self.randint(0, len(items)), self.choice(odd))
        return ",".join(items)

    def families(self):
        return self.choice([[4, 6]] * 6 + [[4]] + [[6]] * 2)

    def given(self, names, values):
        """The words of a command line for these options, in any order; `names` has the short ones."""
        words = []
        values = list(values)
        self.shuffle(values)
        for name, value in values:
            if value is True:
                words.append(f"--{name}" if self.chance(.8) else f"--{name}=true")
            elif name in names and self.chance(.5):
                words += [f"-{names[name]}", value]
            else:
                words += [f"--{name}={value}"] if self.chance(.5) else [f"--{name}", value]
        return words


_ISTIO_SHORT = {
    "envoy-port": "p", "inbound-capture-port": "z", "inbound-tunnel-port": "e", "proxy-uid": "u", "proxy-gid": "g",
    "istio-inbound-interception-mode": "m", "istio-inbound-tproxy-mark": "t", "istio-inbound-tproxy-route-table": "r",
    "istio-inbound-ports": "b", "istio-local-exclude-ports": "d", "istio-service-cidr": "i",
    "istio-service-exclude-cidr": "x", "istio-outbound-ports": "q", "istio-local-outbound-ports-exclude": "o",
    "istio-exclude-interfaces": "c", "kube-virt-interfaces": "k",
}
_ISTIO_VARIABLES = {"redirect-dns": "ISTIO_META_DNS_CAPTURE", "capture-all-dns": "CAPTURE_ALL_DNS",
                    "drop-invalid": "INVALID_DROP", "dual-stack": "ISTIO_DUAL_STACK"}
_ISTIO_ODD = (
    ("istio-inbound-interception-mode", "tproxy"), ("istio-inbound-interception-mode", "NONE"), ("envoy-port", ""),
    ("inbound-capture-port", "http"), ("istio-inbound-tproxy-mark", "0x539"), ("istio-inbound-tproxy-mark", "0"),
    ("istio-inbound-tproxy-route-table", "0"), ("istio-inbound-tproxy-route-table", "local"), ("proxy-uid", "envoy"),
    ("proxy-uid", ""), ("proxy-gid", "java"), ("proxy-uid", "1000:2000"), ("istio-exclude-interfaces", "eth+"),
    ("istio-exclude-interfaces", "eth1,,eth2"), ("proxy-uid", " 1337"), ("proxy-uid", "0x539"),
    ("proxy-uid", "3,,4"), ("envoy-port", "15006"), ("envoy-port", "0x3a99"), ("inbound-capture-port", "0"),
    ("istio-exclude-interfaces", "lo"), ("kube-virt-interfaces", "lo"), ("proxy-uid", "4294967295"),
)
_ISTIO_ODD_VARIABLES = (
    ("ISTIO_META_DNS_CAPTURE", "yes"), ("ISTIO_META_DNS_CAPTURE", "TRUE"), ("DUAL_STACK", "1"), ("INVALID_DROP", "t"),
    ("INBOUND_CAPTURE_PORT", ""), ("PROXY_UID", ""), ("ENVOY_USER", "nobody"), ("ENVOY_PORT", "16001"),
    ("ISTIO_OUTBOUND_OWNER_GROUPS", "200:210"), ("ISTIO_OUTBOUND_OWNER_GROUPS", "nosuch"),
    ("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", "200:210"), ("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", "nosuch"),
)


def _istio(dice):
    values, env = {}, {}

    def maybe(of, name, choices):
        if dice.chance(of):
            values[name] = dice.choice(choices)

    maybe(.15, "envoy-port", ["16001"])
    maybe(.15, "inbound-capture-port", ["16006"])
    maybe(.15, "inbound-tunnel-port", ["16008", "8080"])
    maybe(.45, "proxy-uid", ["1337", "3,4", "1500", "0", "1337,3", "3", "1337,1000", "4,3,1500"])
    maybe(.3, "proxy-gid", ["1337", "1,2", "1500", "2", "202,1", "0"])
    if "proxy-uid" not in values and dice.chance(.06):
        env["ENVOY_USER"] = "envoy"
    maybe(.7, "istio-inbound-interception-mode", ["REDIRECT", "TPROXY"])
    if values.get("istio-inbound-interception-mode") == "TPROXY":
        maybe(.25, "istio-inbound-tproxy-mark", ["1400", "7"])
        maybe(.25, "istio-inbound-tproxy-route-table", ["200", "1000"])
    maybe(.9, "istio-inbound-ports", ["*", "*", "*", "", dice.ports(":"), dice.ports(":"), dice.ports(":")])
    maybe(.55, "istio-local-exclude-ports", ["15090,15021,15020", dice.ports(":"), dice.ports(":")])
    maybe(.9, "istio-service-cidr", ["*", "*", "*", "", *(dice.networks(EVERYWHERE) for _ in range(3)),
                                     dice.networks(EVERYWHERE + LOOPBACK)])
    maybe(.45, "istio-service-exclude-cidr", [dice.networks(), dice.networks(EVERYWHERE), dice.networks(LOOPBACK)])
    maybe(.35, "istio-outbound-ports", [dice.ports(":")])
    maybe(.35, "istio-local-outbound-ports-exclude", [dice.ports(":")])
    maybe(.25, "istio-exclude-interfaces", ["eth0", "eth1", "eth2", "not-istio-nic", "eth1,not-istio-nic"])
    maybe(.25, "kube-virt-interfaces", ["eth0", "eth1", "eth2", "eth1,eth2"])
    for name, of in (("redirect-dns", .5), ("capture-all-dns", .2), ("drop-invalid", .2), ("dual-stack", .65)):
        maybe(of, name, [True])
    for name, of, choices in (
        ("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", .15, ["127.0.0.1/8", "127.1.0.0/16", "127.0.0.53/32", "127.0.0.0/30"]),
        ("ISTIO_OUTBOUND_OWNER_GROUPS", .2, ["java,202", "1000", "*", "", "202", "0,1000", "ftp,888,1"]),
        ("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", .2, ["888,ftp", "1000", "202", "java,0,2"]),
    ):
        if dice.chance(of):
            env[name] = dice.choice(choices)
    if dice.odd:
        values |= dict(dice.several(_ISTIO_ODD, 2)) if dice.chance(.6) else {}
        env |= dict(dice.several(_ISTIO_ODD_VARIABLES, 2)) if dice.chance(.4) else {}
    for name, value in list(values.items()):
        if name != "envoy-port" and dice.chance(.15):  # which has no variable
            variable = _ISTIO_VARIABLES.get(name, name.upper().replace("-", "_"))
            env[variable] = "true" if value is True else value
            del values[name]
    uid, gid = (env.get(f"PROXY_{what}", values.get(f"proxy-{what.lower()}")) for what in ("UID", "GID"))
    uid = _first_number(uid, 1500 if env.get("ENVOY_USER") == "envoy" else 1337)
    return dict(flags=dice.given(_ISTIO_SHORT, values.items()), env=env, resolv_conf=dice.choice(RESOLV_CONFS),
                families=dice.families(), proxy=[uid, _first_number(gid, uid)])


def _first_number(text, otherwise):
    first = (text or "").split(",")[0].strip()
    return int(first) if first.isdigit() and int(first) < 2**32 - 1 else otherwise


_LINKERD_SHORT = {"incoming-proxy-port": "p", "outgoing-proxy-port": "o", "proxy-uid": "u", "proxy-gid": "g",
                  "ports-to-redirect": "r"}


def _linkerd(dice):
    values = [("incoming-proxy-port", "15006"), ("outgoing-proxy-port", "15001")]
    uid, gid = dice.choice(["1337", "1337", "1500", "3"]), dice.choice([None, None, "2", "202", "1337"])
    if dice.odd:
        uid = dice.choice([uid, "0", "-1", "0x539", "envoy"])
        gid = dice.choice([gid, "0", "java"])
    values += [("proxy-uid", uid)] + ([("proxy-gid", gid)] if gid else [])
    if dice.chance(.3):
        values.append(("ports-to-redirect", dice.ports(None)))
    for name in ("inbound-ports-to-ignore", "outbound-ports-to-ignore"):
        if dice.chance(.7):
            values.append((name, dice.ports(most=14)))
    v4_alone = dice.chance(.4)
    if v4_alone:
        values.append(("ipv6=false", None))
    if dice.chance(.6 if v4_alone else .05):
        v4 = [net for net in (*NETWORKS, "172.16.0.0/24", "10.11.0.1/32") if ":" not in net]
        values.append(("subnets-to-ignore", ",".join(dice.several(v4))))
    if dice.chance(.2):
        values.append(("use-wait-flag", True))
    values.append(("iptables-mode", dice.choice(["nft", "nft", "legacy"])))
    flags = dice.given(_LINKERD_SHORT, [value for value in values if value[1] is not None])
    flags += [f"--{name}" for name, value in values if value is None]
    return dict(flags=flags, proxy=[_first_number(uid, 1337), _first_number(gid, 1000)])


def _kuma(dice):
    user = dice.choice(["3", "1500", "envoy"] + (["nosuch", "5678"] if dice.odd else []))  # /etc/passwd has the others
    values = [("kuma-dp-user", user)]

    def maybe(of, name, value):
        if dice.chance(of):
            values.append((name, value))

    maybe(.6, "exclude-inbound-ports", dice.ports(None))
    maybe(.6, "exclude-outbound-ports", dice.ports(None))
    for name in ("exclude-inbound-ips", "exclude-outbound-ips"):
        for _ in range(dice.choice([0, 0, 1, 2])):
            values.append((name, ",".join(dice.several((*NETWORKS, "172.16.0.1", "9.9.9.9", "2001:db8:11::1"), 3))))
    for _ in range(dice.choice([0, 0, 1, 2])):
        protocols, ports = dice.choice(["tcp", "udp", "tcp,udp", "", "*"]), dice.choice([dice.ports(most=3), "*", ""])
        values.append(("exclude-outbound-ports-for-uids",
                       f"{protocols}:{ports}:{dice.choice(['1000', '202', '1500', '0-999', '1337'])}"))
    dns = dice.choice([None, None, "redirect-dns", "redirect-all-dns-traffic"])
    if dns:
        values.append((dns, True))
        maybe(.2, "skip-dns-conntrack-zone-split", True)
        maybe(.2, "redirect-outbound-insert-instead-of-append", True)
    maybe(.2, "drop-invalid-packets", True)
    maybe(.3, "ip-family-mode", dice.choice(["ipv4", "dualstack"]))
    maybe(.15, "vnet", dice.choice(["eth1:10.0.0.0/8", "eth2:192.168.0.0/16", "eth1:2001:db8::/32"]))
    flags = dice.given({}, values) + (["--redirect-inbound=false"] if dice.chance(.15) else [])
    uid = 1500 if user == "envoy" else _first_number(user, 1337)
    return dict(flags=flags, resolv_conf=dice.choice(RESOLV_CONFS), families=dice.families(), proxy=[uid, 1000])


_MESHES = {"istio-iptables": _istio, "linkerd-proxy-init": _linkerd, "kuma-init": _kuma}
FRONT_ENDS = tuple(_MESHES)
