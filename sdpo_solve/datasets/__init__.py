"""Datasets: problem files of this program and of benchmarks, as `Problem` records. One format, one file.

May import `grading`, `sandboxes` and the ground. Read `load.py` (from a source as written to problems),
`selection.py` (which of them are taken), `_rows.py` (rows of a file), `problem_json.py` (the project's own
file), then the formats of others, such as `livecodebench.py`, `mbpp.py` and `apps.py`.

A benchmark's format is one file with a class below `Format` and `PLUGIN = TheClass`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

from sdpo_solve.datasets.selection import Candidate
from sdpo_solve.protocols import Sandbox
from sdpo_solve.registry import Registry


class Format(ABC):
    """Base of the dataset formats that `REGISTRY` hands out."""

    schemes: ClassVar[Mapping[str, str]]
    """What stands before the colon of a source in this format, with examples of such sources."""
    columns: ClassVar[frozenset[str]] = frozenset()
    """Columns that every row has, by which a file without a scheme is recognised; empty: never."""

    @classmethod
    @abstractmethod
    def candidates(cls, source: str, sandbox: Callable[[], Sandbox]) -> Iterator[Candidate]:
        """The problems of a source, not made yet; `source` is what stands behind the colon.

        `sandbox` is called only where expected values must be computed. Raises ProblemError where the source
        cannot be read, ConfigError where it does not exist, PrerequisiteError where it cannot be fetched.
        """


REGISTRY: Registry[type[Format]] = Registry(
    "dataset format", __name__, frozenset({"load", "selection", "problem_json"})
)
