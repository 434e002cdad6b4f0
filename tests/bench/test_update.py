"""What the bench of an update counts and says; the measurement itself on the tiny model, without its targets."""

from types import SimpleNamespace

import pytest
from rich.console import Console

from sdpo_solve.bench import update as bench
from sdpo_solve.bench.update import Cost, Size, UpdateBench
from tests.helpers.tiny_model import save_tiny_model


def test_operations_by_hand() -> None:
    """One layer of width 4, inner 8, two query heads and one key head of 2; question 2, feedback 1, answer 1.

    A token costs 2 (4 x (8 + 4) + 3 x 4 x 8) = 288, the head 80, attention 16 for each query and key seen.
    Student: 3 tokens and 3 + 3 pairs; teacher: 4 tokens and 3 + 7 pairs; backward: 3 tokens and 2.5 x the
    student's pairs; the head three times.
    """
    config = SimpleNamespace(
        hidden_size=4, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=2, vocab_size=10,
    )  # fmt: skip
    student, teacher, backward = 3 * 288 + 16 * 6, 4 * 288 + 16 * 10, 3 * 288 + 2.5 * 16 * 6
    assert bench.operations(config, Size(1, 2, 1, 1)) == pytest.approx(
        (student + teacher + backward + 3 * 80) / 1e9
    )


MEASURED = UpdateBench(
    Size(),
    Cost("packed", 5.0, 400.0, 100.0),
    Cost("plain", 10.0, 1000.0, 90.0),
    gflop=400.0,
    gradient_error=1e-6,
)


def test_ratios_and_their_targets() -> None:
    assert MEASURED.floor_s == 4.0
    assert [(row.name.split()[1], row.value, row.ok) for row in MEASURED.rows()] == [
        ("time", 1.25, True), ("time", 0.5, True), ("memory", 0.4, True), ("error,", 1e-6, True),
    ]  # fmt: skip
    assert MEASURED.ok
    slow = UpdateBench(Size(), Cost("packed", 5.1, 400.0, 100.0), None, 400.0, None)
    assert [row.name for row in slow.rows()] == ["packed time / floor"]
    assert not slow.ok


def test_the_page_fits_80_columns_and_names_what_is_missed(capsys: pytest.CaptureFixture[str]) -> None:
    slow = UpdateBench(Size(), Cost("packed", 51.0, 400.0, 100.0), MEASURED.plain, 400.0, 1e-6)
    Console(width=80, no_color=True).print(bench.page(slow))
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert said.count("missed") == 2
    (line,) = [line for line in said.splitlines() if line.startswith("packed time / floor")]
    assert line.split()[-3:] == ["12.8", "1.25", "missed"]
    assert slow.record()["ratios"][0]["ok"] is False


@pytest.mark.slow
def test_both_forms_are_measured_in_processes_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    model_dir = save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")
    said: list[str] = []
    found = bench.run(model_dir, said.append, size=Size(2, 20, 10, 10), n_rounds=1)
    assert [line for line in said if ":" not in line] == [
        "packed form", "plain form", "gradients of both forms in float32",
    ]  # fmt: skip
    assert found.plain is not None
    assert min(found.packed.wall_s, found.plain.wall_s, found.gflop, found.packed.gflop_per_s) > 0
    assert found.gradient_error is not None
    assert found.gradient_error < bench.MAX_GRADIENT_ERROR
