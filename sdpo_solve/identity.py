"""What makes a run the same run: its name on disk, its configuration, and the check that neither has changed.

Reads and writes `config.json` and nothing else; builds no part of a run (see `build.py`).
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from sdpo_solve import __version__
from sdpo_solve.config import RunOptions
from sdpo_solve.errors import ConfigError, JournalError
from sdpo_solve.types import Problem

_VERSIONED = ("torch", "transformers", "peft", "docker", "vllm")


def run_name(problem: Problem, options: RunOptions) -> str:
    """Where a run lies under its output directory: problem, arm, seed."""
    return f"{problem.id}/{options.arm_name}/seed-{options.seed}"


def default_out(options: RunOptions) -> Path:
    """`runs/<name>`, named after the options, so that the same command finds its run again."""
    said = options.model_dump_json(exclude={"method", "arm", "seed"})
    digest = hashlib.sha256(said.encode()).hexdigest()[:6]
    return Path("runs") / f"{options.engine}-{digest}"


def problem_digest(problem: Problem) -> str:
    """A digest of all that is asked and tested, the metadata left out."""
    content = asdict(problem)
    content.pop("meta")
    return hashlib.sha256(repr(sorted(content.items())).encode()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """Versions of this package, of Python, and of the libraries that results may depend on."""
    found = {"sdpo-solve": __version__, "python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def check_config(run_dir: Path, config: Mapping[str, Any]) -> None:
    """Refuse to go on with a run that was begun with other options.

    Raises ConfigError naming the first difference.
    """
    path = run_dir / "config.json"
    try:
        before = json.loads(path.read_text())
    except FileNotFoundError:
        return
    except (OSError, ValueError) as exc:
        raise ConfigError(f"cannot read {path}: {exc}; move {run_dir} away or choose another --out") from None
    old, new = _flat(before), _flat(json.loads(json.dumps(config)))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            raise ConfigError(
                f"{run_dir} holds a run with {key} = {old.get(key)!r}, now it is {new.get(key)!r}; "
                "results must not mix: choose another --out"
            )


def write_config(run_dir: Path, config: Mapping[str, Any]) -> None:
    """Write `config.json` whole or not at all, once.

    Raises JournalError where the disk is full or the directory cannot be written.
    """
    path = run_dir / "config.json"
    if path.exists():
        return
    temporary = path.with_name(".config.json.writing")
    try:
        temporary.write_text(json.dumps(config, indent=2) + "\n")
        temporary.rename(path)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        raise JournalError(f"cannot write {path}: {exc.strerror or exc}; free the disk and repeat") from None


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
