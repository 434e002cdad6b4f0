"""Fetching a release from a hub that does not work: one line soon, whatever its client raises."""

import errno
from pathlib import Path

import huggingface_hub
import pytest

from sdpo_solve.datasets import _lcb_hub
from sdpo_solve.errors import PrerequisiteError
from sdpo_solve.model import names
from tests.helpers.hubs import ANSWERS, hub_server


@pytest.mark.parametrize(("answer", "words"), ANSWERS.values(), ids=ANSWERS)
def test_a_hub_that_does_not_answer_is_not_waited_for(
    answer: bytes | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "_HUB_TIMEOUT_S", 0.5)
    with hub_server(answer) as endpoint, pytest.raises(PrerequisiteError, match=words) as caught:
        _lcb_hub.fetch("test6.jsonl", endpoint, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "is full.* set HF_HOME"),
        (OSError(errno.EROFS, "Read-only file system"), "cannot write to .* set HF_HOME"),
        (RuntimeError("any\nfault"), r"any fault\. Check the network .*lcb:FILE\.jsonl"),
    ],
    ids=str,
)
def test_whatever_the_client_raises_is_one_line_with_what_to_do(
    fault: Exception, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise fault

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
    with hub_server(answer) as endpoint, pytest.raises(PrerequisiteError, match=words):
        _lcb_hub.fetch("test6.jsonl", endpoint, tmp_path)
