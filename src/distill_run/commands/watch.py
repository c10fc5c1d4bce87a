"""Serves a growing report to browsers on this machine, for `distill-report --watch`."""

import html
import mimetypes
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from distill_run.console.console import Console
from distill_run.errors import first_line, user_error
from distill_run.sweeps.report.live import LiveReport

LOOPBACK = "127.0.0.1"
HOSTS = (LOOPBACK, "localhost")  # another name in a request means a page of elsewhere that wants to read this one
LATER = '<meta http-equiv="refresh" content="5"><p>The report cannot be made at this moment: {}</p>'
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # a run's page may be a stranger's
SERVED = (".html", ".png", ".json", ".csv", ".md")  # of the report's directory


def watch(directories: Sequence[Path], output: Path, port: int, console: Console) -> None:
    """Serve the report until Ctrl-C. Raises UserError where the port cannot be had; 0 takes a free one."""
    with make_server(directories, output, port) as server:
        console.note(f"the report is at http://{LOOPBACK}:{server.server_port}/ and refreshes itself; Ctrl-C ends this")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            console.note("the report is served no longer")


def make_server(directories: Sequence[Path], output: Path, port: int) -> ThreadingHTTPServer:
    """The server, which listens on the loopback interface alone."""
    handler = partial(_Handler, LiveReport(directories, output), output.resolve())
    try:
        return ThreadingHTTPServer((LOOPBACK, port), handler)
    except OSError as error:
        raise user_error(f"--port {port}: {error.strerror}", "choose another, as in --port 8001") from error


class _Handler(BaseHTTPRequestHandler):
    """Answers with the page, or with a file of the report's directory."""

    def __init__(self, report: LiveReport, root: Path, *of_the_server: Any) -> None:
        self.report, self.root = report, root
        super().__init__(*of_the_server)

    def do_GET(self) -> None:
        """Send what is asked for."""
        path = unquote(urlsplit(self.path).path)
        if self.headers.get("Host", "").partition(":")[0] not in HOSTS:
            self.send_error(HTTPStatus.FORBIDDEN)
        elif path == "/":
            self._send_page()
        elif (file := self._file(path)) is not None:
            self._send(file.read_bytes(), mimetypes.guess_type(file.name)[0] or "text/plain")
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def log_message(self, *_: Any) -> None:
        """Say nothing: the console is a person's."""

    def _file(self, path: str) -> Path | None:
        """The file of the report's directory; None for any other, also behind a link that leads out."""
        try:
            file = (self.root / path.lstrip("/")).resolve()
            is_served = file.suffix in SERVED and file.is_relative_to(self.root) and file.is_file()
        except (OSError, ValueError):  # a name too long, or with a zero byte
            return None
        return file if is_served else None

    def _send_page(self) -> None:
        try:
            page = self.report.page()
        except Exception as error:  # the runs may be removed, or be written at this moment; the page asks again
            page = LATER.format(html.escape(first_line(error)))
        self._send(page.encode(), "text/html; charset=utf-8")

    def _send(self, body: bytes, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", POLICY)
        self.end_headers()
        with suppress(ConnectionError):  # the reader has gone
            self.wfile.write(body)
