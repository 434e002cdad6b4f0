"""An explanation as one self-contained HTML page: the run's moves, and attempts with their tokens shaded.

Draws what `signal` and `moves` hold in the form of `pages.py`; everything a model wrote is escaped there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sdpo_solve.report import html
from sdpo_solve.report.explain.policies import Stage
from sdpo_solve.report.explain.records import Signal, said
from sdpo_solve.report.explain.text import (
    LEVELS,
    N_STRONGEST,
    STRIP_LEGEND,
    alternative_text,
    figure_rows,
    level,
    notices,
    quoted,
    strip,
)
from sdpo_solve.report.html import Markup, element, join
from sdpo_solve.report.runs import RunRecord


def write_page(
    run: RunRecord, stages: Sequence[Stage], diffs: Sequence[str], signals: Sequence[Signal], path: Path
) -> None:
    """`diffs`: unified differences from each stage to the next.

    Raises UserError where `path` cannot be written.
    """
    header, rows = figure_rows(stages)
    body = join(
        element("h1", f"Why the policy of {run.name} changed"),
        element("h2", "Tests passed, attempt by attempt"),
        [element("p", f"policy {s.version}  ", strip(s.attempts), class_="strip") for s in stages],
        element("p", STRIP_LEGEND, class_="soft"),
        element("h2", "Policy by policy"),
        html.table(header, rows),
        [element("p", notice, class_="note") for notice in notices(run, stages)],
        [_move(before, after, diff) for before, after, diff in zip(stages, stages[1:], diffs, strict=False)],
        [_signal(signal) for signal in signals],
    )
    html.write(path, html.document("sdpo-solve explain", body))


def _move(before: Stage, after: Stage, diff: str) -> Markup:
    title = f"typical program: policy {before.version} (attempt {before.typical}) to {after.version} "
    kinds = {"+": "add", "-": "del", "@": "soft"}
    lines = [element("span", f"{line}\n", class_=kinds.get(line[:1])) for line in diff.split("\n")]
    return element(
        "details",
        element("summary", f"{title}(attempt {after.typical})"),
        element("pre", lines, class_="code"),
    )


def _signal(signal: Signal) -> Markup:
    title = f"Attempt {signal.attempt} of policy {signal.version}, under the {signal.teacher} teacher"
    tokens = [
        element("span", token.text, class_=_shade(token.log_ratio), title=f"{token.log_ratio:+.2f} nats")
        for token in signal.tokens
    ]
    rows = [
        [str(token.position), quoted(token.text), f"{token.log_ratio:+.2f}",
         " | ".join(alternative_text(other) for other in token.alternatives)]
        for token in signal.strongest(N_STRONGEST)
    ]  # fmt: skip
    recorded = "this policy's weights are pruned; its log-probs are the recorded ones"
    return join(
        element("h2", title),
        element("p", said(signal)),
        element("p", recorded, class_="soft") if signal.recorded else None,
        _key(),
        element("pre", tokens, class_="tokens"),
        element("h2", "Where the teacher disagrees most"),
        html.table(["at", "token", "nats", "the teacher would say (teacher / student)"], rows, class_="left"),
        element("h2", "What the teacher was told"),
        element("pre", signal.feedback),
    )


def _shade(log_ratio: float) -> str | None:
    steps = level(log_ratio)
    return None if not steps else f"{'up' if log_ratio > 0 else 'down'}{steps}"


def _key() -> Markup:
    down = [
        element("span", f" -{limit:g} ", class_=f"down{n}") for n, limit in reversed([*enumerate(LEVELS, 1)])
    ]
    up = [element("span", f" +{limit:g} ", class_=f"up{n}") for n, limit in enumerate(LEVELS, 1)]
    return element("p", "log(teacher/student) in nats: ", down, " 0 ", up, class_="tokens soft")
