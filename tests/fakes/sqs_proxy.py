"""A proxy that hurts what goes through it to an SQS: throttles, forgets to answer, doubles, delays."""

from __future__ import annotations

import http.client
import json
import random
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Request = dict[str, object]
THROTTLED = json.dumps(
    {"__type": "com.amazonaws.sqs#RequestThrottled", "message": "Request is throttled."}
).encode()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that were killed while they waited."""


class SqsProxy:
    """Passes requests on to the SQS at *port*. Faults are chosen by name, for some operations or for all."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.operations: Counter[str] = Counter()
        self.bytes_sent: list[int] = []
        """Length of each message's body."""
        self.fault: Callable[[str], str | None] = lambda operation: None
        self._server = Server(("127.0.0.1", 0), self._handler())
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="sqs-proxy", daemon=True).start()

    @property
    def url(self) -> str:
        return f"sqs://test:test@127.0.0.1:{self.port}//"

    def fail(self, fault: str, share: float = 1.0, only: str = "", *, seed: int = 7) -> None:
        """Have a *share* of the requests (of one operation) suffer a fault, until told otherwise."""
        draw = random.Random(seed)
        self.fault = lambda operation: fault if only in (operation, "") and draw.random() < share else None

    def heal(self) -> None:
        self.fault = lambda operation: None

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def pass_on(self, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            connection.request("POST", "/", body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def answer(self, operation: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes] | None:
        """Answer a request; None when its connection is to end without an answer."""
        self.operations[operation] += 1
        fault = self.fault(operation)
        if operation == "SendMessage":
            self.bytes_sent.append(len(json.loads(body)["MessageBody"]))
        if fault == "down":
            return None
        if fault == "throttle":
            return 400, THROTTLED
        if fault == "break":
            return 503, b"<html>Service Unavailable</html>"
        if operation == "SendMessage" and fault == "delay":
            body = json.dumps(json.loads(body) | {"DelaySeconds": random.randrange(4)}).encode()
        if operation == "SendMessage" and fault == "double":
            for _ in range(4):
                self.pass_on(headers, body)
        answer = self.pass_on(headers, body)
        return None if fault == "forget" else answer

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                target = self.headers.get("X-Amz-Target", "")
                answer = proxy.answer(target.rpartition(".")[2], dict(self.headers), body)
                if answer is None:
                    self.close_connection = True
                    return
                status, content = answer
                self.send_response(status)
                self.send_header("Content-Type", "application/x-amz-json-1.0")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing: the tests count."""

        return Handler
