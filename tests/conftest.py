"""Fixtures for all tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sdpo_solve.run.journal import Journal
from tests.helpers.disks import Disk, small_disks

pytest.register_assert_rewrite("tests.helpers.behaviours")


@pytest.fixture(autouse=True)
def close_journals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Journals that a test leaves open are closed behind it, as the end of a process would."""
    opened: list[Journal] = []
    lock = Journal._lock

    def remember(journal: Journal) -> bool:
        opened.append(journal)
        return lock(journal)

    monkeypatch.setattr(Journal, "_lock", remember)
    yield
    for journal in opened:
        journal.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Makes a real small file system with mount options, and takes it away again."""
    with small_disks(tmp_path) as make:
        yield make
