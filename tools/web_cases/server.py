"""A server for the pages: files of a folder for this machine alone, and what a page sends back."""

from __future__ import annotations

import queue
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["PageServer"]


class PageServer:
    """Serves a folder on 127.0.0.1 while it is entered.

    Args:
        directory: The folder.

    Attributes:
        received: The file names and bodies that pages have posted, in their order.
        address: Of the folder.
    """

    def __init__(self, directory: Path) -> None:
        self.received: queue.Queue[tuple[str, bytes]] = queue.Queue()
        handler = partial(_Handler, self.received, directory=str(directory))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> PageServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(SimpleHTTPRequestHandler):
    extensions_map = {**SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript", ".wasm": "application/wasm"}  # noqa: RUF012

    def __init__(self, received: queue.Queue[tuple[str, bytes]], *arguments: Any, **keywords: Any) -> None:
        self._received = received
        super().__init__(*arguments, **keywords)

    def end_headers(self) -> None:
        # With these two, a page may share memory between threads.
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def do_POST(self) -> None:
        """Keep what a page sends."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()
        self._received.put((Path(self.path).name, body))

    def log_message(self, *_: object) -> None:
        """Say nothing."""
