"""The sandbox tried on this machine: a line for every honest and hostile program, and what they left behind.

Joins `trials.py` with what a person sees; parses no flag and decides no exit code (see `cli.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from sdpo_solve.config import RunOptions, parse_settings, read_options
from sdpo_solve.grading import selfcheck
from sdpo_solve.run import build


def examine_sandbox(
    backend: str, settings: Sequence[str], *, at_a_time: int, only: Sequence[str], console: Console
) -> bool:
    """Judge the trials on a sandbox and print them; true where all went as they must and nothing is left.

    `only` keeps those whose names contain one of its texts; empty keeps all. Raises UserError for an unknown
    sandbox or name, PrerequisiteError where the sandbox cannot be started, SandboxError where it breaks.
    """
    given = {"sandbox": backend, "settings": parse_settings(settings)}
    plan = build.make_plan(read_options(RunOptions, given, "doctor"), grading_only=True)
    chosen = selfcheck.choose(selfcheck.load(), only)
    before = selfcheck.traces()

    def told(result: selfcheck.TrialResult) -> None:
        console.print(_line(result), soft_wrap=True)

    with build.Workshop(plan) as workshop:
        console.print(Text(f"{workshop.sandbox().identity()}: {len(chosen)} programs"), soft_wrap=True)
        results = selfcheck.run(workshop.judge(), chosen, told, at_a_time=at_a_time)
    left = sorted(selfcheck.traces() - before)
    for kind, word in ((True, "honest programs were solved"), (False, "hostile programs were refused")):
        of_kind = [result for result in results if result.trial.honest is kind]
        n_ok = sum(result.ok for result in of_kind)
        style = "green" if n_ok == len(of_kind) else "red"
        console.print(Text(f"{n_ok} of {len(of_kind)} {word}", style=style))
    console.print(
        Text(f"left behind: {', '.join(left) or 'nothing'}", style="red" if left else "green"), soft_wrap=True
    )
    return all(result.ok for result in results) and not left


def _line(result: selfcheck.TrialResult) -> Text:
    """Mark, kind, name, what became of it and how long it took: 78 columns at most."""
    trial, case = result.trial, result.failure
    word = case.status.value.replace("_", " ") if case else "solved"
    mark = Text("✓ ", style="green") if result.ok else Text("✗ ", style="red")
    kind = "honest" if trial.honest else "hostile"
    line = mark + Text(f"{kind:<8}{trial.name:<34}{word:<22}{result.wall_s:6.1f} s")
    return line if result.ok else line + Text(f"\n  {trial.about}", style="dim")
