"""What the bench of an update counts and shows; the measurement itself on the tiny model."""

from types import SimpleNamespace

import pytest
from rich.console import Console

from sdpo_solve.bench import update as bench
from sdpo_solve.bench.update import Cost, Figures, Size
from sdpo_solve.model import names
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


MEASURED = Figures(
    Size(),
    Cost("packed", 5.0, 400.0, 100.0),
    Cost("plain", 10.0, 1000.0, 90.0),
    gflop=400.0,
    gradient_error=1e-6,
)


def test_ratios_by_hand() -> None:
    assert MEASURED.floor_s == 4.0
    assert MEASURED.ratios() == {
        "packed time / floor": 1.25,
        "packed time / plain": 0.5,
        "packed memory / plain": 0.4,
        "gradient error, float32": 1e-6,
    }
    alone = Figures(Size(), Cost("packed", 5.1, 400.0, 100.0), None, 400.0, None)
    assert list(alone.ratios()) == ["packed time / floor"]


def test_the_page_fits_80_columns_and_the_record_holds_every_figure(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Console(width=80, no_color=True).print(bench.page(MEASURED))
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    (line,) = [line for line in shown.splitlines() if line.startswith("packed time / floor")]
    assert line.split()[-1] == "1.25"
    record = bench.as_record(MEASURED)
    assert record["ratios"] == MEASURED.ratios()
    assert (record["floor_s"], record["packed"]["wall_s"]) == (4.0, 5.0)


@pytest.mark.slow
def test_both_forms_are_measured_in_processes_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    model_dir = save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")
    found = bench.run(model_dir, size=Size(2, 20, 10, 10), n_rounds=1)
    assert found.plain is not None
    assert min(found.packed.wall_s, found.plain.wall_s, found.gflop, found.packed.gflop_per_s) > 0
    assert found.gradient_error is not None
    assert found.gradient_error < 1e-4


@pytest.mark.slow
@pytest.mark.model
def test_the_packed_form_costs_half_of_the_plain_one_at_most() -> None:
    """The embedded model; bounds on ratios within one run, wide enough for a machine with other work."""
    figures = bench.run(names.resolve(names.default_name()).path)
    ratios = figures.ratios()
    assert ratios["packed time / plain"] < 0.6
    assert ratios["packed memory / plain"] < 0.5
    assert ratios["gradient error, float32"] < 1e-4
    assert ratios["packed time / floor"] < 3
