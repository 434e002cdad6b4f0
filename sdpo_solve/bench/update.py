"""What an update costs: time and peak memory of the packed form beside the plain one, in one run.

Each form runs in a process of its own, so that one's memory does not hide the other's. The floor is the
number of operations that must be done (every token of a shared prefix once, attention and head included) at
the rate of matrix products measured on this machine in the same run. Prints nothing.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Group
from rich.text import Text

from sdpo_solve.errors import LearnerError
from sdpo_solve.model.cpu import is_out_of_memory
from sdpo_solve.report.table import AlignedTable

if TYPE_CHECKING:
    from torch import Tensor

    from sdpo_solve.learner.examples import TokenizedExample
    from sdpo_solve.model.adapted import AdaptedModel

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
class Figures:
    """What was measured. `plain` is None where it was left out or did not fit into memory.

    `gradient_error`: relative distance of both forms' gradients in float32; `floor_s`: the operations that
    must be done at the measured matrix rate.
    """

    size: Size
    packed: Cost
    plain: Cost | None
    gflop: float
    gradient_error: float | None

    @property
    def floor_s(self) -> float:
        return self.gflop / self.packed.gflop_per_s

    def ratios(self) -> dict[str, float]:
        """The figures that compare machines and versions."""
        ratios = {"packed time / floor": self.packed.wall_s / self.floor_s}
        if self.plain is not None:
            ratios["packed time / plain"] = self.packed.wall_s / self.plain.wall_s
            ratios["packed memory / plain"] = self.packed.peak_mb / self.plain.peak_mb
        if self.gradient_error is not None:
            ratios["gradient error, float32"] = self.gradient_error
        return ratios


def run(
    model_dir: Path,
    report: Callable[[str], None] = lambda _: None,
    *,
    size: Size = Size(),  # frozen
    with_plain: bool = True,
    n_rounds: int = 2,
) -> Figures:
    """Measure one update of random tokens against the frozen teacher, and with the plain form compare both
    forms' gradients, of two attempts.

    Raises LearnerError where the packed form's process dies (out of memory).
    """
    report("packed form")
    packed, gflop = _in_process(_measure, model_dir, size, "packed", n_rounds)
    plain = error = None
    if with_plain:
        few = Size(2, size.question_tokens, size.feedback_tokens, size.answer_tokens)
        try:
            report("plain form")
            plain, _ = _in_process(_measure, model_dir, size, "plain", n_rounds)
            report("gradients of both forms in float32")
            error = _in_process(_gradient_error, model_dir, few)
        except LearnerError as exc:
            report(str(exc))
    return Figures(size, packed, plain, gflop, error)


def as_record(figures: Figures) -> dict[str, Any]:
    """The object that `--json` prints."""
    return {**asdict(figures), "floor_s": figures.floor_s, "ratios": figures.ratios()}


def page(figures: Figures) -> Group:
    """The figures for a terminal: each form's time and memory, then the ratios."""
    size = figures.size
    head = (
        f"one update: {size.attempts} attempts, question {size.question_tokens} tokens, feedback "
        f"{size.feedback_tokens}, answer {size.answer_tokens}"
    )
    forms = AlignedTable(["form", "seconds", "peak MiB", "GFLOP/s of matrix products"])
    for cost in (figures.packed, figures.plain):
        if cost is not None:
            forms.add([cost.form, f"{cost.wall_s:.2f}", f"{cost.peak_mb:.0f}", f"{cost.gflop_per_s:.0f}"])
    forms.add(["floor", f"{figures.floor_s:.2f}", "", ""])
    ratios = AlignedTable(["ratio", "measured"])
    for name, value in figures.ratios().items():
        ratios.add([name, f"{value:.3g}"])
    note = f"floor: {figures.gflop:.0f} GFLOP that must be done, at the rate measured beside the packed form"
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
    question, behind = size.question_tokens, size.feedback_tokens + size.answer_tokens
    student = (question + answers) * per_token + attention(0, question)
    student += n * attention(question, size.answer_tokens)
    teacher = (question + n * behind) * per_token + attention(0, question) + n * attention(question, behind)
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
    with ProcessPoolExecutor(1, mp_context=context, initializer=_go_first) as pool:
        try:
            return pool.submit(function, *args).result()
        except BrokenProcessPool:
            raise LearnerError("a form's process died: out of memory?") from None
        except RuntimeError as exc:
            if not is_out_of_memory(exc):
                raise
            raise LearnerError("a form does not fit into memory") from None


def _go_first() -> None:
    """Where memory runs out, this process goes and no other."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _measure(model_dir: Path, size: Size, form: Form, n_rounds: int) -> tuple[Cost, float]:
    """The best round, as other work on the machine only adds to a time; memory of the worst."""
    from sdpo_solve.model.adapted import AdaptedModel

    host = AdaptedModel.load(model_dir)
    examples = _prepare(host, size)
    walls, peaks, rates = [], [], [_matrix_rate(host)]
    if host.device.type == "cuda":  # the first update loads kernels
        _gradients(host, examples, form)
    for _ in range(n_rounds):
        before_mb = _reset_peak(host)
        began = time.perf_counter()
        _gradients(host, examples, form)
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
    examples = _prepare(host, size)
    packed, plain = (_gradients(host, examples, form) for form in ("packed", "plain"))
    gap = sum(float((packed[name] - plain[name]).double().square().sum()) for name in plain)
    return float((gap / sum(float(t.double().square().sum()) for t in plain.values())) ** 0.5)


def _prepare(host: AdaptedModel, size: Size) -> list[TokenizedExample]:
    """A group of random tokens, and an adapter that has learned something already."""
    import torch

    from sdpo_solve.learner.examples import TokenizedExample
    from sdpo_solve.learner.packing import PromptCompletion
    from sdpo_solve.model.adapted import TARGETS, AdapterShape

    generator = torch.Generator().manual_seed(0)
    vocabulary = min(len(host.tokenizer), host.model.config.get_text_config().vocab_size)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, vocabulary, (n,), generator=generator).tolist())

    shape = AdapterShape(16, 32.0, TARGETS["all"])
    parameters = host.shape_adapter("policy", shape)
    weights = {name: 0.01 * torch.randn(p.shape, generator=generator) for name, p in parameters.items()}
    host.put("policy", "bench", shape, weights)
    question, examples = ids(size.question_tokens), []
    for _ in range(size.attempts):
        answer, feedback = ids(size.answer_tokens), ids(size.feedback_tokens)
        student, teacher = PromptCompletion(question, answer), PromptCompletion(question + feedback, answer)
        examples.append(TokenizedExample(student, teacher, (-1.0,) * size.answer_tokens))
    return examples


def _gradients(host: AdaptedModel, examples: list[TokenizedExample], form: Form) -> dict[str, Tensor]:
    """One update's gradients, the teacher's pass included, with the learner's default sizes."""
    from sdpo_solve.learner.gradient import StudentPasses
    from sdpo_solve.learner.learner import loss_settings
    from sdpo_solve.learner.options import Options
    from sdpo_solve.learner.packing import PackedPasses
    from sdpo_solve.learner.passes_choice import limits_of
    from sdpo_solve.learner.plain import plain_gradient
    from sdpo_solve.learner.teacher import teacher_mixture

    options = Options()
    settings = loss_settings(options)
    if form == "plain":
        return plain_gradient(host, "bench", examples, settings, 1.0)
    passes = PackedPasses(host.model, limits_of(options, host.model))
    teacher = teacher_mixture(host, options, examples, "bench", passes)
    with host.slot_active("policy", "bench"):
        student = StudentPasses(passes, host.parameters("policy"), settings, 1.0)
        return student.gradient(examples, teacher).gradients


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
    """Until the accelerator has done its work; a CPU has by then."""
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
        import resource  # of POSIX

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
