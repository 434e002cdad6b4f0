"""Explanations for the terminal: token colours, and without colour marks of the same meaning.

Draws what `records` and `policies` hold. Whatever a model wrote is cleaned and never read as markup.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from sdpo_solve.report.explain.policies import Stage, moves
from sdpo_solve.report.explain.records import STRONG_NATS, Alternative, Signal, Token, sparseness
from sdpo_solve.report.runs import AttemptRow, RunRecord
from sdpo_solve.report.table import AlignedTable, labelled
from sdpo_solve.report.updates import figure, notice_lines
from sdpo_solve.sanitize import clean, middle_cut

_BARS = "▁▂▃▄▅▆▇"
STRIP_LEGEND = f"{_BARS[0]} none, {_BARS[-1]} nearly all, ✓ solved"
_MOST_DIFF_LINES = 40
N_STRONGEST = 8
# From slightly to strongly: the shade of a token by |log ratio| in nats.
LEVELS = (0.1, 0.5, STRONG_NATS, 3.0)
_UP = ("", "on color(194)", "on color(157)", "on color(114)", "on color(71)")
# Underlined where the teacher objects strongly, so that nothing depends on red and green.
_DOWN = ("", "on color(224)", "on color(217)", "underline on color(210)", "underline on color(203)")


def policies_renderable(run: RunRecord, stages: Sequence[Stage], diffs: Sequence[Text]) -> RenderableType:
    """Tests passed by each attempt, figures by version, and what changed in the typical program.

    `diffs`: from each stage to the next, one fewer than stages.
    """
    parts: list[RenderableType] = [Text(f"{clean(run.name)}", style="bold"), Text()]
    parts += [Text("tests passed, attempt by attempt", style="bold"), *_strips(stages), Text()]
    parts += [_figures(stages)]
    parts += [Text(notice, style="yellow") for notice in notices(run, stages)]
    for title, diff in moves(stages, diffs):
        parts += [Text(), Text(title, style="bold"), Padding(_cut(diff), (0, 2))]
    return Group(*parts)


def _strips(stages: Sequence[Stage]) -> Iterator[RenderableType]:
    yield labelled((f"policy {stage.version}", strip(stage.attempts)) for stage in stages)
    yield Text(STRIP_LEGEND, style="dim")


def strip(attempts: Sequence[AttemptRow]) -> str:
    """One bar an attempt, as high as the share of tests that it passed."""
    return "".join(
        "✓" if a.solved else _BARS[a.n_passed * (len(_BARS) - 1) // max(1, a.n_cases)] for a in attempts
    )


def metric_rows(stages: Sequence[Stage]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: what each version sampled, and what the update that made it measured."""
    header = ["policy", "solved", "distinct", "tokens", "loss", "entropy", "KL to base", "length"]
    names = ("entropy", "kl_to_base", "mean_length_tokens")
    rows = []
    for stage in stages:
        n = len(stage.attempts)
        solved = f"{sum(a.solved for a in stage.attempts)}/{n}"
        mean_tokens = f"{sum(a.n_tokens for a in stage.attempts) / n:.0f}"
        update = stage.update
        values = [figure(update.metrics.get(name) if update else None) for name in names]
        loss = figure(update.loss if update else None)
        rows.append([str(stage.version), solved, f"{stage.n_distinct}/{n}", mean_tokens, loss, *values])
    return header, rows


def _figures(stages: Sequence[Stage]) -> RenderableType:
    header, rows = metric_rows(stages)
    table = AlignedTable(header, first_is_name=False)
    for row in rows:
        table.add(row)
    note = (
        "loss, entropy, KL and length: measured by the update that made this policy, on what it learned from"
    )
    return Group(table, Text(note, style="dim"))


def notices(run: RunRecord, stages: Sequence[Stage]) -> list[str]:
    """What the learner did instead of an ordinary step, in the updates that the stages go through."""
    first, last = stages[0].version, stages[-1].version
    # The run's last update made a policy that may never have sampled: it has no stage of its own.
    last += last == max(attempt.version for attempt in run.attempts)
    return notice_lines(update for update in run.updates if first < update.version <= last)


def _cut(diff: Text) -> Text:
    lines = diff.split("\n")
    if len(lines) <= _MOST_DIFF_LINES:
        return diff
    shown = Text("\n").join(lines[:_MOST_DIFF_LINES])
    return shown + Text(f"\n... {len(lines) - _MOST_DIFF_LINES} more lines", style="dim")


# -- one attempt ---------------------------------------------------------------------------------------------


def signal_renderable(signal: Signal, *, colour: bool) -> RenderableType:
    """The attempt's tokens, the strongest positions with the teacher's alternatives, and the feedback."""
    title = f"attempt {signal.attempt} of policy {signal.version}, under the {signal.teacher} teacher"
    parts: list[RenderableType] = [Text(title, style="bold"), Text(sparseness(signal))]
    if signal.recorded:
        parts.append(
            Text("this policy's weights are pruned; its log-probs are the recorded ones", style="dim")
        )
    elif signal.drift_nats > 0.1:
        drift = (
            f"recomputed log-probs differ from the recorded ones by {signal.drift_nats:.2f} nats in the mean"
        )
        parts.append(Text(f"{drift}: another machine or precision", style="yellow"))
    parts += [Padding(tokens_text(signal.tokens, colour=colour), (1, 2)), _key(colour), Text()]
    strongest = signal.strongest(N_STRONGEST)
    if strongest:
        parts += [Text("where the teacher disagrees most", style="bold"), _strongest(strongest), Text()]
    parts += [
        Text("what the teacher's prompt held besides the question", style="bold"),
        Padding(Text(clean(signal.feedback)), (0, 2)),
    ]
    return Group(*parts)


def level(log_ratio: float) -> int:
    """0 for next to nothing, up to 4."""
    return sum(abs(log_ratio) >= limit for limit in LEVELS)


def tokens_text(tokens: Sequence[Token], *, colour: bool) -> Text:
    """The answer with each token shaded; without colour, strong tokens stand in {+ +} or {- -}."""
    shown = Text()
    for token in tokens:
        text = clean(token.text)
        if colour:
            shades = _UP if token.log_ratio > 0 else _DOWN
            shade = shades[level(token.log_ratio)]
            shown.append(text, style=f"black {shade}" if shade else "")
        elif abs(token.log_ratio) > STRONG_NATS and text:
            sign = "+" if token.log_ratio > 0 else "-"
            shown.append(f"{{{sign}{text}{sign}}}")
        else:
            shown.append(text)
    return shown


def _key(colour: bool) -> Text:
    if not colour:
        return Text(
            "{-token-} the teacher finds it e times less likely, or worse; {+token+} more", style="dim"
        )
    key = Text.assemble(("log(teacher/student) in nats: ", "dim"))
    limits = ["-3", "-1", "-0.5", "-0.1"]
    for n, limit in enumerate(limits):
        key.append(f" {limit} ", style=f"black {_DOWN[4 - n]}")
    key.append(" 0 ")
    for n, limit in enumerate(reversed(limits)):
        key.append(f" +{limit[1:]} ", style=f"black {_UP[n + 1]}")
    return key


def _strongest(tokens: Sequence[Token]) -> AlignedTable:
    would = "the teacher would say (teacher / student)"
    table = AlignedTable(("at", "token", "nats", would), names=("token", would), first_is_name=False)
    for row in strongest_rows(tokens):
        table.add(row)
    return table


def strongest_rows(tokens: Sequence[Token]) -> list[list[str]]:
    """Position, token, log ratio and the teacher's alternatives, a row a token."""
    return [
        [str(token.position), _quoted(token.text), f"{token.log_ratio:+.2f}",
         "  ".join(map(_alternative_text, token.alternatives))]
        for token in tokens
    ]  # fmt: skip


def _quoted(text: str) -> str:
    """A token's text on one line, spaces and line ends visible."""
    return middle_cut(clean(text).replace("\n", "⏎").replace("\t", "⇥").replace(" ", "·"), 24) or "(no text)"


def _alternative_text(other: Alternative) -> str:
    student = "–" if other.student is None else _percent(other.student)
    return f"{_quoted(other.text)} {_percent(other.teacher)}/{student}"


def _percent(p: float) -> str:
    return f"{100 * p:.0f}%" if p >= 0.095 else f"{100 * p:.1f}%"
