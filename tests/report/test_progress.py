"""What a live view knows of a run, folded from its records."""

from pathlib import Path

from sdpo_solve.report.progress import Progress
from sdpo_solve.run.events import read_records
from tests.helpers.journals import Made, make


def test_a_finished_run_whose_budget_grew_goes_on(tmp_path: Path) -> None:
    """Unsolved in 8 attempts, then begun again with 64: no end, and 8 attempts of 64."""
    progress, grown = Progress(), Progress()
    for made, folded in ((Made(limit=8), progress), (Made(limit=64, stops_after=4), grown)):
        path = make(tmp_path / str(made.limit), made) / "journal.jsonl"
        for line in read_records(path):
            folded.apply(line.record)
    assert progress.finished is not None
    assert progress.doing() == "finished"
    progress.apply(grown.header)
    assert progress.finished is None
    assert progress.doing() == "starting"
    assert (len(progress.marks), progress.header.attempts_limit) == (8, 64)
