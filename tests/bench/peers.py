"""What other redirectors do in a fresh pod, dual-stack, with their default options: the same programs run in the same
order, and the same number of rules. Their own work besides that is left out.
"""

from lab import Step

FAMILIES = ("iptables", "ip6tables")
LOOPBACK = {"iptables": "127.0.0.1/32", "ip6tables": "::1/128"}
PASSTHROUGH = {"iptables": "127.0.0.6/32", "ip6tables": "::6/128"}

ISTIO_EXCLUDED_INBOUND = (15090, 15021, 15020)
LINKERD_EXCLUDED_INBOUND = "4190,4191,4567,4568"
LINKERD_EXCLUDED_OUTBOUND = "4567,4568"


def istio_rules(family, cidrs=(), ports=()):
    """Istio's rules of one family for iptables-restore, with these excluded outbound."""
    loopback, passthrough = LOOPBACK[family], PASSTHROUGH[family]
    self_call = f"-A ISTIO_OUTPUT -o lo ! -d {loopback} -p tcp ! --dport 15008 -m owner"
    rules = [
        "-A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN",
        "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001",
        "-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006",
        "-A PREROUTING -p tcp -j ISTIO_INBOUND",
        *(f"-A ISTIO_INBOUND -p tcp --dport {port} -j RETURN" for port in ISTIO_EXCLUDED_INBOUND),
        "-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT",
        "-A OUTPUT -j ISTIO_OUTPUT",
        *(f"-A ISTIO_OUTPUT -p {protocol} --dport {port} -j RETURN" for port in ports for protocol in ("tcp", "udp")),
        f"-A ISTIO_OUTPUT -o lo -s {passthrough} -j RETURN",
    ]
    for owner in ("--uid-owner 1337", "--gid-owner 1337"):
        rules += [
            f"{self_call} {owner} -j ISTIO_IN_REDIRECT",
            f"-A ISTIO_OUTPUT -o lo -m owner ! {owner} -j RETURN",
            f"-A ISTIO_OUTPUT -m owner {owner} -j RETURN",
        ]
    rules += [
        f"-A ISTIO_OUTPUT -d {loopback} -j RETURN",
        *(f"-A ISTIO_OUTPUT -d {cidr} -j RETURN" for cidr in cidrs if (":" in cidr) == (family == "ip6tables")),
        "-A ISTIO_OUTPUT -j ISTIO_REDIRECT",
    ]
    return _restore_text(("ISTIO_INBOUND", "ISTIO_REDIRECT", "ISTIO_IN_REDIRECT", "ISTIO_OUTPUT"), rules)


def kuma_rules(family):
    """Kuma's rules of one family for iptables-restore."""
    loopback, passthrough = LOOPBACK[family], PASSTHROUGH[family]
    rules = [
        "-A PREROUTING -p tcp -j KUMA_MESH_INBOUND",
        "-A OUTPUT -p tcp -j KUMA_MESH_OUTBOUND",
        "-A KUMA_MESH_INBOUND -p tcp -j KUMA_MESH_INBOUND_REDIRECT",
        f"-A KUMA_MESH_OUTBOUND -s {passthrough} -o lo -j RETURN",
        f"-A KUMA_MESH_OUTBOUND -p tcp -o lo ! -d {loopback} -m owner --uid-owner 5678 -j KUMA_MESH_INBOUND_REDIRECT",
        "-A KUMA_MESH_OUTBOUND -p tcp -o lo -m owner ! --uid-owner 5678 -j RETURN",
        "-A KUMA_MESH_OUTBOUND -m owner --uid-owner 5678 -j RETURN",
        f"-A KUMA_MESH_OUTBOUND -d {loopback} -j RETURN",
        "-A KUMA_MESH_OUTBOUND -j KUMA_MESH_OUTBOUND_REDIRECT",
        "-A KUMA_MESH_INBOUND_REDIRECT -p tcp -j REDIRECT --to-ports 15006",
        "-A KUMA_MESH_OUTBOUND_REDIRECT -p tcp -j REDIRECT --to-ports 15001",
    ]
    names = ("INBOUND", "INBOUND_REDIRECT", "OUTBOUND", "OUTBOUND_REDIRECT")
    return _restore_text([f"KUMA_MESH_{name}" for name in names], rules)


def _restore_text(chains, rules):
    return "\n".join(("*nat", *(f"-N {chain}" for chain in chains), *rules, "COMMIT", ""))


def restore(variant, files, *arguments):
    """The restore of each family, in its `variant` (legacy or nft), from the files of `files`."""
    return [Step((f"{family}-{variant}-restore", "--noflush", *arguments), files[family]) for family in FAMILIES]


def istio(variant, files):
    """Detects the variant of iptables by listing and by adding and removing a rule, restores, lists."""
    steps = []
    for looked_at in ("legacy", "nft"):
        for family in FAMILIES:
            program, wait = f"{family}-{looked_at}", ("--wait=30",) if looked_at == "legacy" else ()
            probe = ("INPUT", "-t", "nat", "-p", "255", "-j", "RETURN")
            steps += [
                Step((f"{program}-save",)),
                Step((program, "--version")),
                Step((program, "-A", *probe, *wait)),
                Step((program, "-D", *probe, *wait)),
            ]
    save = [Step((f"{family}-{variant}-save",)) for family in FAMILIES]
    wait = ("--wait=30",) if variant == "legacy" else ()
    return steps + save + restore(variant, files, *wait) + save


def linkerd(variant, flush=False):
    """Runs iptables once for each rule, IPv4 first; with `flush`, over rules that are there."""
    inbound, outbound, chain = "PROXY_INIT_REDIRECT", "PROXY_INIT_OUTPUT", "-F" if flush else "-N"
    rules = [
        f"{chain} {inbound}",
        f"-A {inbound} -p tcp --match multiport --dports {LINKERD_EXCLUDED_INBOUND} -j RETURN",
        f"-A {inbound} -p tcp -j REDIRECT --to-port 4143",
        *([] if flush else [f"-A PREROUTING -j {inbound}"]),
        f"{chain} {outbound}",
        f"-A {outbound} -m owner --uid-owner 2102 -j RETURN",
        f"-A {outbound} -o lo -j RETURN",
        f"-A {outbound} -p tcp --match multiport --dports {LINKERD_EXCLUDED_OUTBOUND} -j RETURN",
        f"-A {outbound} -p tcp -j REDIRECT --to-port 4140",
        *([] if flush else [f"-A OUTPUT -j {outbound}"]),
    ]
    steps = []
    for family in FAMILIES:
        program = f"{family}-{variant}"
        save = Step((f"{program}-save", "-t", "nat"))
        steps += [save, *(Step((program, "-t", "nat", *rule.split())) for rule in rules), save]
    return steps


def kuma(files):
    """Asks each program for its version, each match for its help, and each table for its rules; restores."""
    steps = []
    for program in ("iptables-nft", "ip6tables-nft", "iptables-legacy"):
        steps += [Step((f"{program}{suffix}", "--version")) for suffix in ("", "-save", "-restore")]
        matches = ("owner", "tcp", "udp", "comment", "conntrack", "multiport")
        steps += [Step((program, "-m", match, "-h")) for match in matches]
        steps += [Step((f"{program}-save", "-t", table)) for table in ("nat", "raw", "mangle") * 2]
    save = [Step((f"{family}-nft-save",)) for family in FAMILIES]
    return steps + save + restore("nft", files)
