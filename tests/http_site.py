"""An http server whose answers a test chooses, on a port of 127.0.0.1."""

from __future__ import annotations

import contextlib
import http.server
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Site:
    """Files by path, and how the server misbehaves.

    Attributes:
        url: Where it answers, without a trailing slash.
        files: Content by path; a redirect's target as text.
        asked: (path, Range header) of every request.
        has_ranges: Whether it knows ranges.
        tells_size: Whether it sends Content-Length; else it closes the connection at the end.
        etag: Of every file, or "" for none.
        cut_after: Bytes after which the connection is reset, once for each entry.
        statuses: Statuses that it answers with first, one for each request.
    """

    url: str = ""
    files: dict[str, bytes | str] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    has_ranges: bool = True
    tells_size: bool = True
    etag: str = '"v1"'
    cut_after: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        site, wanted = self.site, self.headers.get("Range", "")
        site.asked.append((self.path, wanted))
        content = site.files.get(self.path.partition("?")[0])
        status = site.statuses.pop(0) if site.statuses else 200
        if content is None or status != 200:
            return self._answer(404 if status == 200 else status, {}, b"")
        if isinstance(content, str):
            return self._answer(302, {"Location": content}, b"")
        headers = {"ETag": site.etag} if site.etag else {}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted) if site.has_ranges else None
        if asked is None:
            return self._answer(200, headers, content)
        start = int(asked[1])
        stop = int(asked[2]) + 1 if asked[2] else len(content)
        if start >= len(content):
            return self._answer(416, headers | {"Content-Range": f"bytes */{len(content)}"}, b"")
        part = content[start:stop]
        headers["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(content)}"
        return self._answer(206, headers, part)

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.site.tells_size or status != 200:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.site.cut_after and status in (200, 206) and len(body) > 1:
            self.wfile.write(body[:self.site.cut_after.pop(0)])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *arguments: Any) -> None:
        """Say nothing: clients of these tests hang up as they like."""


@contextlib.contextmanager
def http_site() -> Iterator[Site]:
    """Run a site until the block ends."""
    found = Site()
    handler = type("Handler", (_Handler,), {"site": found})
    server = _Server(("127.0.0.1", 0), handler)
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
