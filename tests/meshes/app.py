#!/usr/bin/env python3
"""What runs in the namespaces of a mesh: an application, its clients, and a name server.

app.py serve                          an HTTP server on port 8080 that says who called it, by which address
app.py names ADDRESS                  a name server that has one address of each family for every name
app.py get HOST FAMILY                what a request to port 8080 of HOST is answered; FAMILY is 4 or 6
app.py lookup NAME TYPE PROTOCOL      what the first name server of resolv.conf answers; A or AAAA, udp or tcp
"""

import http.client
import http.server
import ipaddress
import pathlib
import socket
import struct
import sys
import threading

PORT = 8080
TIMEOUT = 5  # seconds
FAMILIES = {"4": socket.AF_INET, "6": socket.AF_INET6}
TYPES = {"A": 1, "AAAA": 28}
ADDRESSES = {1: "192.0.2.80", 28: "2001:db8::80"}


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        own, client = self.connection.getsockname()[0], self.client_address[0]
        body = f"from {client} at {own}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class _Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6


def serve():
    _Server(("::", PORT), _Handler).serve_forever()


def names(address):
    tcp = socket.create_server((address, 53))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((address, 53))
    threading.Thread(target=_names_over_tcp, args=(tcp,), daemon=True).start()
    while True:
        query, peer = udp.recvfrom(1500)
        udp.sendto(_answer(query), peer)


def _names_over_tcp(listener):
    while True:
        connection, _ = listener.accept()
        with connection:
            answer = _answer(_message(connection))
            connection.sendall(struct.pack("!H", len(answer)) + answer)


def _message(connection):
    stream = connection.makefile("rb")
    return stream.read(struct.unpack("!H", stream.read(2))[0])


def _answer(query):
    end = query.index(b"\0", 12) + 5
    kind = struct.unpack("!H", query[end - 4:end - 2])[0]
    address = ADDRESSES.get(kind)
    data = ipaddress.ip_address(address).packed if address else b""
    record = b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(data)) + data if data else b""
    return query[:2] + b"\x81\x80\0\1" + struct.pack("!H", bool(data)) + b"\0\0\0\0" + query[12:end] + record


def get(host, family):
    kind, _, _, _, address = socket.getaddrinfo(host, PORT, FAMILIES[family], socket.SOCK_STREAM)[0]
    with socket.socket(kind, socket.SOCK_STREAM) as sock:
        sock.settimeout(TIMEOUT)
        sock.connect(address)
        connection = http.client.HTTPConnection(host, PORT)
        connection.sock = sock
        connection.request("GET", "/")
        answer = connection.getresponse()
        print(answer.status, answer.read().decode())


def lookup(name, kind, protocol):
    lines = pathlib.Path("/etc/resolv.conf").read_text().splitlines()
    server = next(line.split()[1] for line in lines if line.startswith("nameserver"))
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    query = b"\x12\x34\1\0\0\1\0\0\0\0\0\0" + labels + b"\0" + struct.pack("!HH", TYPES[kind], 1)
    how = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, how) as sock:
        sock.settimeout(TIMEOUT)
        sock.connect((server, 53))
        if protocol == "tcp":
            sock.sendall(struct.pack("!H", len(query)) + query)
            answer = _message(sock)
        else:
            sock.send(query)
            answer = sock.recv(1500)
    print(f"code {answer[3] & 15}", *_addresses(answer))


def _addresses(answer):
    at = answer.index(b"\0", 12) + 5
    for _ in range(struct.unpack("!H", answer[6:8])[0]):
        at = at + 2 if answer[at] & 0xc0 else answer.index(b"\0", at) + 1
        kind, _, _, length = struct.unpack("!HHIH", answer[at:at + 10])
        if kind in TYPES.values():
            yield ipaddress.ip_address(answer[at + 10:at + 10 + length])
        at += 10 + length


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    try:
        {"serve": serve, "names": names, "get": get, "lookup": lookup}[command](*arguments)
    except OSError as error:
        sys.exit(f"{type(error).__name__}: {error}")
