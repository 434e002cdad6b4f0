"""Runs in one small file: what a report needs of their journals, and none of the texts.

Statements, answers, programs, feedback and tokens are left out, so that the results of an experiment can be
kept and passed on where the problems cannot. A packed run is a journal still: every figure of `report` comes
out the same. It cannot be resumed, explained or exported. Computes nothing and prints nothing.
"""

from __future__ import annotations

import json
import lzma
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sdpo_solve.errors import ConfigError, UserError, one_line
from sdpo_solve.paths import file_errors
from sdpo_solve.report.runs import find_run_dirs
from sdpo_solve.run.events import FILE_NAME, not_of_this_version, read_events, without_texts

_DATE = (1980, 1, 1, 0, 0, 0)  # the same runs give the same bytes
# What `zipfile` raises, besides OSError: for damage (a name or a field that cannot be decoded is a ValueError
# or a struct.error), and for a password or a compression that it does not know (RuntimeError, and
# NotImplementedError, which is one).
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    ValueError,
    RuntimeError,
)


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
            journals[name] = "".join(_packed_lines(run_dir / FILE_NAME))
    if not journals:
        raise ConfigError(f"no runs under {', '.join(str(source) for source in sources)}")
    with file_errors(UserError, f"write {path}"), zipfile.ZipFile(path, "w") as file:
        for name, text in sorted(journals.items()):
            file.writestr(zipfile.ZipInfo(name, _DATE), text, zipfile.ZIP_DEFLATED, 9)
    return len(journals)


def _packed_lines(path: Path) -> Iterator[str]:
    for number, (event, _) in enumerate(read_events(path), start=1):
        try:
            kept = without_texts(event)
        except (KeyError, TypeError) as exc:
            raise not_of_this_version(path, number, exc) from None
        if kept is not None:
            yield json.dumps(kept) + "\n"


@dataclass(frozen=True, slots=True)
class Opened:
    """Sources as directories, in the same order: a packed file is the folder that it was unpacked into."""

    sources: tuple[Path, ...]
    dirs: tuple[Path, ...]

    def named(self, text: str) -> str:
        """The text with packed files in place of their folders, which are gone before anyone reads it."""
        for source, folder in zip(self.sources, self.dirs, strict=True):
            text = text.replace(str(folder), str(source))
        return text


@contextmanager
def unpacked(sources: Sequence[Path]) -> Iterator[Opened]:
    """The sources, packed files unpacked into folders that go away afterwards.

    Raises ConfigError for a file that is not one.
    """
    with tempfile.TemporaryDirectory(prefix="sdpo-solve-") as parent:
        dirs = []
        for number, source in enumerate(sources):
            if source.is_dir() or not source.exists():
                dirs.append(source)
                continue
            folder = Path(parent) / f"{number:06}"  # no name begins with another one
            folder.mkdir()
            _unpack(source, folder)
            dirs.append(folder)
        yield Opened(tuple(sources), tuple(dirs))


def _unpack(source: Path, folder: Path) -> None:
    remedy = "give a directory of runs, or a file that 'export --format pack' wrote"
    try:
        with file_errors(ConfigError, f"unpack {source}"), zipfile.ZipFile(source) as file:
            file.extractall(folder)
    except _UNREADABLE as exc:
        reason = one_line(exc).replace(str(folder), str(source))
        raise ConfigError(f"{source} holds no packed runs that can be read ({reason}); {remedy}") from None
