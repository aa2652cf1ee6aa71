#!/usr/bin/env python3
"""The rules that `consul connect redirect-traffic` writes, against those of the referee (tests/oracle/consul).

Usage: consul.py CONSUL. Needs root and iptables. The command asks an agent which address family it is bound to. Here that
is a server on a socket which knows nothing else, one for each family.
"""

import http.server
import json
import os
import pathlib
import socketserver
import subprocess
import sys
import tempfile
import threading

HERE = pathlib.Path(__file__).resolve()
ORACLE = HERE.parents[1] / "oracle"
BOUND_TO = {"false": "127.0.0.1", "true": "::1"}  # by CONSUL_DUAL_STACK
# With iptables, Consul's rules for networks of one family fail in the other.
LEFT_OUT = ("exclusions-dual-stack",)
VALUES = {"ConsulDNSIP": "consul-dns-ip", "ConsulDNSPort": "consul-dns-port", "ProxyUserID": "proxy-uid",
          "ProxyInboundPort": "proxy-inbound-port", "ProxyOutboundPort": "proxy-outbound-port"}
LISTS = {"ExcludeInboundPorts": "exclude-inbound-port", "ExcludeOutboundPorts": "exclude-outbound-port",
         "ExcludeOutboundCIDRs": "exclude-outbound-cidr", "ExcludeUIDs": "exclude-uid"}


class _Agent(socketserver.ThreadingUnixStreamServer):
    """Says what it is bound to, whatever it is asked."""

    def __init__(self, path, address):
        self.answer = json.dumps({"Config": {"BindAddr": address}}).encode()
        super().__init__(str(path), _Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(self.server.answer)))
        self.end_headers()
        self.wfile.write(self.server.answer)

    def log_message(self, *_):
        pass

    def address_string(self):
        return "the command"


def main():
    consul = sys.argv[1]
    cases = [path.stem for path in sorted((ORACLE / "consul/cases").glob("*.json")) if path.stem not in LEFT_OUT]
    only = [word for case in cases for word in ("--only", case)]
    with tempfile.TemporaryDirectory() as folder:
        for dual_stack, address in BOUND_TO.items():
            _Agent(pathlib.Path(folder, dual_stack), address)
        return subprocess.run((sys.executable, ORACLE / "oracle.py", "selftest", "--cases", ORACLE / "consul/cases",
                               "--program", f"{HERE} redirect {consul} {folder}", *only)).returncode


def redirect(consul, folder, configuration):
    """Become `consul connect redirect-traffic`, with the flags that mean the same as a configuration."""
    configuration = json.loads(configuration)
    flags = [f"-{flag}={configuration[key]}" for key, flag in VALUES.items() if configuration[key]]
    flags += [f"-{flag}={item}" for key, flag in LISTS.items() for item in configuration[key] or ()]
    agent = f"unix://{folder}/{os.environ['CONSUL_DUAL_STACK']}"
    os.execve(consul, (consul, "connect", "redirect-traffic", *flags), os.environ | {"CONSUL_HTTP_ADDR": agent})


if __name__ == "__main__":
    if sys.argv[1] == "redirect":
        redirect(*sys.argv[2:])
    sys.exit(main())
