"""A small HTTP server with OpenAI's chat completions, whose every answer a test decides."""

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """What goes back. `body`: JSON where it is no text; None: the connection is closed without an answer."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0
    declared: int | None = None
    """The length that the headers state, where it is another."""


def says(text: str | None, *, finish: str = "stop", n_tokens: int = 7) -> Reply:
    """An ordinary completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return Reply({"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": n_tokens}})


class ChatServer:
    """Serves in threads of this process. `reply` receives the JSON of each POST; `seen` keeps it with headers."""

    def __init__(
        self, reply: Callable[[dict[str, Any]], Reply], models: Callable[[], Reply] | None = None
    ) -> None:
        self.seen: list[tuple[dict[str, Any], dict[str, str]]] = []
        self.most_at_once = self._at_once = 0
        server = self
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send(models() if models else Reply({"data": [{"id": "tiny"}, {"id": "big"}]}))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with lock:
                    server.seen.append((body, dict(self.headers)))
                    server._at_once += 1
                    server.most_at_once = max(server.most_at_once, server._at_once)
                try:
                    self._send(reply(body))
                finally:
                    with lock:
                        server._at_once -= 1

            def _send(self, one: Reply) -> None:
                time.sleep(one.delay_s)
                if one.body is None:
                    self.close_connection = True
                    return
                is_text = isinstance(one.body, str)
                data = one.body.encode() if is_text else json.dumps(one.body).encode()
                with suppress(OSError):  # the other side has gone
                    self.send_response(one.status)
                    self.send_header("content-type", "text/html" if is_text else "application/json")
                    self.send_header("content-length", str(one.declared or len(data)))
                    for name, value in one.headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> "ChatServer":
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
