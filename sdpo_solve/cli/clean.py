"""The command `clean`: what this program keeps on the machine, with sizes, and its removal."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import Field
from rich.console import Console
from rich.filesize import decimal
from rich.text import Text

from sdpo_solve.cli.flags import command
from sdpo_solve.config import Flag, Options
from sdpo_solve.errors import JournalError, PrerequisiteError, UserError
from sdpo_solve.paths import cache_dir
from sdpo_solve.report.follow import locked
from sdpo_solve.report.table import AlignedTable
from sdpo_solve.run.events import FILE_NAME, read_records
from sdpo_solve.run.records import UpdateEvent
from sdpo_solve.sandboxes._engine import calling_engine, connect

KINDS = ("models", "caches", "images", "policies")


@dataclass(frozen=True, slots=True)
class Kept:
    """One thing on disk that this program made."""

    kind: str
    name: str
    n_bytes: int
    remove: Callable[[], object]


class CleanCommand(Options):
    what: Annotated[tuple[str, ...], Flag(metavar="WHAT", is_argument=True)] = Field(
        KINDS, description="models, caches, images, policies; all of them where none is named"
    )
    runs: Path = Field(Path("runs"), description="where runs lie whose older policies may go")
    yes: bool = Field(False, description="remove what is listed; without it nothing is removed")


@command(CleanCommand, "clean", "clean images", "clean policies --runs runs/first")
def clean(given: CleanCommand) -> None:
    """List what this program keeps on the machine, with sizes; with --yes, remove it.

    Of a run's policies those stay that it goes on from; 'explain --update' needs the others.
    """
    unknown = sorted(set(given.what) - set(KINDS))
    if unknown:
        raise UserError(f"clean knows no {unknown[0]!r} (known: {', '.join(KINDS)})")
    # Where nothing has run yet the default is not there.
    if "runs" in given.model_fields_set and not given.runs.is_dir():
        raise UserError(f"{given.runs} is not a directory; give one that holds runs")
    console = Console(highlight=False)
    listed = [kept for kept in list_kept(given.runs) if kept.kind in given.what]
    print_kept(listed, console)
    if given.yes:
        for kept in listed:
            kept.remove()
        console.print(Text(f"removed; {decimal(sum(kept.n_bytes for kept in listed))} are free again"))
    elif listed:
        console.print(Text("nothing was removed: --yes removes what is listed", style="dim"))


def print_kept(listed: list[Kept], console: Console) -> None:
    """A line each, and the sum."""
    table = AlignedTable(("what", "size", "where"), names=("where",))
    for kept in listed:
        table.add([kept.kind, decimal(kept.n_bytes), kept.name])
    if listed:
        console.print(table)
    total = decimal(sum(kept.n_bytes for kept in listed))
    console.print(
        Text(f"{total} in all; models and caches lie in {cache_dir()} (SDPO_SOLVE_CACHE)"), soft_wrap=True
    )


def list_kept(runs: Path) -> list[Kept]:
    """All that lies here; images only where a Docker engine answers."""
    found = []
    for kind, folder in (("models", cache_dir() / "models"), ("caches", cache_dir() / "expected")):
        places = sorted(folder.iterdir()) if kind == "models" and folder.is_dir() else [folder]
        found += [_folder(kind, place) for place in places if place.is_dir()]
    return [*found, *_images(), *_old_policies(runs)]


def _old_policies(runs: Path) -> Iterator[Kept]:
    """Of each run all policies but those that it goes on from; none of a run that is being written.

    A folder of that name beside no journal is not ours.
    """
    journals = sorted(runs.rglob(FILE_NAME))
    held = locked(journals) or set()
    for journal in (path for path in journals if path not in held):
        policies = journal.with_name("policies")
        versions = {int(path.name): path for path in policies.glob("[0-9]*") if path.name.isdecimal()}
        if len(versions) < 2:  # the newest stays: no journal need be read
            continue
        try:
            newest = {max(versions), _last_committed(journal)}
        except JournalError:  # whoever mends it may need any of them
            continue
        stays = newest | {_best(versions[n]) for n in newest & versions.keys()}
        yield from (_folder("policies", versions[n]) for n in sorted(versions.keys() - stays))


def _last_committed(journal: Path) -> int:
    """The version that a run goes on from, 0 for the base model; a newer one on disk may lack its event.

    Raises JournalError for a damaged journal.
    """
    updates = (line.record for line in read_records(journal) if isinstance(line.record, UpdateEvent))
    return max((update.version for update in updates), default=0)


def _best(newest: Path) -> int | None:
    """The version that the run goes back to should the newest turn out to have collapsed."""
    try:
        state = json.loads((newest / "state.json").read_text("utf-8"))
        return int(state["facts"]["health"]["best_version"])
    except (OSError, ValueError, KeyError, TypeError):  # going on will say what is wrong with it
        return None


def list_others(runs: Path) -> list[Kept]:
    """What `clean` leaves alone: the environment, the hub's cache, runs with their newest policies."""
    from huggingface_hub import constants

    places = (("environment", Path(sys.prefix)), ("hub", Path(constants.HF_HUB_CACHE)), ("runs", runs))
    found = [_folder(kind, place) for kind, place in places if place.is_dir()]
    older = sum(one.n_bytes for one in _old_policies(runs))
    return [replace(one, n_bytes=one.n_bytes - older) if one.kind == "runs" else one for one in found]


def _folder(kind: str, path: Path) -> Kept:
    n_bytes = sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())
    return Kept(kind, str(path), n_bytes, partial(shutil.rmtree, path))


def _images() -> Iterator[Kept]:
    try:
        client = connect()
        with calling_engine():
            images = client.images()
    except PrerequisiteError:  # `doctor` says so
        return
    for image in images:
        for tag in image["RepoTags"] or ():
            if tag.removeprefix("localhost/").startswith("sdpo-solve-"):
                yield Kept("images", tag, image["Size"], partial(client.remove_image, tag))
