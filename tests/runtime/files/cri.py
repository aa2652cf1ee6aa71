#!/usr/bin/env python3
"""A CRI client for a container runtime, like the kubelet.

Usage: cri.py SOCKET

Each line of standard input is a list of calls that are made at once, [[METHOD, REQUEST], ...], with requests as
protobuf's JSON. Each is answered by a line, a list of {"answer": ANSWER} or {"error": TEXT} in the same order.
"""

import base64
import json
import sys

import grpc
from cri_api.v1 import api_pb2, api_pb2_grpc
from google.protobuf.json_format import MessageToDict, ParseDict

PATIENCE = 120  # seconds: nothing takes so long unless it is stuck

channel = grpc.insecure_channel("unix://" + sys.argv[1], [("grpc.max_reconnect_backoff_ms", 100)])
runtime = api_pb2_grpc.RuntimeServiceStub(channel)


def begin(method, request):
    message = ParseDict(request, getattr(api_pb2, method + "Request")())
    return getattr(runtime, method).future(message, timeout=PATIENCE, wait_for_ready=True)


def end(call):
    try:
        answer = MessageToDict(call.result())
    except grpc.RpcError as error:
        return {"error": error.details()}
    # JSON has no bytes. These are text.
    for name in answer.keys() & {"stdout", "stderr"}:
        answer[name] = base64.b64decode(answer[name]).decode()
    return {"answer": answer}


for line in sys.stdin:
    calls = [begin(method, request) for method, request in json.loads(line)]
    print(json.dumps([end(call) for call in calls]), flush=True)
