"""Answers as an API server of Kubernetes would, over TLS, on loopback.

Usage: server.py CERTIFICATE KEY ANSWERS

ANSWERS is a file with a JSON object: "METHOD PATH TYPE", or else "METHOD PATH" -> [STATUS, BODY]. What is not in it is not found. Prints its port,
then a line of JSON for each request.
"""

import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

certificate, key, answers = sys.argv[1:]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = {
            "request": f"{self.command} {self.path}",
            "type": self.headers.get("Content-Type"),
            "authorization": self.headers.get("Authorization"),
            "body": json.loads(text) if text else None,
        }
        print(json.dumps(request), flush=True)
        with open(answers) as file:
            known = json.load(file)
        not_found = known.get(request["request"], [404, {"message": "not found"}])
        status, body = known.get(f"{request['request']} {request['type']}", not_found)
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PATCH = do_POST = do_DELETE = answer

    def log_message(self, *_):
        pass


class Server(HTTPServer):
    def get_request(self):
        # The handshake belongs to one connection: a client that refuses the certificate ends that alone.
        connection, address = self.socket.accept()
        connection.settimeout(60)
        return context.wrap_socket(connection, server_side=True), address


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server = Server(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
