"""What makes a run the same run: its name on disk, its configuration, and the check that neither has changed.

Makes the records of a run, reads and writes `config.json`; builds no part of a run (see `build.py`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from sdpo_solve.config import RunOptions, SharedOptions
from sdpo_solve.errors import ConfigError, JournalError, UserError
from sdpo_solve.paths import file_errors
from sdpo_solve.run.events import FILE_NAME, read_records
from sdpo_solve.run.options import Plan, model_name
from sdpo_solve.run.records import GroupEvent, RunFinished, RunStarted
from sdpo_solve.types import Checker, Problem, SamplingSpec

# How a server is reached.
_REACHING = ("server", "key_variable", "timeout_s")
# Recorded, and free to change: they decide no result.
_DECIDE_NOTHING = ("versions.", "parts.judge.boxes", *(f"parts.engine.{name}" for name in _REACHING))
_IN_HEADER = {"method", "seed", "engine", "sandbox", "feedback_mode", "language", "keep_going"}
_OF_SAMPLING = {"temperature", "language", "system", "thinking", "feedback_mode", "extract"}
_BUDGET = ("attempts", "tokens", "wall_seconds")
_NOT_NAMED_BY = {"method", "arm", "seed", *_BUDGET}
# What earlier versions named a directory by, in the order that their digest depends on.
_NAMED_BY = (
    *("engine", "sandbox", "model", "attempts", "tokens", "wall_seconds", "group_size", "max_tokens"),
    *("temperature", "keep_going", "feedback_mode", "language", "system", "thinking", "threads", "settings"),
)
_VERSIONED = ("sdpo-solve", "torch", "transformers", "peft", "docker", "vllm")


def run_name(problem: Problem, options: RunOptions) -> str:
    """Where a run lies under its output directory: problem, arm, seed."""
    return f"{problem.id}/{options.arm_name}/seed-{options.seed}"


def default_out(options: SharedOptions, prefix: str, sources: Sequence[str]) -> Path:
    """`runs/<problems>-<model>-<digest of the options>`, so that the same command finds its runs again.

    The budget is left out, so that a run goes on where it grew. A directory with the name that an earlier
    version would have given, `<prefix>-<digest>`, is used on.
    """
    values = options.model_dump(mode="json")
    older = Path("runs") / f"{prefix}-{_digest({name: values[name] for name in _NAMED_BY})}"
    if older.exists():
        return older
    given = {name: value for name, value in values.items() if name not in _NOT_NAMED_BY}
    defaults = type(options)().model_dump(mode="json")
    changed = {name: value for name, value in sorted(given.items()) if value != defaults[name]}
    model = model_name(options) or options.engine
    more = [f"and-{len(sources) - 1}-more"] if len(sources) > 1 else []
    return Path("runs") / "-".join([_short_name(sources[0]), *more, Path(model).name, _digest(changed)])


def _short_name(source: str) -> str:
    """A source as a part of a directory's name: `lcb-v6`, `letter-tally`."""
    scheme, _, rest = source.rpartition(":")
    name = Path(rest).resolve().name.split(".")[0]
    return re.sub(r"[^\w-]+", "-", f"{scheme}-{name}").strip("-") or "problems"


def _digest(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def check_out(out: Path) -> None:
    """Refuse a directory that results cannot be written to, before anything is done; nothing is left in it.

    A full disk is no reason: it may have room later, and writing there raises. Raises UserError.
    """
    place = next(path for path in (out, *out.absolute().parents) if os.path.lexists(path))
    try:
        if not place.is_dir():
            raise NotADirectoryError
        os.rmdir(tempfile.mkdtemp(prefix=".sdpo-solve-", dir=place))
    except NotADirectoryError:
        raise UserError(f"--out {out}: {place} is a file; choose another --out") from None
    except OSError as exc:
        if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
            reason = exc.strerror or exc
            raise UserError(f"--out {out} cannot be written ({reason}); choose another --out") from None


def problem_digest(problem: Problem) -> str:
    """A digest of statement, tests and limits, the metadata left out."""
    content = asdict(replace(problem, tests=()))
    del content["meta"], content["tests"]
    for name in ("ignore_case", "program", "language"):  # digests of before there were such checkers stay
        if content["checker"][name] == getattr(Checker(), name):
            del content["checker"][name]
    digest = hashlib.sha256(f"{repr(sorted(content.items()))[:-1]}, ('tests', (".encode())
    for number, test in enumerate(problem.tests):  # one by one: a test may be large
        digest.update(f"{', ' if number else ''}{asdict(test)!r}".encode())
    digest.update(b",))]" if len(problem.tests) == 1 else b"))]")
    return digest.hexdigest()[:16]


def versions() -> dict[str, str]:
    """Versions of this package, of Python, and of the libraries that results may depend on."""
    by_name = {"python": platform.python_version()}
    for name in _VERSIONED:
        with contextlib.suppress(metadata.PackageNotFoundError):
            by_name[name] = metadata.version(name)
    return by_name


def read_config(run_dir: Path) -> dict[str, Any] | None:
    """What the run in `run_dir` was begun with; None where there is none.

    Raises ConfigError where the file cannot be read or is damaged.
    """
    path = run_dir / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text())
        RunStarted.model_validate({"config": config})  # raises where a table is none
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it is damaged"
        remedy = "remove it (the journal beside it says the same) or choose another --out"
        raise ConfigError(f"cannot read {path}: {why}; {remedy}") from None
    return config


def config_of(plan: Plan, spec: SamplingSpec, problem: Problem, model: str) -> dict[str, Any]:
    """All that decides the results of a run besides what grades it, for the record and for a resume."""
    options = plan.run.model_dump(mode="json", exclude={"settings"})
    return {
        "options": {**options, "max_tokens": spec.max_tokens},
        "parts": {name: part.model_dump(mode="json") for name, part in plan.parts.items()},
        "problem": {"id": problem.id, "digest": problem_digest(problem)},
        "model": model,
    }


def header_of(plan: Plan, problem: Problem, config: Mapping[str, Any], engine: str) -> dict[str, Any]:
    """The content of a journal's first event; `engine` is the engine's identity."""
    options = plan.run
    model = plan.model_name or options.engine
    return {
        "problem": problem.id,
        "arm": options.arm_name,
        "model": model,
        **options.model_dump(mode="json", include=_IN_HEADER),
        "budget": asdict(options.budget),
        "n_visible": sum(test.visible for test in problem.tests),
        "n_hidden": sum(not test.visible for test in problem.tests),
        "difficulty": problem.meta.get("difficulty"),
        "config": dict(config),
        "identity": {"engine": engine, "grader": config["grader"]["identity"]},
        "versions": versions(),
    }


def sampling_record(plan: Plan, spec: SamplingSpec, model: str) -> dict[str, Any]:
    """What decides how often the base model solves a problem besides what grades it, for the record."""
    options = plan.run.model_dump(mode="json", include=_OF_SAMPLING)
    stop = getattr(plan.parts["engine"], "stop", None)
    return {"model": model, "max_tokens": spec.max_tokens, "stop": stop, **options}


def check_config(
    run_dir: Path, config: Mapping[str, Any], plan: Plan, header: Mapping[str, Any] | None = None
) -> bool:
    """Refuse to go on with a run that was begun with other options, model or grader; its budget may grow.

    Graders are compared where both have one: files of early versions do not. A run begun before there was an
    option had the value that is its default. `header`: that of its journal, for where `config.json` is gone.
    Returns whether the run goes on: one that differs and holds no results is begun anew. Raises ConfigError
    naming the first difference.
    """
    before = read_config(run_dir)
    if before is None:
        before = (header or {}).get("config")
    if before is None:
        return True
    old, new = flat(_as_this_version(before, plan)), flat(json.loads(json.dumps(config)))
    ignored = list(_DECIDE_NOTHING)
    if "grader" in before:  # what came of these options stands there
        ignored += ["options.sandbox", "parts.sandbox."]
    if not ("grader" in before and "grader" in config):
        ignored.append("grader.")
    for key in sorted(old.keys() | new.keys()):
        if key.startswith(tuple(ignored)) or _grew(key, old.get(key), new.get(key)):
            continue
        if old.get(key) != new.get(key) and not holds_results(run_dir):
            return False
        _refuse_difference(run_dir, key, old.get(key), new.get(key))
    return True


def holds_results(run_dir: Path) -> bool:
    """Whether a run has come to a group, a policy or its end; before that it has nothing that could mix.

    So has one whose journal is gone or cannot be read, for all that is known.
    """
    if any((run_dir / "policies").glob("*")):
        return True
    try:
        lines = read_records(run_dir / FILE_NAME)
        return any(isinstance(line.record, GroupEvent | RunFinished) for line in lines)
    except JournalError:
        return True


def _grew(key: str, old: Any, new: Any) -> bool:
    """Whether this is a budget (None: no limit) that is larger now."""
    is_budget = key in {f"options.{name}" for name in _BUDGET}
    return is_budget and old is not None and (new is None or new > old)


def _as_this_version(config: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """A stored configuration with the defaults of options that are newer, and with current names."""
    defaults = RunOptions().model_dump(mode="json", exclude={"settings"})
    options = {**defaults, **RunOptions.before_the_option, **config.get("options", {})}
    parts = dict(config.get("parts", {}))
    parts |= {name: part.complete(parts.get(name, {})) for name, part in plan.parts.items()}
    return {**config, "options": options, "parts": parts}


def check_grader(run_dir: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to put runs beside that of `run_dir` which something else would grade.

    Raises ConfigError naming the first difference.
    """
    for key in sorted(before.keys() | now.keys()):
        _refuse_difference(run_dir, f"grader.{key}", before.get(key), now.get(key))


def _refuse_difference(run_dir: Path, key: str, old: Any, new: Any) -> None:
    if old == new:
        return
    remedies = {
        "grader.identity": "bring that one back or ",
        "options.extract": f"--extract {old} goes on, or ",
    }
    remedy = remedies.get(key, "")
    raise ConfigError(
        f"{run_dir} holds a run with {key} = {old!r}, now it is {new!r}; "
        f"results must not mix: {remedy}choose another --out"
    )


def write_config(run_dir: Path, config: Mapping[str, Any], *, anew: bool = False) -> None:
    """Write `config.json` whole or not at all, where it is not there or the budget grew, or `anew`.

    Raises JournalError where the disk is full or the directory cannot be written.
    """
    path = run_dir / "config.json"
    before = None if anew else read_config(run_dir)
    if before is not None:
        budget = {name: config["options"][name] for name in _BUDGET}
        if {name: before["options"].get(name) for name in _BUDGET} == budget:
            return
        config = {**before, "options": {**before["options"], **budget}}
    temporary = path.with_name(".config.json.writing")
    with file_errors(JournalError, f"write {path}", "free the disk and repeat"):
        try:
            temporary.write_text(json.dumps(config, indent=2) + "\n")
            temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of nested mappings by their dotted names."""
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return leaves
