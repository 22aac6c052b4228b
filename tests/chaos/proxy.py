"""A way to MLflow on which things go wrong: no answer, an error, or a request that is done and not answered."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

UPSTREAM_TIMEOUT_S = 60.0
HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive", "host", "content-length", "server", "date"}


class Way(StrEnum):
    """What becomes of a request."""

    PASSED = "passed"
    BUSY = "answered 503"
    DROPPED = "done, its reply dropped"


@dataclass
class Proxy:
    """Stands before a server.

    Attributes:
        way: asked for each request, with its method and path, what becomes of it.
        counts: of what became of them.
    """

    url: str
    way: Callable[[str, str], Way]
    counts: Counter[Way] = field(default_factory=Counter)


@contextmanager
def proxy(upstream_port: int, way: Callable[[str, str], Way], port: int = 0) -> Iterator[Proxy]:
    """Stand before a server on this machine's loopback until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            chosen = opened.way(self.command, self.path)
            opened.counts[chosen] += 1
            if chosen is Way.BUSY:
                self._reply(503, {}, b"busy")
                return
            status, headers, content = self._asked(body)
            if chosen is Way.DROPPED:
                self.close_connection = True
                return
            self._reply(status, headers, content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815  (http.server's names)

        def _asked(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
            connection = http.client.HTTPConnection("127.0.0.1", upstream_port, timeout=UPSTREAM_TIMEOUT_S)
            try:
                headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                return answer.status, dict(answer.getheaders()), answer.read()
            finally:
                connection.close()

        def _reply(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in HOP_BY_HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    opened = Proxy(f"http://127.0.0.1:{server.server_port}", way)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield opened
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
