"""LiveCodeBench's releases on the Hugging Face hub: file names, and a download into the hub's own cache.

Names follow the data set's own loader (https://huggingface.co/datasets/livecodebench/code_generation_lite):
`v6` is what the sixth release added (`test6.jsonl`), `release_v6` all up to it, `v4_v6` the parts 4 to 6.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path

from sdpo_solve.errors import ConfigError, PrerequisiteError, SdpoSolveError, one_line

REPOSITORY = "livecodebench/code_generation_lite"
N_RELEASES = 6
_TAG = re.compile(r"(?P<all>release_)?v(?P<first>\d)(?:_v(?P<last>\d))?")


def is_release(name: str) -> bool:
    """Whether `name` has the form of a release, rather than that of a file."""
    return _TAG.fullmatch(name) is not None or name == "release_latest"


def files_of(release: str) -> list[str]:
    """The file names of a release, in order.

    Raises ConfigError for a release that does not exist.
    """
    tag = _TAG.fullmatch(f"release_v{N_RELEASES}" if release == "release_latest" else release)
    first, last = (int(tag["first"]), int(tag["last"] or tag["first"])) if tag else (0, 0)
    if not 1 <= first <= last <= N_RELEASES or (tag and tag["all"] and tag["last"]):
        known = f"v1 to v{N_RELEASES}, ranges such as v4_v{N_RELEASES}, release_v1 to release_v{N_RELEASES}"
        raise ConfigError(f"LiveCodeBench has no release {release!r} (known: {known})")
    if tag and tag["all"]:
        first = 1
    return ["test.jsonl" if number == 1 else f"test{number}.jsonl" for number in range(first, last + 1)]


def fetch(name: str, endpoint: str | None = None, cache_dir: Path | None = None) -> Path:
    """The file `name` of the data set on this disk, fetched where the cache does not hold it.

    Published parts do not change, so a kept file is used without asking the hub.
    `endpoint` and `cache_dir` default to what the hub's client is set to (HF_ENDPOINT, HF_HOME).
    Raises PrerequisiteError where the hub cannot be reached or does not hold it.
    """
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    from sdpo_solve.model.names import absent_certificates, require_answer
    from sdpo_solve.model.wheels import disk_errors

    kept = try_to_load_from_cache(REPOSITORY, name, cache_dir=cache_dir, repo_type="dataset")
    if isinstance(kept, str):
        return Path(kept)
    try:
        with _silence(), disk_errors(name, cache_dir or Path(constants.HF_HUB_CACHE), "HF_HOME"):
            require_answer(f"datasets/{REPOSITORY}", endpoint or constants.ENDPOINT)
            path = hf_hub_download(
                REPOSITORY, name, repo_type="dataset", endpoint=endpoint, cache_dir=cache_dir
            )
    except SdpoSolveError:
        raise
    except Exception as exc:  # noqa: BLE001 -- which HTTP library raises differs between the client's versions
        reason = absent_certificates() or one_line(exc.__cause__ or exc).rstrip(".")[:200]
        raise PrerequisiteError(
            f"cannot fetch {name} of {REPOSITORY}: {reason}. "
            "Check the network or HF_ENDPOINT, or fetch the file elsewhere and name it: lcb:FILE.jsonl"
        ) from None
    return Path(path)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The client's log off: its messages about retries repeat the error that is raised in the end."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
