"""Runs in one small file: what a report needs of their journals, and none of the texts.

Statements, answers, programs, feedback and tokens are left out, so that the results of an experiment can be
kept and passed on where the problems cannot. A packed run is a journal still: every figure of `report` comes
out the same. It cannot be resumed, explained or exported. Computes nothing and prints nothing.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sdpo_solve.errors import ConfigError, UserError
from sdpo_solve.paths import file_errors
from sdpo_solve.report.runs import find_run_dirs
from sdpo_solve.run.events import FILE_NAME, read_events, without_texts

_DATE = (1980, 1, 1, 0, 0, 0)  # the same runs give the same bytes


def pack(sources: Sequence[Path], path: Path) -> int:
    """Write the runs in or under `sources` to the file `path`; gives their number.

    A run is named after its place below its source. Raises ConfigError where there is none or two have one
    name, JournalError for a damaged journal, UserError where the file cannot be written.
    """
    journals: dict[str, str] = {}
    for source in sources:
        for run_dir in find_run_dirs([source]):
            name = f"{run_dir.relative_to(source.parent)}/{FILE_NAME}"
            if name in journals:
                raise ConfigError(f"two runs would be called {name}; pack them into two files")
            events = (without_texts(event) for event, _ in read_events(run_dir / FILE_NAME))
            journals[name] = "".join(json.dumps(event) + "\n" for event in events if event is not None)
    if not journals:
        raise ConfigError(f"no runs under {', '.join(str(source) for source in sources)}")
    with file_errors(UserError, f"write {path}"), zipfile.ZipFile(path, "w") as file:
        for name, text in sorted(journals.items()):
            file.writestr(zipfile.ZipInfo(name, _DATE), text, zipfile.ZIP_DEFLATED, 9)
    return len(journals)


@contextmanager
def unpacked(sources: Sequence[Path]) -> Iterator[list[Path]]:
    """The sources as directories: packed files are unpacked into a folder that goes away afterwards.

    Raises ConfigError for a file that is not one.
    """
    with tempfile.TemporaryDirectory(prefix="sdpo-solve-") as folder:
        found = []
        for number, source in enumerate(sources):
            if source.is_dir() or not source.exists():
                found.append(source)
                continue
            place = Path(folder) / str(number)
            try:
                with zipfile.ZipFile(source) as file:
                    file.extractall(place)
            except (zipfile.BadZipFile, OSError) as exc:
                raise ConfigError(
                    f"{source} holds no packed runs ({exc}); give a directory of runs"
                ) from None
            found.append(place)
        yield found
