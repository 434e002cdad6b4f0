"""The Docker sandbox: one fresh container an attempt, taken from a pool of containers started ahead of need.

Only streams connect it with the host: nothing is mounted, copied in or copied out. What it does not do:
protect against faults of the kernel itself (for that, `runtime` takes `runsc`), or hide processor and kernel
versions.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
import threading
import time
import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import AfterValidator

from sdpo_solve.config import Free
from sdpo_solve.errors import PrerequisiteError
from sdpo_solve.sandboxes import languages
from sdpo_solve.sandboxes._base import BoxOptions, PooledSandbox
from sdpo_solve.sandboxes._box import COMMAND, Box, BoxEnd, BoxLost, Layout
from sdpo_solve.sandboxes._engine import calling_engine, connect, engine_errors, explanation
from sdpo_solve.sandboxes.images import image_tag, is_reference, setup_command
from sdpo_solve.sandboxes.languages import Language

if TYPE_CHECKING:
    from docker.api import APIClient

_LABEL = "sdpo-solve.box"
_WOULD_BLOCK = (BlockingIOError, TimeoutError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
# Tasks that a runtime such as gVisor's has itself, where the engine counts them with the program's; what each
# test may start is then watched by the runner.
_RUNTIME_TASKS = 2048
# Podman and gVisor lay file systems there that every test could write to; these take their places.
_WRITABLE_ELSEWHERE = ("/tmp", "/var/tmp", "/run")
# A client that lives has started its box or given it up by then: four calls lie between, of 120 s at most.
_NEVER_STARTED_S = 600


class _Limit(NamedTuple):
    """A limit of a box that an engine may refuse or leave out; each test is limited all the same."""

    sign: str
    """How a refusal names it."""
    fact: str
    """The entry of `/info` that is false where the engine keeps no such limit."""
    kept: str
    """The entry of a container's configuration that is 0 where it was left out."""


_LIMITS = {
    "nano_cpus": _Limit("nanocpus", "CpuCfsQuota", "NanoCpus"),
    "pids_limit": _Limit("pidslimit", "PidsLimit", "PidsLimit"),
    "mem_limit": _Limit("memorylimit", "MemoryLimit", "Memory"),
    "memswap_limit": _Limit("swap", "SwapLimit", "MemorySwap"),
    "nr_inodes": _Limit("nr_inodes", "", ""),  # an option of tmpfs that Podman does not know
}


def _image_name(name: str) -> str:
    if not is_reference(name):
        raise ValueError("must be the name of an image, such as python:3.13, or full")
    return name


class Options(BoxOptions):
    """Options of `--sandbox docker`."""

    image: Free[Annotated[str, AfterValidator(_image_name)] | None] = None
    """Image to run in: a name, or `full` for the one of `sdpo-solve setup --image full`."""
    runtime: Free[str | None] = None
    """OCI runtime known to the engine, such as `runsc` (with --network=none); by default the engine's own."""


class DockerSandbox(PooledSandbox):
    """Implements `protocols.Sandbox`.

    Raises PrerequisiteError where no engine answers, or it lacks the image or the runtime.
    """

    options_type = Options
    auto_order = 0
    options: Options

    def __init__(self, options: Options, language: str = languages.DEFAULT) -> None:
        super().__init__(options, language)
        self._client = connect()
        self._image_ids: dict[str, str] = {}
        self._left_out: frozenset[str] = frozenset()
        self._has_looked = False
        try:
            with calling_engine():
                self._check_runtime()
                self._image(language)
            self._remove_never_started()
            self.open()
        except BaseException:  # an interrupt, too: nobody else has the client
            self._client.close()
            raise

    def make_box(self, language: Language, memory_mb: int) -> DockerBox:
        """See `PooledSandbox`. A limit that the engine does not keep is left out, and named by `identity`."""
        from docker.errors import APIError

        while True:
            left_out = self._left_out  # another thread may meet the same refusal
            try:
                box = DockerBox(self._client, self._create(language, memory_mb, left_out))
            except APIError as exc:
                text = str(exc).lower().replace(" ", "")
                refused = {name for name, limit in _LIMITS.items() if limit.sign in text}
                if refused <= left_out:
                    raise BoxLost(explanation(exc)) from None
                self._left_out |= refused
            else:
                try:
                    self._look_at_first(box)
                except BaseException:  # whatever it is, nobody else knows of the box
                    box.end()
                    raise
                return box

    def _look_at_first(self, box: DockerBox) -> None:
        """See what the engine made of the first box.

        Raises BoxLost where it has another runtime, and what `engine_errors` holds.
        """
        if self._has_looked:
            return
        engine, made = self._client.info(), box.configuration()
        runtime = made.get("Runtime")
        if self.options.runtime not in (None, runtime):
            raise BoxLost(f"the engine starts it with the runtime {runtime}, not {self.options.runtime}")
        kept = {
            name: engine.get(limit.fact, True) and made.get(limit.kept, True)
            for name, limit in _LIMITS.items()
        }
        self._left_out |= {name for name in kept if not kept[name]}
        self._has_looked = True

    def _create(self, language: Language, memory_mb: int, left_out: frozenset[str]) -> str:
        created: dict[str, Any] = self._client.create_container(
            self._image(language.name),
            command=list(COMMAND),
            entrypoint=[],
            user="0:0",
            working_dir="/",
            environment={},
            use_config_proxy=False,
            stdin_open=True,
            network_disabled=True,
            name=f"sdpo-solve-{uuid.uuid4().hex[:16]}",
            labels={_LABEL: str(os.getpid())},
            host_config=self._host_config(self.layout(language), memory_mb, left_out),
        )
        return str(created["Id"])

    def _remove_never_started(self) -> None:
        """Remove what processes left that were killed between making a box and starting it.

        The engine removes a box when it ends, and such a one never does. Another process may be about to
        start a young one; that one, and one that has started meanwhile, stay.
        """
        # An engine that refuses this, or tells the time in another form, may well run boxes.
        with contextlib.suppress(ValueError, *engine_errors()):
            mine = {"label": _LABEL, "status": "created"}
            boxes = self._client.containers(all=True, filters=mine)
            if not boxes:
                return
            now = str(self._client.info().get("SystemTime"))  # the engine may be on another machine
            last_s = datetime.fromisoformat(now).timestamp() - _NEVER_STARTED_S
            for box in boxes:
                if box["Created"] < last_s:
                    with contextlib.suppress(*engine_errors()):  # another process may be removing it
                        self._client.remove_container(box["Id"], v=True)

    def start_errors(self) -> tuple[type[Exception], ...]:
        """See `PooledSandbox`."""
        return BoxLost, *engine_errors()

    def identity(self) -> str:
        """Backend, runtime and image id, for the record; the id fixes every version inside."""
        runtime = self.options.runtime or "default runtime"
        left_out = f", without {', '.join(sorted(self._left_out))}" if self._left_out else ""
        return f"docker ({runtime}), image {self._image(self.language.name)}{left_out}"

    def remedy(self, cause: str) -> str:
        """See `PooledSandbox`."""
        if "with the runtime" in cause:
            return "Podman takes it from its containers.conf: set it there and leave sandbox.runtime out"
        return "see what that engine reports of: docker run --rm hello-world, or use --sandbox bubblewrap"

    def close(self) -> None:
        """See `protocols.Sandbox`."""
        super().close()
        self._client.close()

    def _check_runtime(self) -> None:
        """Raises PrerequisiteError where the engine would not know the runtime."""
        runtime = self.options.runtime
        if runtime is None:
            return
        engine = self._client.info()
        if runtime in engine["Runtimes"]:
            return
        if "." in runtime and int(engine["ServerVersion"].split(".")[0]) >= 23:
            return  # a shim of containerd's, which such an engine starts without having it registered
        known = ", ".join(sorted(name for name in engine["Runtimes"] if "." not in name))
        raise PrerequisiteError(
            f"the Docker engine has no runtime {runtime!r} (known: {known}); "
            'register it under "runtimes" in /etc/docker/daemon.json and restart the engine'
        )

    def _image(self, language: str) -> str:
        """The id of the language's image. Raises PrerequisiteError when it is not there."""
        from docker.errors import ImageNotFound

        if language not in self._image_ids:
            own = self.options.image if language == self.language.name else None
            folder = f"{language}-full" if own == "full" else language
            name = image_tag(folder) if own in (None, "full") else own
            try:
                self._image_ids[language] = self._client.inspect_image(name)["Id"]
            except ImageNotFound:
                remedy = f"run: {setup_command(folder)}"
                if name == own:
                    remedy = f"run: docker pull {name}, or leave sandbox.image out"
                raise PrerequisiteError(f"the sandbox image {name} is missing; {remedy}") from None
        return self._image_ids[language]

    def _host_config(self, layout: Layout, memory_mb: int, left_out: frozenset[str]) -> dict[str, Any]:
        options = self.options
        mount = "rw,nosuid,nodev,mode=0711" + ",nr_inodes=1024" * ("nr_inodes" not in left_out)
        places = {f"/box/{i}": f"{mount},noexec,size={options.scratch_mb}m" for i in range(layout.n_slots)}
        if layout.builds:
            places["/box/build"] = f"{mount},exec,size=64m"
        places |= dict.fromkeys(_WRITABLE_ELSEWHERE, "ro,mode=0700,size=4k")
        others = _RUNTIME_TASKS if options.runtime else 16
        limits = {
            "pids_limit": layout.n_slots * (options.n_processes + 1) + others,
            "mem_limit": memory_mb << 20,
            "memswap_limit": memory_mb << 20,
            "nano_cpus": min(layout.n_slots, os.cpu_count() or 1) * 10**9,
        }
        config: dict[str, Any] = self._client.create_host_config(
            auto_remove=True,
            network_mode="none",
            ipc_mode="none",
            read_only=True,
            tmpfs=places,
            cap_drop=["ALL"],
            cap_add=["SETUID", "SETGID", "KILL"],
            security_opt=["no-new-privileges"],
            **{name: most for name, most in limits.items() if name not in left_out},
            ulimits=[],
            log_config={"Type": "none"},
            runtime=options.runtime,
        )
        return config


class DockerBox(Box):
    """One container and its stream (Docker's multiplexed attach stream)."""

    def __init__(self, client: APIClient, container_id: str) -> None:
        super().__init__()
        self._client = client
        self._id = container_id
        self._created_s = time.time()
        self._stream: Any = None
        self._socket: socket.socket | None = None
        self._raw = bytearray()
        self._stderr = bytearray()
        self._end_lock = threading.Lock()
        self._ended = False

    def configuration(self) -> dict[str, Any]:
        """What the engine made of the configuration of its host."""
        return dict(self._client.inspect_container(self._id)["HostConfig"])

    def start(self, layout: Layout) -> None:
        """See `Box`; also raises what `engine_errors` holds."""
        streams = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        self._stream = self._client.attach_socket(self._id, params=streams)
        self._socket = getattr(self._stream, "_sock", self._stream)  # TLS and ssh give the socket itself
        self._client.start(self._id)
        self._socket.setblocking(False)
        super().start(layout)

    # -- the stream ------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        assert self._socket is not None
        return self._socket.fileno()

    def send(self, data: memoryview) -> int:
        assert self._socket is not None
        try:
            return self._socket.send(data[: 1 << 18])
        except _WOULD_BLOCK:
            return 0

    def receive(self) -> bytes | None:
        assert self._socket is not None
        try:
            data = self._socket.recv(1 << 18)
            while isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():  # no poll shows these
                data += self._socket.recv(1 << 18)
        except _WOULD_BLOCK:
            return b""
        if not data:
            return None
        self._raw += data
        return self._demultiplex()

    def _demultiplex(self) -> bytes:
        """Whole frames of the attach stream: 4 bytes that name the stream, 4 of length, content."""
        stdout = bytearray()
        while len(self._raw) >= 8:
            stream, length = struct.unpack_from(">BxxxL", self._raw)
            if len(self._raw) < 8 + length:
                break
            content = self._raw[8 : 8 + length]
            del self._raw[: 8 + length]
            if stream == 2:
                self._stderr = (self._stderr + content)[-2048:]
            else:
                stdout += content
        return bytes(stdout)

    def errors(self) -> bytes:
        return bytes(self._stderr)

    # -- its end ---------------------------------------------------------------------------------------------

    def how_it_ended(self, seen: str) -> BoxEnd:
        """From the engine's events about the container."""
        time.sleep(0.3)  # events come a moment after the stream's end
        detail = seen + self.last_error()
        try:
            since, until = f"{self._created_s - 1:.3f}", f"{time.time():.3f}"
            events = self._client.events(
                since=since, until=until, filters={"container": self._id}, decode=True
            )
            actions = {event["Action"] for event in events}
        except engine_errors():
            return BoxEnd(False, False, False, detail)
        return BoxEnd(True, "kill" in actions, "oom" in actions, detail)

    def end(self) -> None:
        with self._end_lock:
            if self._ended:
                return
            self._ended = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                # Closing alone would not wake a thread that waits for this stream.
                self._socket.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError, AttributeError):
                self._stream._response.close()
            with contextlib.suppress(OSError, AttributeError):
                self._stream.close()
            self._socket.close()
        # The runner ends by itself now that its stream has; removing makes it certain and quick. An engine
        # that does not answer has no box left, or ends them by the same rule.
        with contextlib.suppress(*engine_errors()):
            self._client.remove_container(self._id, force=True, v=True)


PLUGIN = DockerSandbox
