"""Policy versions on disk: one directory each, written whole or not at all, never written again.

`policies/0007/` holds the adapter in PEFT format, the optimizer, the teacher's average, and `state.json` with
generators, health and the SHA-256 of the other files. A version is written under a temporary name, flushed to
the disk and renamed. Tensors are safetensors and the rest is JSON, so nothing here can run code.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from sdpo_solve.errors import LearnerError
from sdpo_solve.model.adapted import CONFIG_FILE, WEIGHTS_FILE, AdapterShape, peft_config, read_tensors

OPTIMIZER_FILE = "optimizer.safetensors"
TEACHER_FILE = "teacher.safetensors"
STATE_FILE = "state.json"
_KEPT_FILE = "kept.json"
_TEMPORARY = ".writing-"


@dataclass(frozen=True, slots=True)
class Version:
    """Everything the next step depends on. `facts` is plain JSON data; `teacher` is empty without one."""

    number: int
    run: str
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    teacher: Mapping[str, Tensor]
    facts: Mapping[str, Any]


def version_dir(policies_dir: Path, number: int) -> Path:
    return policies_dir / f"{number:04d}"


def write_version(policies_dir: Path, version: Version, shape: AdapterShape) -> Path:
    """Write one version; returns its directory.

    Raises LearnerError where the disk is full or the directory cannot be written, and for a number that is
    there already. No half directory is left behind.
    """
    final = version_dir(policies_dir, version.number)
    temporary = policies_dir / f"{_TEMPORARY}{version.number:04d}"
    try:
        policies_dir.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        if final.exists():
            raise LearnerError(f"{final} is there already; versions are never written again")
        temporary.mkdir()
        _write_files(temporary, version, shape)
        for path in temporary.iterdir():
            _flush(path)
        _flush(temporary)
        temporary.rename(final)
        _flush(policies_dir)
    except (OSError, SafetensorError) as exc:  # safetensors has a type of its own for a full disk
        shutil.rmtree(temporary, ignore_errors=True)
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise LearnerError(
            f"cannot write {final}: {why}; the same command goes on from the last group"
        ) from None
    return final


def read_version(policies_dir: Path, number: int, run: str) -> Version:
    """Read one version back.

    Raises LearnerError naming the file that is missing, damaged, or of another run. The folder of the
    results, the first part of a run's name, may have been renamed.
    """
    directory = version_dir(policies_dir, number)
    state = _read_json(directory / STATE_FILE)
    is_of_run = _name_in_folder(str(state.get("run"))) == _name_in_folder(run)
    for key, value, fits in (("version", number, state.get("version") == number), ("run", run, is_of_run)):
        if not fits:
            raise LearnerError(f"{directory / STATE_FILE} is of {key} {state.get(key)!r}, wanted {value!r}")
    for name, digest in state["sha256"].items():
        if _digest(directory / name) != digest:
            raise LearnerError(f"{directory / name} is damaged: its SHA-256 is not the recorded one")
    teacher = directory / TEACHER_FILE
    return Version(
        number,
        run,
        read_tensors(directory / WEIGHTS_FILE),
        read_tensors(directory / OPTIMIZER_FILE),
        read_tensors(teacher) if teacher.name in state["sha256"] else {},
        state["facts"],
    )


def clear_after(policies_dir: Path, number: int) -> None:
    """Remove what no journal has committed: later versions and unfinished directories."""
    try:
        if not policies_dir.exists():
            return
        for path in policies_dir.iterdir():
            if path.name.startswith(_TEMPORARY) or (path.name.isdecimal() and int(path.name) > number):
                shutil.rmtree(path)
    except OSError as exc:
        raise LearnerError(f"cannot clear {policies_dir}: {exc.strerror or exc}") from None


def prune(policies_dir: Path, keep: Iterable[int]) -> None:
    """Remove every version but these and the ones marked by `mark_kept`."""
    wanted = {*keep, *kept(policies_dir)}
    for path in policies_dir.iterdir():
        if path.name.isdecimal() and int(path.name) not in wanted:
            # Renamed first: a kill in between leaves no directory that looks like a version.
            doomed = path.with_name(f"{_TEMPORARY}{path.name}-old")
            path.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)


def kept(policies_dir: Path) -> set[int]:
    """The versions that must stay."""
    path = policies_dir / _KEPT_FILE
    try:
        return set(json.loads(path.read_text()))
    except FileNotFoundError:
        return set()
    except (OSError, ValueError, TypeError) as exc:
        raise LearnerError(f"cannot read {path}: {exc}") from None


def mark_kept(policies_dir: Path, number: int) -> None:
    """Never prune this version, in this process or a later one."""
    numbers = sorted({*kept(policies_dir), number})
    path = policies_dir / _KEPT_FILE
    temporary = path.with_name(f"{_TEMPORARY}{_KEPT_FILE}")
    try:
        policies_dir.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(numbers))
        _flush(temporary)
        temporary.rename(path)
    except OSError as exc:
        raise LearnerError(f"cannot write {path}: {exc.strerror or exc}") from None


# -- parts ---------------------------------------------------------------------------------------------------


def _write_files(directory: Path, version: Version, shape: AdapterShape) -> None:
    from safetensors.torch import save_file

    _write_config(directory / CONFIG_FILE, shape)
    tensors = {
        WEIGHTS_FILE: version.weights,
        OPTIMIZER_FILE: version.optimizer,
        TEACHER_FILE: version.teacher,
    }
    for name, content in tensors.items():
        if content or name != TEACHER_FILE:
            # The mark tells PEFT and vLLM where the tensors come from.
            save_file(
                {k: t.contiguous().cpu() for k, t in content.items()}, directory / name, {"format": "pt"}
            )
    state = {
        "version": version.number,
        "run": version.run,
        "facts": dict(version.facts),
        "sha256": {path.name: _digest(path) for path in sorted(directory.iterdir())},
    }
    text = json.dumps(state, sort_keys=True)
    state["check"] = hashlib.sha256(text.encode()).hexdigest()
    (directory / STATE_FILE).write_text(json.dumps(state, sort_keys=True))


def _write_config(path: Path, shape: AdapterShape) -> None:
    """The adapter's PEFT configuration; keys sorted, so that equal versions are equal files."""
    config = peft_config(shape).to_dict()
    config["inference_mode"] = True
    plain = {k: sorted(v) if isinstance(v, set) else getattr(v, "value", v) for k, v in config.items()}
    path.write_text(json.dumps(plain, indent=2, sort_keys=True) + "\n")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        state = json.loads(path.read_text())
        check = state.pop("check")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise LearnerError(f"cannot read {path}: {exc}") from None
    if hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest() != check:
        raise LearnerError(f"{path} is damaged: its check sum is not the recorded one")
    plain: dict[str, Any] = state
    return plain


def _name_in_folder(run: str) -> list[str]:
    """Problem, arm and seed of a run's name."""
    return run.split("/")[-3:]


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise LearnerError(f"cannot read {path}: {exc.strerror or exc}") from None


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
