"""A folder served over HTTP on this machine, for tests of remote data."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Served:
    """A served folder.

    Attributes:
        url: of the folder.
        requests: paths that were asked for, as ``GET /name``.
        broken: paths of which only half of the content is sent, and how often that is still to happen.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.requests: list[str] = []
        self.broken: dict[str, int] = {}

    def count(self, name: str) -> int:
        """How often a file was fetched."""
        return self.requests.count(f"GET /{name}")


class _Handler(SimpleHTTPRequestHandler):
    served: Served

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self.served.requests.append(f"GET {self.path}")
        if self.served.broken.get(self.path, 0) > 0:
            self.served.broken[self.path] -= 1
            content = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            return
        super().do_GET()


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """Serve a folder until the block ends."""
    handler = type("Handler", (_Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:  # type: ignore[arg-type]
        handler.served = served = Served(server.server_port)  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
