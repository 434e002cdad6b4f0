"""What a batch may still cost: measured on its runs on disk, or on two small groups of each arm."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sdpo_solve import methods
from sdpo_solve.batch.batch import Batch, Executor, RunsOnDisk
from sdpo_solve.batch.cost import Cost, Estimate, cost_of, estimate
from sdpo_solve.batch.runner import Sink
from sdpo_solve.batch.spec import ArmOptions, RunKey
from sdpo_solve.batch.stop import StopSignal
from sdpo_solve.errors import UserError
from sdpo_solve.paths import MEASURE_PREFIX, file_errors
from sdpo_solve.run.build import sampling_spec

Settings = Mapping[str, Mapping[str, Any]]

# Attempts of a measured group.
_GROUP = 4


def unmeasured(batch: Batch) -> list[str]:
    """The arms without a run on disk that gives the cost of an attempt."""
    return [arm for arm, cost in batch.on_disk.costs.items() if not cost.attempts]


def measure(batch: Batch, execute: Executor, sink: Sink, stop: StopSignal) -> dict[str, Cost]:
    """What each arm costs here: from its runs on disk, else from a short run on the first problem.

    `sink` receives the events of the short runs, as those of a batch. They lie where the results do, so that
    Ray's workers see them too, and are removed afterwards. An arm that fails costs nothing. Raises UserError
    where they cannot be written.
    """
    costs, arms = dict(batch.on_disk.costs), unmeasured(batch)
    if not arms:
        return costs
    out = batch.out.absolute()
    place = next(path for path in (out, *out.parents) if path.exists())
    with file_errors(UserError, f"write {place}", "leave out --measure, or choose another --out"):
        temporary = tempfile.TemporaryDirectory(prefix=MEASURE_PREFIX, dir=place, ignore_cleanup_errors=True)
    with temporary as folder:
        short = _short(batch, Path(folder))
        keys = [RunKey(0, batch.problems.ids[0], arm) for arm in arms]
        sink({"event": "batch_started", "runs": len(keys), "methods": arms, "out": folder})
        sink(
            {
                "event": "notice",
                "text": f"measuring {2 * _GROUP} attempts of each method on {keys[0].problem}",
            }
        )
        execute(short, keys, sink, stop)
        return costs | {key.arm: cost_of([short.out / key.name]) for key in keys}


def _short(batch: Batch, out: Path) -> Batch:
    """The batch with runs of two small groups, and an update after each in the arms that make updates."""
    group_size = min(batch.spec.run.group_size or _GROUP, _GROUP)
    grouped = batch.spec.samples_groups()
    short = {
        "attempts": 2 * group_size,
        "group_size": group_size if grouped else None,
        "keep_going": True,
        "tokens": None,
        "wall_seconds": None,
        "settings": _without(batch.spec.run.settings, "group_size"),
    }
    arms = {key.arm: _short_arm(batch, key) for key in reversed(batch.keys)}
    spec = replace(
        batch.spec,
        run=batch.spec.run.model_copy(update=short),
        batch=batch.spec.batch.model_copy(update={"arms": arms}),
    )
    return replace(batch, spec=spec, out=out, on_disk=RunsOnDisk())


def _short_arm(batch: Batch, key: RunKey) -> ArmOptions:
    """The arm of a run; where it comes to an update, nothing holds the first one back."""
    named = batch.spec.batch.arms.get(key.arm) or ArmOptions(method=key.arm)
    settings = _without(named.settings, "group_size")
    plan = batch.plan_for(key)
    own, learner = plan.parts[plan.run.method], plan.parts.get("learner")
    after = methods.REGISTRY.load(plan.run.method).first_update_after(own)
    if learner is not None and plan.has_weights and after < plan.run.attempts:
        for part, options, name in ((plan.run.method, own, "learn_after"), ("learner", learner, "min_gap")):
            if hasattr(options, name):
                settings[part] = {**settings.get(part, {}), name: 0}
    return named.model_copy(update={"settings": settings})


def _without(settings: Settings, option: str) -> dict[str, Mapping[str, Any]]:
    return {
        part: {key: value for key, value in values.items() if key != option}
        for part, values in settings.items()
    }


def left_to_spend(batch: Batch, costs: Mapping[str, Cost]) -> Estimate:
    """The most that the runs which are not finished may still cost.

    By their options alone where an arm was not measured: seconds and bytes are 0 then, and not known.
    """
    options = batch.spec.run
    measured = estimate(batch.keys_left, costs, options)
    if measured is not None:
        return measured
    run_tokens = options.attempts * sampling_spec(batch.plan_for(batch.keys[0])).max_tokens
    if options.tokens is not None:
        run_tokens = min(run_tokens, options.tokens)
    n_runs = len(batch.keys_left)
    return Estimate(n_runs * options.attempts, n_runs * run_tokens, 0.0, 0, measured=0)
