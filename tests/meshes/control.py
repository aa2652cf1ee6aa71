#!/usr/bin/env python3
"""A stand-in for Linkerd's control plane: the two gRPC answers without which its proxy forwards nothing.

Usage: control.py CERTIFICATE. CERTIFICATE is in DER.

Port IDENTITY answers every call as the identity service does, with the certificate. Port LOOKUPS answers every call as
the destination and policy services do for an address that they do not know: not found. The proxy then uses its default
policy and continues to the original destination. Each kind of answer has its own port, so no request has to be decoded.

HTTP/2 is that of RFC 9113, header fields are literals of RFC 7541 (section 6.2.2), messages and trailers those of gRPC.
"""

import pathlib
import socketserver
import struct
import sys
import threading
import time

IDENTITY, LOOKUPS = 8090, 8091
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING = 0, 1, 4, 6
ACK, END_STREAM, END_HEADERS = 1, 1, 4
LIFETIME = 24 * 60 * 60  # seconds that the certificate is valid for
NOT_FOUND = 5


class _Service(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port, message=None):
        self.message = message
        super().__init__(("127.0.0.1", port), _Connection)
        threading.Thread(target=self.serve_forever).start()


class _Connection(socketserver.StreamRequestHandler):
    def handle(self):
        self.rfile.read(len(PREFACE))
        self._send(SETTINGS, 0, 0)
        while header := self.rfile.read(9):
            high, low, kind, flags, stream = struct.unpack("!BHBBI", header)
            payload = self.rfile.read(high << 16 | low)
            if kind in (SETTINGS, PING) and not flags & ACK:
                self._send(kind, ACK, 0, payload if kind == PING else b"")
            if kind in (HEADERS, DATA) and flags & END_STREAM:
                self._answer(stream)

    def _answer(self, stream):
        head = b"\x88" + _field("content-type", "application/grpc")  # 0x88: ":status: 200" of the static table
        message = self.server.message
        if message is None:
            self._send(HEADERS, END_HEADERS | END_STREAM, stream, head + _field("grpc-status", str(NOT_FOUND)))
        else:
            self._send(HEADERS, END_HEADERS, stream, head)
            self._send(DATA, 0, stream, struct.pack("!BI", 0, len(message)) + message)
            self._send(HEADERS, END_HEADERS | END_STREAM, stream, _field("grpc-status", "0"))

    def _send(self, kind, flags, stream, payload=b""):
        self.wfile.write(struct.pack("!BHBBI", 0, len(payload), kind, flags, stream) + payload)


def _field(name, value):
    return b"".join([b"\0", *(bytes([len(text)]) + text.encode() for text in (name, value))])


def _certify_response(certificate):
    """CertifyResponse of linkerd2-proxy-api: the leaf as field 1, a timestamp as field 3, whose seconds are field 1."""
    valid_until = b"\x08" + _varint(int(time.time()) + LIFETIME)
    return b"\x0a" + _varint(len(certificate)) + certificate + b"\x1a" + _varint(len(valid_until)) + valid_until


def _varint(number):
    encoded = bytearray()
    while number > 0x7f:
        encoded.append(number & 0x7f | 0x80)
        number >>= 7
    return bytes([*encoded, number])


if __name__ == "__main__":
    _Service(IDENTITY, _certify_response(pathlib.Path(sys.argv[1]).read_bytes()))
    _Service(LOOKUPS)
