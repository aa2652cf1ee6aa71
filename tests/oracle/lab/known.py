"""Where our front ends end otherwise than the meshes' programs, on purpose: rows of the tables in
`docs/istio-iptables.md`, `docs/linkerd-proxy-init.md` and `docs/kuma-init.md`.

Each has who refuses; a pattern of what it says then, or, where that is not telling, of the command line; and why.
"""

import re
import shlex

OURS, THEIRS = "ours", "theirs"
ROWS = {
    "istio-iptables": (
        (OURS, r'"(?:0|http)" is not a port', "port 0, names of services"),
        (OURS, r'"\d*[:-]\d*" is not a port', "open ranges; what is ignored must be a list of ports, too"),
        (OURS, r'"\*[^"]*" |"[^"]*\*" ', "* among other items"),
        (OURS, r"is not a mark|is not a routing table", "a mark or table that is none, in any mode; the kernel's tables"),
        (OURS, r"is not a single [UG]ID", "ranges of the proxy's users and groups"),
        (OURS, r"is not an interface name", "interfaces: wildcards"),
        (OURS, r"is not REDIRECT or TPROXY", "another mode"),
        (OURS, r"the proxy distinguishes the directions by port", "the same port for both directions"),
        (OURS, r'ISTIO_META_DNS_CAPTURE: "yes"', "a variable that is no boolean"),
        (THEIRS, r"(?:-[pzetr]|-port|-mark|-table) ''|(?i:port|mark|table)=(?: |$)", "an empty number"),
        (THEIRS, r"[ =,'](?:\d+\.\d+\.\d+\.\d+|[0-9a-f:]*::[0-9a-f:]*)(?:[ ,']|$)", "an address without length"),
        (THEIRS, r"[,'=] +\d+\.", "spaces around items"),
        (THEIRS, r"(?:-o|-outbound-ports-exclude|_OUTBOUND_PORTS_EXCLUDE)[= ]\S*0x", "hexadecimal in -o"),
        (THEIRS, r"(?=.*TPROXY).*(?:-t|-mark|_MARK)[= ]0x", "a mark in hexadecimal with TPROXY"),
        (THEIRS, r"(?:-u|proxy-uid|PROXY_UID)[= ]envoy", "the name of a user without a group"),
    ),
    "linkerd-proxy-init": (
        (OURS, r'--ports-to-redirect: "0" is not a port', "port 0 to redirect"),
        (OURS, r"both are empty", "neither a user nor a group above 0"),
        (THEIRS, r"--subnets-to-ignore(?!.*--ipv6=false)", "a subnet while IPv6 is on"),
    ),
    "kuma-init": (
        (THEIRS, r"--kuma-dp-user[= ]5678", "a user by number that /etc/passwd does not have"),
    ),
}


def why(case, theirs, ours):
    """The documented reason why one of them refused and the other did not, or refused by another code; empty if none."""
    line = command_line(case)
    for who, pattern, reason in ROWS[case.program]:
        refused, other = (ours, theirs) if who == OURS else (theirs, ours)
        told = f"{line}\n{refused.stdout}{refused.stderr}"
        if refused.returncode and not other.returncode and re.search(pattern, told):
            return reason
    return ""


def command_line(case):
    """The case, as one would type it."""
    return shlex.join([f"{name}={value}" for name, value in case.env.items()] + list(case.flags))
