"""Make this machine ready for the Docker sandbox: the engine, and the image of each language.

Each step announces itself, does nothing that is done already, and leaves nothing half done behind.
The `check_*` functions only look.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdpo_solve.errors import PrerequisiteError, one_line
from sdpo_solve.sandboxes import bubblewrap, docker, languages
from sdpo_solve.sandboxes._base import PooledSandbox
from sdpo_solve.sandboxes._engine import calling_engine, connect, engine_errors, engine_is_elsewhere, is_root
from sdpo_solve.sandboxes._sdists import with_sdists
from sdpo_solve.sandboxes.bubblewrap import BubblewrapSandbox
from sdpo_solve.sandboxes.docker import DockerSandbox
from sdpo_solve.sandboxes.images import image_folder, image_tag, setup_command

if TYPE_CHECKING:
    from docker.api import APIClient

Notify = Callable[[str], None]

_ENGINE_PACKAGES = ("docker.io", "iptables")
_ENGINE_LOG = Path("/var/log/sdpo-solve-dockerd.log")
_ENGINE_START_S = 60
_ENGINE_ENDED_S = 2
_REGISTRY_S = 20
_DEBIAN_ARCHIVE = "http://deb.debian.org/debian"
_DEBIAN_RELEASE = "trixie"
_BASE_PACKAGES = ("mmdebstrap", "debian-archive-keyring")
_NOT_READ = ("/usr/share/doc", "/usr/share/man", "/usr/share/locale")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. `remedy` is what to do; empty where all is well. What is not `needed` may fail."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    needed: bool = True


# -- looking -------------------------------------------------------------------------------------------------


def check_engine() -> Check:
    """Whether a Docker engine answers."""
    name = "Docker engine"
    try:
        with closing(connect()) as client, calling_engine():
            return Check(name, True, f"version {client.version()['Version']}")
    except PrerequisiteError as exc:
        return _failed(name, exc)


def check_image(language: str = languages.DEFAULT) -> Check:
    """Whether the language's image is there, as its Dockerfile now stands."""
    name, tag, remedy = f"sandbox image ({language})", image_tag(language), f"run: {setup_command(language)}"
    try:
        client = connect()
    except PrerequisiteError:
        return Check(name, False, "no Docker engine to look in", remedy)
    try:
        with closing(client), calling_engine():
            if image_exists(client, tag):
                return Check(name, True, tag)
    except PrerequisiteError as exc:
        return _failed(name, exc)
    return Check(name, False, f"{tag} is not built", remedy)


def check_docker() -> Check:
    """Whether an empty program runs in a Docker box."""
    return _check_boxes("Docker sandbox", lambda: DockerSandbox(docker.Options(boxes_ready=0)))


def check_bubblewrap() -> Check:
    """Whether an empty program runs in a bubblewrap box, for this user."""
    return _check_boxes("bubblewrap", lambda: BubblewrapSandbox(bubblewrap.Options(boxes_ready=0)))


def _check_boxes(name: str, build: Callable[[], PooledSandbox]) -> Check:
    try:
        with closing(build()) as sandbox:
            return Check(name, True, sandbox.identity())
    except PrerequisiteError as exc:
        return _failed(name, exc)


def _failed(name: str, exc: PrerequisiteError) -> Check:
    detail, _, remedy = str(exc).partition("; ")
    return Check(name, False, detail, remedy)


def check_machine() -> list[Check]:
    """All of the above, in the order in which to mend them: one of the two sandboxes must work, C++ may."""
    engine, boxes, cpp = check_engine(), check_bubblewrap(), check_image("cpp")
    containers = [engine, check_docker() if engine.ok else check_image()]
    if boxes.ok:
        containers = [_optional(check, "not needed while bubblewrap works") for check in containers]
    if all(check.ok for check in containers) or BubblewrapSandbox.auto_order is None:
        boxes = _optional(boxes, "not needed while Docker works")
    elif not boxes.ok:
        boxes = replace(boxes, remedy=f"or, without Docker, {boxes.remedy}")
    return [*containers, boxes, _optional(cpp, "for --language cpp in Docker")]


def _optional(check: Check, why: str) -> Check:
    return check if check.ok else replace(check, needed=False, remedy=f"{why}; {check.remedy}")


def image_exists(client: APIClient, name: str) -> bool:
    """Whether the engine holds an image of this name."""
    from docker.errors import ImageNotFound

    try:
        client.inspect_image(name)
    except ImageNotFound:
        return False
    return True


# -- the engine ----------------------------------------------------------------------------------------------


def ensure_docker_engine(notify: Notify) -> None:
    """Install and start a Docker engine where none answers and this user may. Raises PrerequisiteError."""
    check = check_engine()
    if check.ok:
        notify(f"The Docker engine answers ({check.detail}).")
        return
    if not _may_install():
        raise PrerequisiteError(f"{check.detail}; {check.remedy}")
    if shutil.which("dockerd") is None:
        notify(f"Installing the Docker engine: apt-get install {' '.join(_ENGINE_PACKAGES)}")
        _apt_install(_ENGINE_PACKAGES)
    if not check_engine().ok:
        _start_engine(notify)
    notify(f"The Docker engine answers ({check_engine().detail}).")


def _may_install() -> bool:
    return not engine_is_elsewhere() and is_root() and shutil.which("apt-get") is not None


def _start_engine(notify: Notify) -> None:
    if Path("/run/systemd/system").is_dir():
        notify("Starting the Docker engine: systemctl start docker")
        _run(["systemctl", "start", "docker"])
        if not _engine_comes_up(lambda: True):
            raise PrerequisiteError("the Docker engine does not start; see: journalctl -u docker")
        return
    notify(f"Starting the Docker engine in the background: dockerd (log in {_ENGINE_LOG})")
    with _ENGINE_LOG.open("ab") as log:
        daemon = subprocess.Popen(
            ["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    came_up = _engine_comes_up(lambda: daemon.poll() is None)
    daemon.returncode = 0  # it outlives us; nobody waits for it
    if not came_up:
        last = (_ENGINE_LOG.read_text("utf-8", "replace").splitlines() or ["its log is empty"])[-1]
        raise PrerequisiteError(f"the Docker engine does not start ({last}); see {_ENGINE_LOG}")


def _engine_comes_up(alive: Callable[[], bool]) -> bool:
    """Wait for it; for a daemon that has ended only a moment, in which another's may answer."""
    began = ended = time.monotonic()
    while not check_engine().ok:
        now = time.monotonic()
        ended = now if alive() else ended
        if now > min(began + _ENGINE_START_S, ended + _ENGINE_ENDED_S):
            return False
        time.sleep(0.5)
    return True


def ensure_sandbox(notify: Notify, images: Iterable[str]) -> None:
    """A Docker engine with these images; nothing where there can be none but bubblewrap works.

    Raises PrerequisiteError where neither can be had, ConfigError for an image that there is not.
    """
    try:
        ensure_docker_engine(notify)
    except PrerequisiteError as exc:
        if not check_bubblewrap().ok:
            raise
        notify(f"bubblewrap works here and serves; Docker would be tried first, but {exc}")
    else:
        ensure_images(notify, images)


# -- images --------------------------------------------------------------------------------------------------


def ensure_images(notify: Notify, names: Iterable[str] = (languages.DEFAULT,)) -> None:
    """`ensure_image` for each.

    Before any is made, raises ConfigError for an unknown language, PrerequisiteError for one without image.
    """
    names = list(names)
    for name in names:
        languages.get(name.removesuffix("-full"))
        image_folder(name)
    for name in names:
        ensure_image(name, notify)


def ensure_image(language: str, notify: Notify, base: str | None = None) -> str:
    """Build the language's image unless it is there; gives its name.

    The base is `base` where given, else what the Dockerfile names where a registry has it, else a Debian made
    here by mmdebstrap (root only). Raises PrerequisiteError.
    """
    name = image_tag(language)
    try:
        with closing(connect()) as client:
            if image_exists(client, name):
                notify(f"The sandbox image {name} is there.")
                return name
            if base is None and not _registry_has(client, _default_base(language)):
                notify("No registry answers for the base image; making a Debian base with mmdebstrap.")
                base = _ensure_debian_base(client, language, notify)
            notify(f"Building the sandbox image {name} on {base or _default_base(language)}.")
            with with_sdists(image_folder(language)) as folder:
                _build(client, folder, name, {"BASE": base} if base else {})
    except engine_errors() as exc:
        raise PrerequisiteError(f"the sandbox image {name} cannot be made: {one_line(exc)}") from None
    notify(f"Built {name}.")
    return name


def _default_base(language: str) -> str:
    for line in (image_folder(language) / "Dockerfile").read_text(encoding="utf-8").splitlines():
        if line.startswith("ARG BASE="):
            return line.removeprefix("ARG BASE=").strip()
    raise PrerequisiteError(f"the Dockerfile of {language} names no base (ARG BASE=...)")


def _registry_has(client: APIClient, name: str) -> bool:
    if image_exists(client, name):
        return True
    timeout_s, client.timeout = client.timeout, _REGISTRY_S
    try:
        client.inspect_distribution(name)
    except engine_errors():
        return False
    finally:
        client.timeout = timeout_s
    return True


def _build(client: APIClient, folder: Path, name: str, arguments: dict[str, str]) -> None:
    proxies = {k: v for k, v in os.environ.items() if k.lower() in ("http_proxy", "https_proxy", "no_proxy")}
    events: Iterable[dict[str, Any]] = client.build(
        path=str(folder),
        tag=name,
        buildargs=arguments | proxies,
        network_mode="host",
        rm=True,
        forcerm=True,
        decode=True,
    )
    lines: list[str] = []
    for event in events:
        lines += [line for line in event.get("stream", "").splitlines() if line.strip()]
        if "error" in event:
            text = " / ".join(lines[-3:])
            raise PrerequisiteError(f"the image {name} cannot be built: {event['error']} (after: {text})")


def _ensure_debian_base(client: APIClient, language: str, notify: Notify) -> str:
    """Debian's essential packages and those of the language, without what no program reads; a fuller image
    with the packages of the plain one shares its base."""
    packages = _debian_packages(language)
    if packages == _debian_packages(language.removesuffix("-full")):
        language = language.removesuffix("-full")
    # Podman would look for a name without a host in a registry.
    name = f"localhost/sdpo-solve-{language}-base:debian-{_DEBIAN_RELEASE}"
    if image_exists(client, name):
        return name
    if not is_root():
        raise PrerequisiteError(
            "no registry answers, and making a base image needs root: run sdpo-solve setup as root once"
        )
    if shutil.which("mmdebstrap") is None:
        notify(f"Installing mmdebstrap: apt-get install {' '.join(_BASE_PACKAGES)}")
        _apt_install(_BASE_PACKAGES)
    with tempfile.TemporaryDirectory(prefix="sdpo-solve-base-") as folder:
        archive, base = _debian_archive(), f"{folder}/base.tar"
        notify(f"Running mmdebstrap {_DEBIAN_RELEASE} from {archive} (half a minute).")
        # The folder is deleted whatever happens, so that nothing need be forced to the disk.
        options = ["--dpkgopt=force-unsafe-io", *(f"--dpkgopt=path-exclude={x}/*" for x in _NOT_READ)]
        options += ["--mode=root", "--variant=essential", f"--include={','.join(packages)}"]
        _run(["mmdebstrap", *options, _DEBIAN_RELEASE, base, archive], TMPDIR=folder)
        client.import_image_from_file(base, repository=name)
    return name


def _debian_packages(language: str) -> list[str]:
    return (image_folder(language) / "debian-packages").read_text(encoding="utf-8").split()


def _debian_archive() -> str:
    """The archive that this machine's own apt uses for the release, else Debian's."""
    if shutil.which("apt-get"):
        listing = ""
        with suppress(PrerequisiteError):
            listing = _run(["apt-get", "indextargets", "--format", "$(CODENAME) $(COMPONENT) $(REPO_URI)"])
        for line in listing.splitlines():
            match line.split():
                case [codename, "main", uri] if codename == _DEBIAN_RELEASE and uri.startswith("http"):
                    return uri.rstrip("/")
    return _DEBIAN_ARCHIVE


# -- commands ------------------------------------------------------------------------------------------------


def _apt_install(packages: Sequence[str]) -> None:
    _run(["apt-get", "update"])
    _run(["apt-get", "install", "-y", "--no-install-recommends", *packages])


def _run(command: list[str], **variables: str) -> str:
    """Standard output. Raises PrerequisiteError with the command and its last lines."""
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", **variables}
    done = subprocess.run(
        command,
        env=quiet,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        text = " / ".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-3:])
        raise PrerequisiteError(f"`{' '.join(command)}` failed with exit code {done.returncode}: {text}")
    return done.stdout
