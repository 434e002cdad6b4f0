"""The command `listen`: problems that the browser extension Competitive Companion sends, written as files.

The extension posts to a port of this machine (https://github.com/jmerle/competitive-companion). Whatever else
can reach that port is refused: other hosts' names, pages of the web, large bodies. What arrives is untrusted.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from rich.console import Console
from rich.text import Text

from sdpo_solve.cli.flags import command
from sdpo_solve.cli.new import TODO
from sdpo_solve.config import Flag, Options
from sdpo_solve.datasets import problem_json
from sdpo_solve.datasets._rows import FileRow, parse_json, safe_id
from sdpo_solve.datasets.competitive_companion import Posted
from sdpo_solve.errors import ProblemError, UserError, one_line
from sdpo_solve.paths import file_errors
from sdpo_solve.report.table import plural
from sdpo_solve.sanitize import clean

_MAX_BODY_BYTES = 16 << 20
_REQUEST_S = 10.0
_EXTENSIONS = ("chrome-extension://", "moz-extension://", "safari-web-extension://")
_PLACE = "Competitive Companion"


class ListenCommand(Options):
    port: int = Field(27121, ge=1, le=65535, description="port, one of those that the extension sends to")
    out: Annotated[Path, Flag(metavar="DIR")] = Field(
        Path(), description="where files go, those of a contest into a folder of it"
    )


@command(ListenCommand, "listen", "listen --out contests")
def listen(given: ListenCommand) -> None:
    """Write the problems that the browser extension Competitive Companion sends, until Ctrl-C.

    A press of its button sends a problem or a whole contest: samples and limits. The statement is yours to
    paste.
    """
    console = Console(highlight=False)

    def take(body: bytes) -> None:
        try:
            console.print(Text(clean(receive(body, given.out))), soft_wrap=True)
        except UserError as exc:  # the extension shows no answer
            console.print(Text(f"✗ {clean(str(exc))}", style="red"), soft_wrap=True)
            raise

    with file_errors(UserError, f"listen on port {given.port}", "choose another --port"):
        server = make_server(given.port, take)
    with server, suppress(KeyboardInterrupt):
        where = f"http://localhost:{server.server_port}"
        console.print(Text(f"listening on {where} for Competitive Companion; Ctrl-C ends", style="dim"))
        server.serve_forever()


def receive(body: bytes, out: Path) -> str:
    """Write the problem in `body` as a file under `out`; a line that says so, or why not.

    Raises ProblemError where it is none, UserError where it cannot be written.
    """
    try:
        data = parse_json(body.decode(), _PLACE, "what it sent")
    except UnicodeDecodeError:
        raise ProblemError(f"{_PLACE}: what it sent is not UTF-8") from None
    if not isinstance(data, dict):
        raise ProblemError(f"{_PLACE}: what it sent is no problem")
    posted = Posted.read(data, _PLACE)
    if posted.fault:
        return f"{posted.name}: left out, {posted.fault}"
    of_contest = posted.batch.size > 1
    folder = out / safe_id(posted.group or posted.batch.id, _PLACE) if of_contest else out
    statement = f"{TODO}: paste the statement of {posted.name} here. {posted.url}".strip()
    problem = posted.problem(FileRow(data, _PLACE), statement)
    path = folder / f"{problem.id}.json"
    text = problem_json.dump(replace(problem, meta={**problem.meta, "url": posted.url}))
    with file_errors(UserError, f"write {path}", "choose another --out"):
        folder.mkdir(parents=True, exist_ok=True)
        if not _write_new(path, text):
            return f"{path}: there already, left as it is"
    samples = plural(len(posted.tests), "sample")
    return f"{path}: {samples}; paste the statement, then: sdpo-solve run {shlex.quote(str(path))}"


def _write_new(path: Path, text: str) -> bool:
    """Write a file, whole or not at all; false where there is one of that name. Raises OSError."""
    part = path.with_name(f".listen-{os.getpid()}.part")
    try:
        if os.path.lexists(path):
            return False
        part.write_text(text, encoding="utf-8")
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)
    return True


# -- the server ----------------------------------------------------------------------------------------------


class _Server(ThreadingHTTPServer):
    """A thread a connection: browsers open some on which they send nothing for a while."""

    _ended: SystemExit | None = None

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Until `shutdown`. Raises SystemExit where nobody reads the output."""
        super().serve_forever(poll_interval)
        if self._ended is not None:
            raise self._ended

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        except SystemExit as exc:  # rich exits where a pipe is closed; it would end this thread alone
            self._ended = exc
            self.shutdown()

    def handle_error(self, request: Any, client_address: Any) -> None:
        _complain("a connection broke off", sys.exception())


def make_server(port: int, take: Callable[[bytes], None]) -> HTTPServer:
    """A server on the loopback address that passes bodies of the extension to `take`, one at a time.

    Raises OSError. Whatever `take` raises is answered, a ProblemError or UserError with its message.
    """
    taking = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        timeout = _REQUEST_S

        def do_POST(self) -> None:
            status, reason = self._fault() or self._take()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps({"message": reason}).encode())

        def _fault(self) -> tuple[int, str] | None:
            """Why the request is not one of the extension on this machine."""
            origin, length = self.headers.get("Origin"), self.headers.get("Content-Length", "")
            host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
            if host not in ("localhost", "127.0.0.1"):
                return 403, "this server is for localhost alone"
            if origin is not None and not origin.startswith(_EXTENSIONS):
                return 403, "pages of the web may not send problems"
            if self.path != "/":
                return 404, "there is one address, /"
            if not length.isascii() or not length.isdigit():
                return 411, "the length of the body is missing"
            # By its digits first: Python reads no number of thousands of them.
            is_large = len(length) > len(str(_MAX_BODY_BYTES)) or int(length) > _MAX_BODY_BYTES
            return (413, "the body is too large") if is_large else None

        def _take(self) -> tuple[int, str]:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                with taking:
                    take(body)
            except UserError as exc:
                return 400, str(exc)
            except Exception as exc:  # noqa: BLE001 -- a fault of ours ends neither the answer nor the server
                _complain("a problem was left out by a fault of sdpo-solve; please report it", exc)
                return 500, "a fault of sdpo-solve; its terminal says which"
            return 200, "written"

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: each problem has its own line."""

    return _Server(("127.0.0.1", port), Handler)


def _complain(what: str, exc: BaseException | None) -> None:
    reason = f": {type(exc).__name__}: {one_line(exc)}" if exc is not None else ""
    Console(stderr=True, highlight=False).print(Text(clean(f"✗ {what}{reason}"), style="red"), soft_wrap=True)
