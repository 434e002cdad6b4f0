"""The in-process sampler: its log-probs are true, rows do not meet, and every limit is kept."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from sdpo_solve.engines._cuda_graph import SlotBatch
from sdpo_solve.engines._decoding import Batch, RowBatch, drawn_ids
from sdpo_solve.engines._scoring import forced_logprobs
from sdpo_solve.engines.hf import HfEngine, Options
from sdpo_solve.errors import EngineError
from sdpo_solve.types import Finish, Message, Policy, Prompt, Sample, SamplingSpec
from tests.helpers.hosts import BASE, PlainHost
from tests.helpers.tiny_model import save_tiny_model


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> PlainHost:
    return PlainHost(save_tiny_model(tmp_path_factory.mktemp("tiny")))


def ask(text: str) -> Prompt:
    return Prompt((Message("user", text),))


def sample(
    host: PlainHost, prompts: Sequence[Prompt], seeds: Sequence[int], spec: SamplingSpec, **options: object
) -> list[Sample]:
    return HfEngine(host, Options.model_validate(options)).sample(prompts, seeds, BASE, spec)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logprobs_equal_a_teacher_forced_pass(host: PlainHost, temperature: float) -> None:
    """Prompts of different lengths, rows that end at different steps, refills: the hardest layout."""
    prompts = [ask("a"), ask("b" * 40), ask("c" * 11)] * 3
    samples = sample(host, prompts, range(9), SamplingSpec(24, temperature), batch_rows=4)
    for got in samples:
        want = forced_logprobs(host.model, got.prompt_ids, got.token_ids_T, temperature)
        assert got.logprobs_T == pytest.approx(want, abs=1e-4)


def test_a_row_draws_the_same_alone_and_in_company(host: PlainHost) -> None:
    prompts = [ask("a"), ask("b" * 40), ask("a"), ask("c" * 11), ask("a")]
    spec = SamplingSpec(20)
    together = sample(host, prompts, range(5), spec)
    in_twos = sample(host, prompts, range(5), spec, batch_rows=2)
    alone = [sample(host, [prompt], [seed], spec)[0] for seed, prompt in enumerate(prompts)]
    assert [s.token_ids_T for s in together] == [s.token_ids_T for s in alone]
    assert [s.token_ids_T for s in in_twos] == [s.token_ids_T for s in alone]


@pytest.mark.parametrize("kind", [Batch, SlotBatch])
def test_what_prompts_begin_with_alike_is_computed_once(host: PlainHost, kind: type[RowBatch]) -> None:
    """Three prompts of a, b and c tokens with n alike at the beginning: a + (b - n) + (c - n) are computed."""
    prompts = [ask("q" * 200 + end) for end in ("", "x" * 30, "y" * 9)]
    n_computed: list[int] = []

    def count(_: object, __: object, inputs: dict[str, torch.Tensor]) -> None:
        if inputs["input_ids"].shape[1] > 1:
            n_computed.append(inputs["input_ids"].shape[1])

    hook = host.model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        samples = HfEngine(host, Options(), batch_type=kind).sample(prompts, range(3), BASE, SamplingSpec(6))
    finally:
        hook.remove()
    whole, *others = [sample.prompt_ids[:-1] for sample in samples]
    n_alike = [next(n for n in range(999) if whole[n] != other[n]) for other in others]
    assert min(n_alike) > 100
    assert n_computed == [len(whole), *(len(x) - n for x, n in zip(others, n_alike, strict=True))]
    for got in samples:
        want = forced_logprobs(host.model, got.prompt_ids, got.token_ids_T, 1.0)
        assert got.logprobs_T == pytest.approx(want, abs=1e-4)


def test_slots_give_the_tokens_of_right_aligned_rows(
    host: PlainHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs on CUDA, here without its graph: refills, ends at all times, and columns that run out."""
    monkeypatch.setattr("sdpo_solve.engines._cuda_graph._BLOCK_COLUMNS", 8)
    prompts = [ask("a"), ask("b" * 40), ask("a"), ask("c" * 11), ask("a"), ask("d")] * 3
    spec = SamplingSpec(40, 1.5)
    for rows in (1, 5, 18):
        right, slots = (
            HfEngine(host, Options(batch_rows=rows), batch_type=kind).sample(prompts, range(18), BASE, spec)
            for kind in (Batch, SlotBatch)
        )
        assert [s.token_ids_T for s in slots] == [s.token_ids_T for s in right]
        for got, want in zip(slots, right, strict=True):
            assert got.logprobs_T == pytest.approx(want.logprobs_T, abs=1e-4)
            assert got.finish is want.finish


def test_slots_tell_a_broken_model(tmp_path: Path) -> None:
    host = PlainHost(save_tiny_model(tmp_path))
    host.model.lm_head.weight.data[5] = math.nan
    with pytest.raises(EngineError, match="not finite"):
        HfEngine(host, Options(), batch_type=SlotBatch).sample([ask("a")], [0], BASE, SamplingSpec(5))


def test_where_memory_runs_out_fewer_rows_go_at_a_time_and_draw_the_same(host: PlainHost) -> None:
    """Three rows have room, a fourth only for its first five tokens: 8, then 4, then 2 at a time, and so on."""
    widths: list[int] = []

    class Narrow(Batch):
        def step(self) -> None:
            widths.append(len(self.rows))
            if len(self.rows) > 3 and any(len(row.token_ids) >= 5 for row in self.rows):
                raise RuntimeError(
                    "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
                )
            super().step()

    prompts = [ask("a"), ask("b" * 40), ask("c" * 11)] * 3
    spec = SamplingSpec(24, 1.5)
    seen: list[tuple[int, int]] = []
    engine = HfEngine(host, Options(batch_rows=8), lambda *told: seen.append(told), batch_type=Narrow)
    want = [s.token_ids_T for s in sample(host, prompts, range(9), spec)]
    assert [s.token_ids_T for s in engine.sample(prompts, range(9), BASE, spec)] == want
    assert list(dict.fromkeys(widths))[:3] == [8, 4, 2]
    widths.clear()
    assert [s.token_ids_T for s in engine.sample(prompts, range(9), BASE, spec)] == want
    assert max(widths) == 3
    assert seen[-1] == (sum(map(len, want)), 9)


def test_too_little_memory_for_one_row_is_a_clear_error(host: PlainHost) -> None:
    class None_(Batch):
        def step(self) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

    engine = HfEngine(host, Options(batch_rows=4), batch_type=None_)
    for _ in range(2):
        with pytest.raises(EngineError, match="out of memory while sampling a single answer"):
            engine.sample([ask("a")] * 3, range(3), BASE, SamplingSpec(5))


def test_another_fault_of_the_model_is_not_taken_for_memory(host: PlainHost) -> None:
    class Broken(Batch):
        def step(self) -> None:
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        HfEngine(host, Options(), batch_type=Broken).sample([ask("a")], [0], BASE, SamplingSpec(5))


def test_seeds_make_samples_differ_and_repeat(host: PlainHost) -> None:
    first, second, again = sample(host, [ask("a")] * 3, [1, 2, 1], SamplingSpec(20))
    assert first.token_ids_T == again.token_ids_T != second.token_ids_T


def test_ends_and_limits(host: PlainHost) -> None:
    """An end-of-turn token is kept in the ids and left out of the text; a cut answer has all its tokens."""
    end = {host.tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")}
    samples = sample(host, [ask("a")] * 40, range(40), SamplingSpec(30, 2.0))
    finishes = {s.finish for s in samples}
    assert finishes == {Finish.STOP, Finish.LENGTH}, "the seeds should show both kinds of end"
    for got in samples:
        assert len(got.token_ids_T) == len(got.logprobs_T) <= 30
        assert not end & set(got.token_ids_T[:-1])
        if got.finish is Finish.STOP:
            assert got.token_ids_T[-1] in end
        else:
            assert len(got.token_ids_T) == 30
        assert got.text == host.tokenizer.decode(got.token_ids_T, skip_special_tokens=True)


def test_a_stop_text_ends_the_answer_and_stays_in_it(host: PlainHost) -> None:
    free = sample(host, [ask("a")], [7], SamplingSpec(30))[0]
    stop = free.text[5:7]
    got = sample(host, [ask("a")], [7], SamplingSpec(30), stop=stop)[0]
    assert got.text == free.text[: free.text.index(stop) + len(stop)]
    assert got.finish is Finish.STOP
    assert got.logprobs_T == pytest.approx(free.logprobs_T[: len(got.token_ids_T)])


def test_a_prompt_that_fills_the_context_is_an_error(host: PlainHost) -> None:
    with pytest.raises(EngineError, match="leaves no room for an answer"):
        sample(host, [ask("a" * 3000)], [0], SamplingSpec(5))


def test_the_context_ends_an_answer(host: PlainHost) -> None:
    """2048 positions: a prompt that leaves 3 gives answers of at most 3 tokens, reported as cut."""
    empty = len(sample(host, [ask("a")], [0], SamplingSpec(1))[0].prompt_ids) - 1
    samples = sample(host, [ask("a" * (2045 - empty))] * 4, range(4), SamplingSpec(50))
    for got in samples:
        assert (len(got.token_ids_T) == 3 and got.finish is Finish.LENGTH) or got.finish is Finish.STOP


def test_an_unknown_policy_is_an_error(host: PlainHost, tmp_path: Path) -> None:
    with pytest.raises(EngineError):
        HfEngine(host, Options()).sample([ask("a")], [0], Policy("x", 1, tmp_path), SamplingSpec(5))


def test_a_broken_model_is_an_error_and_not_token_zero(tmp_path: Path) -> None:
    host = PlainHost(save_tiny_model(tmp_path))
    host.model.lm_head.weight.data[5] = math.nan
    with pytest.raises(EngineError, match="not finite"):
        HfEngine(host, Options()).sample([ask("a")], [0], BASE, SamplingSpec(5))


def test_progress_counts_every_token_and_every_end(host: PlainHost) -> None:
    seen: list[tuple[int, int]] = []
    engine = HfEngine(host, Options(batch_rows=2), lambda tokens, done: seen.append((tokens, done)))
    samples = engine.sample([ask("a")] * 5, range(5), BASE, SamplingSpec(6))
    assert seen[-1] == (sum(len(s.token_ids_T) for s in samples), 5)
    assert seen == sorted(seen)


def test_draw_inverts_the_cumulative_distribution() -> None:
    """Probabilities 0, .25, 0, .75: below .25 token 1, from .25 on token 3; tokens without mass are never met."""
    logprobs_V = torch.tensor([0.0, 0.25, 0.0, 0.75]).log()
    uniforms = [0.0, 0.2499, 0.25, 0.9, 1 - 2**-53]
    got = drawn_ids(logprobs_V.expand(5, 4), torch.tensor(uniforms, dtype=torch.float64))
    assert got.tolist() == [1, 1, 3, 3, 3]


def test_draw_matches_the_distribution() -> None:
    """20 000 draws over 1500 tokens (three blocks): every block's frequency within five standard errors."""
    generator = torch.Generator().manual_seed(0)
    logprobs_V = torch.log_softmax(torch.randn(1500, generator=generator) * 2, -1)
    uniforms = torch.rand(20_000, generator=generator, dtype=torch.float64)
    counts = torch.zeros(1500)
    for part in uniforms.split(2000):
        counts += torch.bincount(drawn_ids(logprobs_V.expand(len(part), -1), part), minlength=1500)
    probs = logprobs_V.exp()
    error = (probs * (1 - probs) / 20_000).sqrt()
    assert bool(((counts / 20_000 - probs).abs() <= 5 * error + 1e-4).all())


@pytest.mark.parametrize(("dtype", "off"), [(torch.bfloat16, 0.1), (torch.float32, 1e-4)], ids=str)
def test_packed_weights_change_nothing_and_follow_the_originals(
    tmp_path: Path, dtype: torch.dtype, off: float
) -> None:
    """On a CPU: the same log-probs as without packing, also after the weights were changed."""
    host = PlainHost(save_tiny_model(tmp_path), dtype)
    engine = HfEngine(host, Options())
    for _ in range(2):
        for got in engine.sample([ask("a"), ask("bcd")], [0, 1], BASE, SamplingSpec(12)):
            want = forced_logprobs(host.model, got.prompt_ids, got.token_ids_T, 1.0)
            assert got.logprobs_T == pytest.approx(want, abs=off)
        assert all("forward" not in vars(layer) for layer in host.model.modules())
        host.model.lm_head.weight.mul_(0.3)
