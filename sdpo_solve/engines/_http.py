"""`Client`: JSON calls of a server, several at a time; whatever goes wrong becomes one line.

Knows no route and keeps no state between calls. A server that is busy (429, 503) is waited for. The key comes
from the environment, goes into one header, and into no message and no file.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from sdpo_solve.errors import ConfigError, EngineError, PrerequisiteError, one_line
from sdpo_solve.sanitize import clean

if TYPE_CHECKING:
    import httpx2

ModelT = TypeVar("ModelT", bound=BaseModel)
Body = Mapping[str, Any]
OnAnswer = Callable[[int, Body], None]
"""Called with (place of the call, its answer) as soon as it is there."""

_CONNECT_S = 10.0
_BUSY = (429, 503)
_LONGEST_PAUSE_S = 60.0
_LONGEST_GET_PAUSE_S = 5.0  # a server that loads its model is ready from one moment to the next
_SPENT = "insufficient_quota"  # a 429 that no waiting mends


class StatusError(EngineError):
    """The server answered with an HTTP error. `status`: its number; `detail`: the server's words."""

    def __init__(self, message: str, status: int, detail: str) -> None:
        super().__init__(message)
        self.status = status
        self.detail = detail


class Client:
    """JSON over HTTP below one address.

    `timeout_s`: for one answer, waiting for a busy server left out, which may take `busy_s`. Raises
    ConfigError for an address that is none, PrerequisiteError where the variable holds no key.
    """

    def __init__(
        self,
        url: str,
        key_variable: str,
        timeout_s: float,
        n_at_once: int,
        *,
        busy_s: float = 600.0,
        pause_s: float = 1.0,
    ) -> None:
        self.url = _base_url(url, key_variable)
        self._key_variable = key_variable
        self._key = os.environ.get(key_variable, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise PrerequisiteError(
                f"{key_variable} holds no key: a key is one line of printable ASCII characters"
            )
        self._timeout_s, self._busy_s, self._pause_s = timeout_s, busy_s, pause_s
        self._n_at_once = n_at_once
        self._ssl: Any = None

    def get(self, path: str) -> Body:
        """The answer of one GET. Raises as `post_all`."""
        return self._one("GET", path, None)

    def post(self, path: str, body: Body) -> Body:
        """The answer of one POST. Raises as `post_all`."""
        return self._one("POST", path, body)

    def order(self, path: str, body: Body) -> None:
        """One POST whose answer need not be JSON, and is dropped. Raises as `post_all`."""
        self._one("POST", path, body, drop=True)

    def post_all(self, path: str, bodies: Sequence[Body], on_answer: OnAnswer) -> None:
        """Call `path` with each body, as many at a time as may be; the others are given up where one fails.

        Raises EngineError (StatusError for an HTTP error), PrerequisiteError where the server wants another
        key and where this machine can make no connection, and what `on_answer` raises.
        """
        asyncio.run(self._call_all("POST", path, bodies, on_answer))

    def _one(self, method: str, path: str, body: Body | None, *, drop: bool = False) -> Body:
        answers: list[Body] = []
        keep: OnAnswer = lambda _, answer: answers.append(answer)  # noqa: E731
        asyncio.run(self._call_all(method, path, [body], keep, drop=drop))
        return answers[0]

    async def _call_all(
        self,
        method: str,
        path: str,
        bodies: Sequence[Body | None],
        on_answer: OnAnswer,
        *,
        drop: bool = False,
    ) -> None:
        turn = asyncio.Semaphore(self._n_at_once)
        async with self._connections() as http:

            async def call(place: int, body: Body | None) -> tuple[int, Body]:
                async with turn:
                    response = await self._patient(http, method, path, body)
                    self._raise_for(response)
                    return place, {} if drop else self._read(response)

            tasks = [asyncio.create_task(call(place, body)) for place, body in enumerate(bodies)]
            try:
                for task in asyncio.as_completed(tasks):
                    on_answer(*await task)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _connections(self) -> httpx2.AsyncClient:
        """Raises PrerequisiteError where the environment's certificates or proxy cannot be used."""
        import httpx2

        try:
            if self._ssl is None:  # making one reads every certificate
                self._ssl = httpx2.create_ssl_context() if self.url.startswith("https:") else False
            return httpx2.AsyncClient(
                headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
                verify=self._ssl,
                timeout=httpx2.Timeout(None, connect=_CONNECT_S),  # `_patient` has the limit of a whole call
                limits=httpx2.Limits(max_connections=self._n_at_once),
            )
        except ImportError:
            problem = "the proxy of this environment is a SOCKS proxy; run: pip install socksio"
        except OSError as exc:
            from sdpo_solve.model.names import absent_certificates

            problem = absent_certificates() or f"certificates: {one_line(exc)}; see SSL_CERT_FILE"
        except (ValueError, httpx2.InvalidURL):
            problem = (
                "a variable of this environment names a proxy that is none: see HTTPS_PROXY and ALL_PROXY"
            )
        raise PrerequisiteError(f"no connection to {self.url} can be made: {problem}")

    async def _patient(
        self, http: httpx2.AsyncClient, method: str, path: str, body: Body | None
    ) -> httpx2.Response:
        """One call, again while the server is busy: the last response."""
        waited_s, pause_s = 0.0, self._pause_s
        while True:
            response = await self._sent(http, method, path, body)
            if response.status_code not in _BUSY or _SPENT in response.text:
                return response
            if waited_s >= self._busy_s:
                detail = self._detail(response)
                raise StatusError(
                    f"{self.url} is busy for {waited_s:.0f} s ({response.status_code}: {detail}); lower "
                    "engine.batch_rows, or repeat the command later",
                    response.status_code,
                    detail,
                )
            wanted_s = max(_seconds(response.headers.get("retry-after"), pause_s), self._pause_s)
            wait_s = min(wanted_s, _LONGEST_PAUSE_S, max(self._pause_s, self._busy_s - waited_s))
            await asyncio.sleep(wait_s)
            waited_s += wait_s
            pause_s = min(2 * pause_s, _LONGEST_GET_PAUSE_S if method == "GET" else _LONGEST_PAUSE_S)

    async def _sent(
        self, http: httpx2.AsyncClient, method: str, path: str, body: Body | None
    ) -> httpx2.Response:
        import httpx2

        try:
            async with asyncio.timeout(self._timeout_s):
                return await http.request(method, f"{self.url}{path}", json=body)
        except TimeoutError:
            problem = f"gave no answer within {self._timeout_s:g} s; raise engine.timeout_s for long answers"
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as exc:
            problem = f"cannot be reached ({one_line(exc)}); check that it runs, and that this is its address"
        except httpx2.TransportError as exc:
            problem = f"broke the connection off ({one_line(exc)}); its log says why"
        except httpx2.RequestError as exc:
            problem = f"gave an answer that cannot be read ({one_line(exc)})"
        raise EngineError(f"{self.url} {problem}")

    def _raise_for(self, response: httpx2.Response) -> None:
        status = response.status_code
        if response.is_success:
            return
        is_get = response.request.method == "GET"
        if response.has_redirect_location:
            kind = PrerequisiteError if is_get else EngineError
            target = self._target(response)
            raise kind(f"{self.url} redirects ({status}) to {target}; give that address with --server")
        detail = self._detail(response)
        # A 403 to a POST with a key is about what it holds: a moderated prompt, a model, a region.
        if status == 401 or (status == 403 and (is_get or not self._key)):
            state = "is refused" if self._key else "is not set"
            raise PrerequisiteError(
                f"{self.url} wants a key, and {self._key_variable} {state} ({status}: {detail}); set it in "
                "the environment, or name another variable with --set engine.key_variable=NAME"
            )
        raise StatusError(f"{self.url} answered {status}: {detail}", status, detail)

    def _target(self, response: httpx2.Response) -> str:
        """The address that a redirect names, without the route."""
        import httpx2

        location = response.headers["location"]
        with suppress(httpx2.InvalidURL):
            location = str(response.url.join(location))
        return self.words(location.removesuffix(str(response.url).removeprefix(self.url)))

    def _read(self, response: httpx2.Response) -> Body:
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            kind = response.headers.get("content-type", "no type")
            raise EngineError(
                f"{self.url} answered with what is no JSON object ({clean(kind)}: {self._detail(response)}); "
                "--server wants the address below which /chat/completions or /completions lie, such as "
                "http://HOST:8000/v1"
            )
        if answer.get("error"):  # some servers answer 200 all the same
            raise EngineError(f"{self.url} answered with an error: {self.words(answer['error'])}")
        return answer

    def _detail(self, response: httpx2.Response) -> str:
        """What a response says of its error, as `words`."""
        try:
            answer = response.json()
        except ValueError:
            return self.words(response.text)
        return self.words(answer.get("error") or answer if isinstance(answer, dict) else answer)

    def words(self, error: Any) -> str:
        """A server's error on one short line without the key; it is untrusted text.

        `error`: a text, or JSON of any form, as a rule with `message` and `code`.
        """
        found, code = error, None
        if isinstance(error, dict):
            found, code = error.get("message") or error.get("detail") or error, error.get("code")
        text = found if isinstance(found, str) else json.dumps(found)
        if code and found is not error:
            text = f"{text} ({code})"
        if self._key:
            text = text.replace(self._key, "***")
        text = " ".join(clean(text).split())
        return text if len(text) <= 200 else f"{text[:200]}..."


def read_as(kind: type[ModelT], answer: Body, url: str) -> ModelT:
    """An answer in the form of a model. Raises EngineError where it has another."""
    try:
        return kind.model_validate(answer)
    except ValidationError as exc:
        first = exc.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise EngineError(f"{url} cannot be used: {place} of its answer: {clean(first['msg'])}") from None


def _base_url(url: str, key_variable: str) -> str:
    """The address without a route of completions and a slash at its end; `/v1` where it names no path."""
    import httpx2

    form = "--server wants http://HOST:PORT or https://HOST/v1"
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as exc:
        raise ConfigError(f"{form}: {one_line(exc)}") from None
    if parsed.userinfo:
        raise ConfigError(f"{form}, without a password in it; a key is read from {key_variable}")
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.fragment:
        raise ConfigError(f"{form}; got {clean(url)!r}")
    path = re.sub(r"(/chat)?/completions$", "", parsed.path.rstrip("/"))
    return str(parsed.copy_with(path=path or "/v1"))


def _seconds(text: str | None, otherwise: float) -> float:
    """A Retry-After in seconds; its other form, a date, counts as none."""
    try:
        return max(0.0, float(text or ""))
    except ValueError:
        return otherwise
