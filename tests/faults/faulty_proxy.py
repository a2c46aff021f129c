"""A way to a server on which things go wrong: refused, hung, failing, slow, cut, nonsense."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

# What happens to a request. "cut_after": the server has done it, and the client is never told.
FAULTS = ("hang", "fail", "slow", "cut_before", "cut_after", "nonsense")
SLOW_S = 0.3


class FaultyProxy:
    """Passes requests on to the server at `target`, but for what `choose` says of each.

    `choose(number)` gets the running number of a request, from 1, and returns one of FAULTS or
    "pass"; it may be replaced at any time. `uri` is where the proxy listens.
    """

    def __init__(self, target: str, choose: Callable[[int], str]) -> None:
        self.choose = choose
        self.num_requests = 0
        self.is_over = threading.Event()
        self._target = urlsplit(target)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._server.server_port}"

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.is_over.set()
        self._server.shutdown()
        self._server.server_close()

    def forward(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, str, bytes]:
        """Return status, content type and body of the server's answer."""
        server = http.client.HTTPConnection(self._target.netloc, timeout=60)
        try:
            server.request(method, path, body, headers)
            answer = server.getresponse()
            return answer.status, answer.getheader("Content-Type", ""), answer.read()
        finally:
            server.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                proxy.num_requests += 1
                fault = proxy.choose(proxy.num_requests)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if fault == "hang":
                    proxy.is_over.wait(60)
                if fault in ("hang", "cut_before"):
                    self.close_connection = True
                    return
                if fault == "fail":
                    self._answer(503, "text/html", b"<html>out of database connections</html>")
                    return
                if fault == "nonsense":
                    self._answer(200, "text/html", b"<html>log in here</html>")
                    return
                if fault == "slow":
                    time.sleep(SLOW_S)
                kept = {k: v for k, v in self.headers.items() if k.lower() != "host"}
                answer = proxy.forward(self.command, self.path, body, kept)
                if fault == "cut_after":
                    self.close_connection = True
                    return
                self._answer(*answer)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        return Handler


@contextmanager
def faulty_way_to(target: str, choose: Callable[[int], str]) -> Iterator[FaultyProxy]:
    """Run a FaultyProxy while inside."""
    proxy = FaultyProxy(target, choose)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
