"""The learner on a tiny model: versions, exact resumes, refusals, and weights that are the ones asked for."""

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sdpo_solve.errors import EngineError, LearnerError
from sdpo_solve.learner import passes_choice
from sdpo_solve.learner.optimizer import AdapterOptimizer
from sdpo_solve.learner.packing import PackedPasses
from sdpo_solve.model.adapted import AdaptedModel
from sdpo_solve.model.lean import named_weights
from sdpo_solve.types import Example, Policy
from tests.helpers.tiny_model import save_tiny_model
from tests.helpers.updates import SPEC, group, learner, prompt, run_updates, same, weights


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def host(tiny_dir: Path) -> AdaptedModel:
    return AdaptedModel.load(tiny_dir, "cpu", torch.float32)


def logits(host: AdaptedModel, policy: Policy) -> torch.Tensor:
    with host.policy_active(policy) as model, torch.no_grad():
        found: torch.Tensor = model(torch.tensor([[70, 71, 72, 73]])).logits
        return found


# -- policies ----------------------------------------------------------------------------------------------


def test_version_zero_is_the_base_bit_for_bit(tiny_dir: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_dir)
    with torch.no_grad():
        plain = base(torch.tensor([[70, 71, 72, 73]])).logits
    host = AdaptedModel.load(tiny_dir, "cpu", torch.float32)
    expected = logits(host, Policy("run", 0))
    # Weights in another layout: processors differ in the order in which a product is summed up.
    torch.testing.assert_close(expected, plain, rtol=1e-6, atol=1e-6)
    _, chain = run_updates(host, tmp_path / "policies", 1)
    assert not torch.equal(logits(host, chain[1]), expected), "a step changes the policy"
    assert torch.equal(logits(host, chain[0]), expected), "and leaves the base alone"
    for (name, before), (_, after) in zip(
        sorted(base.named_parameters()),
        sorted(named_weights(AdaptedModel.load(tiny_dir, "cpu", torch.float32).model)),
        strict=True,
    ):
        assert torch.equal(before, after), name


def test_every_version_can_be_asked_for_in_any_order(host: AdaptedModel, tmp_path: Path) -> None:
    found, chain = run_updates(host, tmp_path / "policies", 2)
    fresh = {policy.key: logits(host, policy) for policy in chain}
    for policy in (chain[0], chain[2], chain[1], chain[2], chain[0]):
        assert torch.equal(logits(host, policy), fresh[policy.key])
    found.close()


def test_a_policy_that_is_not_there_is_an_engine_error(host: AdaptedModel, tmp_path: Path) -> None:
    missing = Policy("run", 9, tmp_path / "policies" / "0009")
    with pytest.raises(EngineError, match="no weights for policy run@9"), host.policy_active(missing):
        pass


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft's own
def test_peft_loads_the_directory_to_equal_logits(host: AdaptedModel, tiny_dir: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    _, chain = run_updates(host, tmp_path / "policies", 2)
    base = AutoModelForCausalLM.from_pretrained(tiny_dir)
    loaded = PeftModel.from_pretrained(base, str(chain[2].adapter_dir)).eval()
    with torch.no_grad():
        expected = loaded(torch.tensor([[70, 71, 72, 73]])).logits
    torch.testing.assert_close(logits(host, chain[2]), expected, rtol=0, atol=1e-5)


def test_learning_moves_the_student_towards_its_teacher(host: AdaptedModel, tmp_path: Path) -> None:
    """The same attempts again and again: their divergence from the frozen teacher falls."""
    found = learner(host, lr=3e-3, replay=1)
    policy = found.start("run", tmp_path / "policies", seed=0)
    examples = group(host, policy)
    seen = [found.learn(examples, SPEC).metrics["divergence"] for _ in range(6)]
    assert seen[-1] < 0.7 * seen[0]


@pytest.mark.parametrize("options", [{"teacher": "none-negative"}, {"teacher": "own-answers"}], ids=str)
def test_without_a_teacher_there_is_no_distance_from_it(
    host: AdaptedModel, tmp_path: Path, options: dict[str, Any]
) -> None:
    found = learner(host, **options)
    policy = found.start("run", tmp_path / "policies", seed=0)
    update = found.learn(group(host, policy), SPEC)
    assert update.n_examples
    assert update.metrics["objective"]
    assert math.isnan(update.loss)


@pytest.mark.parametrize("granularity", ["logit", "sampled_token", "sequence"])
def test_rewards_teach_a_group_whose_teachers_are_missing(
    host: AdaptedModel, tmp_path: Path, granularity: str
) -> None:
    found = learner(host, granularity=granularity, grpo_weight=0.5)
    policy = found.start("run", tmp_path / "policies", seed=0)
    examples = [replace(e, teacher_prompt=None, reward=float(n)) for n, e in enumerate(group(host, policy))]
    update = found.learn(examples, SPEC)
    assert update.metrics["grad_norm"] > 0
    assert math.isnan(update.loss)


# -- resumes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"teacher": "ema", "ema_rate": 0.3}, {"replay": 2}], ids=str)
def test_a_resumed_run_learns_the_same_weights(
    host: AdaptedModel, tmp_path: Path, options: dict[str, Any]
) -> None:
    run_updates(host, tmp_path / "whole", 4, **options)
    broken, chain = run_updates(host, tmp_path / "broken", 2, **options)
    broken.close()
    again = learner(host, **options)
    policy = again.resume("run", tmp_path / "broken", 0, 2)
    assert policy == chain[2]
    for step in (2, 3):
        policy = again.learn(group(host, policy, seed=step), SPEC).policy
    for file in ("adapter_model.safetensors", "optimizer.safetensors"):
        whole = load_file(tmp_path / "whole" / "0004" / file)
        assert same(whole, load_file(tmp_path / "broken" / "0004" / file)), file
    facts = [json.loads((tmp_path / d / "0004" / "state.json").read_text()) for d in ("whole", "broken")]
    assert facts[0] == facts[1]


def test_what_the_journal_never_committed_goes(host: AdaptedModel, tmp_path: Path) -> None:
    policies = tmp_path / "policies"
    run_updates(host, policies, 3)
    (policies / ".writing-0004").mkdir()
    (policies / ".writing-0004" / "adapter_model.safetensors").write_bytes(b"half")
    again = learner(host)
    assert again.resume("run", policies, 0, 2).version == 2
    assert sorted(path.name for path in policies.iterdir()) == ["0002"]
    again.start("run", policies, 0)
    assert list(policies.iterdir()) == []


def test_versions_are_never_written_twice(host: AdaptedModel, tmp_path: Path) -> None:
    found, chain = run_updates(host, tmp_path / "policies", 1)
    (tmp_path / "policies" / "0002").mkdir()
    with pytest.raises(LearnerError, match="never written again"):
        found.learn(group(host, chain[1]), SPEC)


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "gone"])
def test_a_damaged_file_is_named_and_nothing_else_is_lost(
    host: AdaptedModel, tmp_path: Path, file: str, harm: str
) -> None:
    policies = tmp_path / "policies"
    run_updates(host, policies, 3)
    path = policies / "0002" / file
    content = path.read_bytes()
    if harm == "flip":
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    elif harm == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.unlink()
    with pytest.raises(LearnerError, match=file.replace(".", r"\.")):
        learner(host).resume("run", policies, 0, 2)
    assert (policies / "0003").exists()


def test_a_version_of_another_run_is_refused(host: AdaptedModel, tmp_path: Path) -> None:
    run_updates(host, tmp_path / "policies", 1)
    with pytest.raises(LearnerError, match="is of run 'run', wanted 'other'"):
        learner(host).resume("other", tmp_path / "policies", 0, 1)


def test_a_run_goes_on_where_the_folder_of_its_results_was_renamed(
    host: AdaptedModel, tmp_path: Path
) -> None:
    found = learner(host)
    policy = found.start("first/say/sdpo/seed-0", tmp_path / "policies", 0)
    found.learn(group(host, policy), SPEC)
    found.close()
    for name in ("renamed/say/sdpo/seed-0", "/say/sdpo/seed-0"):  # the second: --out .
        again = learner(host)
        assert again.resume(name, tmp_path / "policies", 0, 1).run == name
        again.close()
    for name in ("first/say/sdpo/seed-1", "first/other/sdpo/seed-0"):
        with pytest.raises(LearnerError, match="is of run 'first/say/sdpo/seed-0', wanted"):
            learner(host).resume(name, tmp_path / "policies", 0, 1)


# -- what stays on disk ------------------------------------------------------------------------------------


def test_old_versions_go_and_kept_ones_stay(host: AdaptedModel, tmp_path: Path) -> None:
    policies = tmp_path / "policies"
    found, chain = run_updates(host, policies, 2)
    found.keep(chain[1])
    policy = chain[2]
    for step in range(3):
        policy = found.learn(group(host, policy, seed=step), SPEC).policy
    assert sorted(path.name for path in policies.iterdir()) == ["0001", "0004", "0005", "kept.json"]


def test_a_directory_that_cannot_be_written_is_a_clear_error(host: AdaptedModel, tmp_path: Path) -> None:
    (tmp_path / "policies").write_text("a file in the way")
    found = learner(host)
    policy = found.start("run", tmp_path / "other", 0)
    found._active().policies_dir = tmp_path / "policies"
    with pytest.raises(LearnerError, match=r"cannot write .*policies/0001: "):
        found.learn(group(host, policy), SPEC)


def test_a_full_disk_leaves_no_half_version(
    host: AdaptedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import safetensors.torch

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    found = learner(host)
    policy = found.start("run", tmp_path / "policies", 0)
    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(LearnerError, match="0001: No space left on device"):
        found.learn(group(host, policy), SPEC)
    assert list((tmp_path / "policies").iterdir()) == []
    monkeypatch.undo()
    assert found.learn(group(host, policy), SPEC).policy.version == 1, "the step can be taken again"


# -- refusals ----------------------------------------------------------------------------------------------


def test_samples_that_cannot_be_accounted_for(host: AdaptedModel, tmp_path: Path) -> None:
    found, chain = run_updates(host, tmp_path / "policies", 1)
    with pytest.raises(LearnerError, match="policy run@0; the newest here is run@1"):
        found.learn(group(host, chain[0]), SPEC)
    stranger = Policy("other", 1, chain[1].adapter_dir)
    with pytest.raises(LearnerError, match="policy other@1"):
        found.learn(group(host, stranger), SPEC)
    with pytest.raises(LearnerError, match="at least one attempt"):
        found.learn([], SPEC)
    with pytest.raises(LearnerError, match="another run"):
        found.keep(stranger)
    assert not (tmp_path / "policies" / "0002").exists()


def test_attempts_without_a_teacher_teach_nothing_and_are_counted(host: AdaptedModel, tmp_path: Path) -> None:
    found = learner(host)
    policy = found.start("run", tmp_path / "policies", 0)
    notices = []
    for step in range(3):
        lonely = [Example(e.sample, None, 0.0) for e in group(host, policy, seed=step)]
        update = found.learn(lonely, SPEC)
        policy = update.policy
        notices.append(update.notices)
    assert update.n_examples == 0
    assert math.isnan(update.loss)
    assert update.metrics["n_without_teacher"] == 4
    assert notices == [
        (),
        (),
        ("nothing could be learned for 3 groups; attempts of the last: 4 without a teacher",),
    ]


def test_a_teacher_prompt_that_leaves_no_room_is_counted(host: AdaptedModel, tmp_path: Path) -> None:
    found = learner(host)
    policy = found.start("run", tmp_path / "policies", 0)
    examples = group(host, policy)
    examples[0] = Example(examples[0].sample, prompt("x" * 3000), 0.0)
    metrics = found.learn(examples, SPEC).metrics
    assert (metrics["n_teacher_too_long"], metrics["n_without_teacher"]) == (1, 1)


def test_directories_of_two_runs_live_side_by_side(host: AdaptedModel, tmp_path: Path) -> None:
    """Two learners on one host, in turn, do what each does alone."""
    run_updates(host, tmp_path / "alone", 2)
    first, second = learner(host), learner(host)
    p1 = first.start("run", tmp_path / "first", 0)
    p2 = second.start("other", tmp_path / "second", 5)
    for step in range(2):
        p1 = first.learn(group(host, p1, seed=step), SPEC).policy
        p2 = second.learn(group(host, p2, seed=step + 10), SPEC).policy
    assert same(weights(tmp_path / "alone", 2), weights(tmp_path / "first", 2))
    shutil.rmtree(tmp_path / "second")


def test_learners_with_other_targets_share_a_host(host: AdaptedModel, tmp_path: Path) -> None:
    """Modules that only one of two adapters touches are plain layers to the other."""
    run_updates(host, tmp_path / "alone", 1, lora_targets="attention")
    wide, narrow = learner(host), learner(host, lora_targets="attention")
    first = wide.start("run", tmp_path / "wide", 0)
    second = narrow.start("run", tmp_path / "narrow", 0)
    wide.learn(group(host, first), SPEC)
    narrow.learn(group(host, second), SPEC)
    assert same(weights(tmp_path / "alone", 1), weights(tmp_path / "narrow", 1))


def test_a_teacher_that_does_not_fit_scores_fewer_attempts_at_a_time(
    host: AdaptedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that holds two rows at a time, in passes without gradients too; the step is the same."""
    whole, _ = run_updates(host, tmp_path / "whole", 2)
    whole.close()
    rows_pass = PackedPasses.rows

    def small(self: PackedPasses, rows: Sequence[Any], *rest: Any) -> torch.Tensor:
        if len(rows) > 2:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return rows_pass(self, rows, *rest)

    monkeypatch.setattr(PackedPasses, "rows", small)
    found, _ = run_updates(host, tmp_path / "small", 2)
    assert found._active().passes.limits.microbatch_tokens < 4096
    first, second = (weights(tmp_path / d, 2) for d in ("whole", "small"))
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], atol=2e-4, rtol=0)
    facts = json.loads((tmp_path / "small" / "0002" / "state.json").read_text())["facts"]
    assert facts["microbatch_tokens"] == found._active().passes.limits.microbatch_tokens, "through a resume"


def test_a_question_that_does_not_fit_is_a_clear_error(
    host: AdaptedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    found = learner(host)
    policy = found.start("run", tmp_path / "policies", 0)
    monkeypatch.setattr(PackedPasses, "prefix", full)
    with pytest.raises(LearnerError, match="the question itself"):
        found.learn(group(host, policy), SPEC)


@pytest.mark.parametrize("part", [(AdapterOptimizer, "step"), (PackedPasses, "logprobs")])
def test_an_update_that_does_not_fit_is_a_clear_error(
    host: AdaptedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: tuple[type, str]
) -> None:
    """AdamW takes its moments in the first step; from the second update on the base is scored as well."""

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    found, (_, policy) = run_updates(host, tmp_path / "policies", 1)
    monkeypatch.setattr(*part, full)
    with pytest.raises(LearnerError, match=r"out of memory while learning.*learner\.lora_rank"):
        found.learn(group(host, policy), SPEC)


@pytest.mark.parametrize("part", ["prefix", "rows"])
def test_a_trial_that_does_not_fit_is_no_fault_of_the_model(
    tiny_dir: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(passes_choice.PlainPasses, part, full)
    with pytest.raises(LearnerError, match="out of memory"):
        learner(AdaptedModel.load(tiny_dir, "cpu", torch.float32))
