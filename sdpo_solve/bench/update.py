"""What an update costs: time and peak memory of the packed form beside the plain one, in one run.

Each form runs in a process of its own, so that one's memory does not hide the other's. The floor is the
number of operations that must be done (every token of a shared prefix once, attention and head included) at
the rate of matrix products measured on this machine in the same run. Prints nothing.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Group
from rich.table import Table
from rich.text import Text

from sdpo_solve.errors import LearnerError
from sdpo_solve.model.cpu import is_out_of_memory

if TYPE_CHECKING:
    from torch import Tensor

    from sdpo_solve.learner.gradient import Lesson
    from sdpo_solve.model.adapted import AdaptedModel

MAX_TIME_SHARE = 0.55
MAX_MEMORY_SHARE = 0.5
MAX_OVER_FLOOR = 1.25
MAX_GRADIENT_ERROR = 1e-4

# The matrix rate is the best of some short tries: a try that another program disturbs does not count.
_RATE_TRIES = 5
_RATE_S = 0.2

Form = Literal["packed", "plain"]


@dataclass(frozen=True, slots=True)
class Size:
    """One update: attempts of a group, and tokens of the question, of each feedback and of each answer."""

    attempts: int = 16
    question_tokens: int = 200
    feedback_tokens: int = 150
    answer_tokens: int = 100


@dataclass(frozen=True, slots=True)
class Cost:
    """One form: seconds of an update, peak MiB above what was resident before it, matrix rate around it."""

    form: Form
    wall_s: float
    peak_mb: float
    gflop_per_s: float


@dataclass(frozen=True, slots=True)
class UpdateBench:
    """What was measured. `plain` is None where it was not asked for or did not fit into memory.

    `floor_s`: the operations that must be done at the measured matrix rate.
    """

    size: Size
    packed: Cost
    plain: Cost | None
    gflop: float
    gradient_error: float | None

    @property
    def floor_s(self) -> float:
        return self.gflop / self.packed.gflop_per_s

    @property
    def ok(self) -> bool:
        return all(row.ok for row in self.rows())

    def rows(self) -> list[Row]:
        """The ratios with their targets."""
        found = [Row("packed time / floor", self.packed.wall_s / self.floor_s, MAX_OVER_FLOOR)]
        if self.plain is not None:
            found.append(Row("packed time / plain", self.packed.wall_s / self.plain.wall_s, MAX_TIME_SHARE))
            found.append(
                Row("packed memory / plain", self.packed.peak_mb / self.plain.peak_mb, MAX_MEMORY_SHARE)
            )
        if self.gradient_error is not None:
            found.append(Row("gradient error, float32", self.gradient_error, MAX_GRADIENT_ERROR))
        return found

    def record(self) -> dict[str, Any]:
        """All figures as JSON data."""
        rows = [{**asdict(row), "ok": row.ok} for row in self.rows()]
        return {**asdict(self), "floor_s": self.floor_s, "ratios": rows, "ok": self.ok}


@dataclass(frozen=True, slots=True)
class Row:
    """A measured value and the most it may be."""

    name: str
    value: float
    most: float

    @property
    def ok(self) -> bool:
        return self.value <= self.most


def run(
    model_dir: Path,
    say: Callable[[str], None] = lambda _: None,
    *,
    size: Size = Size(),  # frozen
    with_plain: bool = True,
    n_rounds: int = 2,
) -> UpdateBench:
    """Measure one update of random tokens against the frozen teacher, and with the plain form compare both
    forms' gradients, of two attempts.

    Raises LearnerError where the packed form's process dies (out of memory).
    """
    say("packed form")
    packed, gflop = _in_process(_measure, model_dir, size, "packed", n_rounds)
    say(f"packed form: {_said(packed)}")
    plain = error = None
    if with_plain:
        few = Size(2, size.question_tokens, size.feedback_tokens, size.answer_tokens)
        try:
            say("plain form")
            plain, _ = _in_process(_measure, model_dir, size, "plain", n_rounds)
            say(f"plain form: {_said(plain)}")
        except LearnerError as exc:
            say(f"plain form: {exc}")
        try:
            say("gradients of both forms in float32")
            error = _in_process(_gradient_error, model_dir, few)
        except LearnerError as exc:
            say(f"gradients of both forms: {exc}")
    return UpdateBench(size, packed, plain, gflop, error)


def _said(cost: Cost) -> str:
    return f"{cost.wall_s:.2f} s, {cost.peak_mb:.0f} MiB, {cost.gflop_per_s:.0f} GFLOP/s of matrix products"


def page(bench: UpdateBench) -> Group:
    """The figures for a terminal: each form's time and memory, then the ratios with their targets."""
    size, costs = bench.size, [cost for cost in (bench.packed, bench.plain) if cost is not None]
    head = (
        f"one update: {size.attempts} attempts, question {size.question_tokens} tokens, feedback "
        f"{size.feedback_tokens}, answer {size.answer_tokens}"
    )
    forms = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    forms.add_column("form")
    for name in ("seconds", "peak MiB", "GFLOP/s of matrix products"):
        forms.add_column(name, justify="right")
    for cost in costs:
        forms.add_row(cost.form, f"{cost.wall_s:.2f}", f"{cost.peak_mb:.0f}", f"{cost.gflop_per_s:.0f}")
    forms.add_row("floor", f"{bench.floor_s:.2f}", "", "")
    ratios = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("ratio", "measured", "at most", ""):
        ratios.add_column(name, justify="left" if name in ("ratio", "") else "right")
    for row in bench.rows():
        said = Text("ok", "green") if row.ok else Text("missed", "red")
        ratios.add_row(row.name, f"{row.value:.3g}", f"{row.most:g}", said)
    note = f"floor: {bench.gflop:.0f} GFLOP that must be done, at the rate measured beside the packed form"
    return Group(Text(head), Text(), forms, Text(), ratios, Text(), Text(note, style="dim"))


def operations(config: Any, size: Size) -> float:
    """GFLOP that an update against the frozen teacher must do: two for each multiply-add.

    The student goes forward and backward (frozen weights have no gradient of their own), the teacher forward.
    """
    width, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    head_dim = getattr(config, "head_dim", None) or width // config.num_attention_heads
    q, kv = config.num_attention_heads * head_dim, config.num_key_value_heads * head_dim
    per_token = 2 * layers * (width * (2 * q + 2 * kv) + 3 * width * inner)
    head = 2 * width * config.vocab_size

    def attention(before: int, own: int) -> float:
        """Scores and weighted sums of `own` tokens that see `before` others and their own past."""
        return float(4 * layers * q * own * (before + (own + 1) / 2))

    n, answers = size.attempts, size.attempts * size.answer_tokens
    question, told = size.question_tokens, size.feedback_tokens + size.answer_tokens
    student = (question + answers) * per_token + attention(0, question)
    student += n * attention(question, size.answer_tokens)
    teacher = (question + n * told) * per_token + attention(0, question) + n * attention(question, told)
    # Attention's backward has five products for the forward's two.
    backward = (question + answers) * per_token
    backward += 2.5 * (attention(0, question) + n * attention(question, size.answer_tokens))
    return float(student + backward + teacher + 3 * answers * head) / 1e9


# -- in a process of its own ---------------------------------------------------------------------------------


def _in_process(function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)` in a fresh process.

    Raises LearnerError where it dies or runs out of memory.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, function, args), daemon=True)
    process.start()
    sender.close()
    try:
        found = receiver.recv()
        if isinstance(found, LearnerError):
            raise found
        return found
    except EOFError:
        process.join()
        raise LearnerError(f"a form's process ended with code {process.exitcode}: out of memory?") from None
    finally:
        process.join()


def _send(sender: Any, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    with contextlib.suppress(OSError):  # where memory runs out, this process goes and no other
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        sender.send(function(*args))
    except LearnerError as exc:
        sender.send(exc)
    except RuntimeError as exc:
        if not is_out_of_memory(exc):
            raise
        sender.send(LearnerError("out of memory"))


def _measure(model_dir: Path, size: Size, form: Form, n_rounds: int) -> tuple[Cost, float]:
    """The best round, as other work on the machine only adds to a time; memory of the worst."""
    from sdpo_solve.model.adapted import AdaptedModel

    host = AdaptedModel.load(model_dir)
    lessons = _prepare(host, size)
    walls, peaks, rates = [], [], [_matrix_rate(host)]
    if host.device.type == "cuda":  # the first update loads kernels
        _gradients(host, lessons, form)
    for _ in range(n_rounds):
        before_mb = _reset_peak(host)
        began = time.perf_counter()
        _gradients(host, lessons, form)
        _wait(host)
        walls.append(time.perf_counter() - began)
        peaks.append(_peak_mb(host) - before_mb)
        rates.append(_matrix_rate(host))
    cost = Cost(form, min(walls), max(peaks), max(rates))
    return cost, operations(host.model.config.get_text_config(), size)


def _gradient_error(model_dir: Path, size: Size) -> float:
    """Relative distance of the two forms' gradients, float32."""
    import torch

    from sdpo_solve.model.adapted import AdaptedModel

    host = AdaptedModel.load(model_dir, dtype=torch.float32)
    lessons = _prepare(host, size)
    packed, plain = (_gradients(host, lessons, form) for form in ("packed", "plain"))
    gap = sum(float((packed[name] - plain[name]).double().square().sum()) for name in plain)
    return float((gap / sum(float(t.double().square().sum()) for t in plain.values())) ** 0.5)


def _prepare(host: AdaptedModel, size: Size) -> list[Lesson]:
    """A group of random tokens, and an adapter that has learned something already."""
    import torch

    from sdpo_solve.learner.gradient import Lesson
    from sdpo_solve.learner.packing import Row as TokenRow
    from sdpo_solve.model.adapted import TARGETS, AdapterShape

    generator = torch.Generator().manual_seed(0)
    n_words = min(len(host.tokenizer), host.model.config.get_text_config().vocab_size)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, n_words, (n,), generator=generator).tolist())

    shape = AdapterShape(16, 32.0, TARGETS["all"])
    parameters = host.shape_adapter("policy", shape)
    weights = {name: 0.01 * torch.randn(p.shape, generator=generator) for name, p in parameters.items()}
    host.put("policy", "bench", shape, weights)
    question, lessons = ids(size.question_tokens), []
    for _ in range(size.attempts):
        answer, told = ids(size.answer_tokens), question + ids(size.feedback_tokens)
        row = TokenRow(told, answer)
        lessons.append(Lesson(TokenRow(question, answer), row, (-1.0,) * size.answer_tokens))
    return lessons


def _gradients(host: AdaptedModel, lessons: list[Lesson], form: Form) -> dict[str, Tensor]:
    """One update's gradients, the teacher's pass included, with the learner's default sizes."""
    from sdpo_solve.learner.gradient import Passes, Sizes, Targets
    from sdpo_solve.learner.head import Mixture
    from sdpo_solve.learner.learner import loss_settings
    from sdpo_solve.learner.options import Options
    from sdpo_solve.learner.packing import hidden_states
    from sdpo_solve.learner.plain import plain_gradient

    options = Options()
    settings = loss_settings(options)
    if form == "plain":
        return plain_gradient(host, "bench", lessons, settings, 1.0)
    sizes = Sizes(options.microbatch_tokens, options.checkpoint_tokens, options.chunk_positions)
    with host.base_active() as model:
        rows = [lesson.teacher for lesson in lessons if lesson.teacher is not None]
        targets = Targets(Mixture.of(hidden_states(model, rows, sizes.microbatch_tokens)))
    with host.slot_active("policy", "bench") as model:
        passes = Passes(model, host.parameters("policy"), settings, sizes, 1.0)
        return passes.gradient(lessons, targets).gradients


def _matrix_rate(host: AdaptedModel) -> float:
    """GFLOP/s of a large product of the model's own shape and precision: the best of some tries."""
    import torch

    config = host.model.config.get_text_config()
    # An accelerator is fed many large products before anyone waits for it.
    rows, at_once = (8192, 20) if host.device.type == "cuda" else (1024, 1)
    width, inner = config.hidden_size, config.intermediate_size
    x = torch.randn(rows, width, device=host.device).to(host.dtype)
    weight = torch.randn(inner, width, device=host.device).to(host.dtype)
    best = 0.0
    for _ in range(_RATE_TRIES):
        _wait(host)
        n, began = 0, time.perf_counter()
        while (took_s := time.perf_counter() - began) < _RATE_S:
            for _ in range(at_once):
                torch.nn.functional.linear(x, weight)
            _wait(host)
            n += at_once
        best = max(best, 2 * n * rows * width * inner / took_s / 1e9)
    return best


def _wait(host: AdaptedModel) -> None:
    """Until the accelerator has done what it was told; a CPU has by then."""
    import torch

    if host.device.type == "cuda":
        torch.cuda.synchronize(host.device)


def _reset_peak(host: AdaptedModel) -> float:
    """Forget the peak so far; returns the MiB in use now.

    Where the kernel cannot forget, the peak so far stands for both.
    """
    import torch

    if host.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM
    return _peak_mb(host)


def _peak_mb(host: AdaptedModel) -> float:
    """The most memory since `_reset_peak`: of the accelerator where the weights are on one, else resident."""
    import torch

    if host.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
