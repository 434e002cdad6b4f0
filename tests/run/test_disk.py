"""A full disk: a record is written whole or not at all."""

import json

import pytest

from sdpo_solve.errors import JournalError
from sdpo_solve.run.identity import write_config
from sdpo_solve.run.journal import Journal
from tests.helpers.disks import Disk, fill


def test_a_configuration_is_written_whole_or_not_at_all(disk: Disk) -> None:
    place = disk("size=64k")
    filler = fill(place, 4096)
    with pytest.raises(JournalError, match=r"cannot write .*config\.json: No space left on device"):
        write_config(place, {"long": "x" * 20_000})
    assert [path.name for path in place.iterdir()] == ["filler"]
    filler.unlink()
    write_config(place, {"long": "x" * 20_000})
    assert len(json.loads((place / "config.json").read_text())["long"]) == 20_000


def test_a_journal_on_a_real_full_disk_keeps_what_it_has(disk: Disk) -> None:
    place = disk("size=64k")
    journal = Journal(place, "run")
    journal.start({"problem": "p", "method": "m", "seed": 0})
    whole = journal.path.read_bytes()
    fill(place, 0)
    with pytest.raises(JournalError, match="No space left on device; free the disk and repeat"):
        journal._write([{"event": "group", "text": "x" * 30_000}])
    assert journal.path.read_bytes().startswith(whole)
    journal.close()
