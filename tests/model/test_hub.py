"""Pulling from the hub: only what is loaded is fetched, and whatever its client raises is one line."""

import errno
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file

from sdpo_solve.errors import ConfigError, PrerequisiteError
from sdpo_solve.model import names
from tests.helpers.hubs import ANSWERS, hub_server
from tests.helpers.tiny_model import save_tiny_model


class Hub:
    """A repository whose files are copied into a snapshot, as the client does it. `fault`: what it raises."""

    def __init__(self, repository: Path, snapshot: Path) -> None:
        self.repository, self.snapshot = repository, snapshot
        self.fault: Exception | None = None

    def download(
        self,
        name: str,
        *,
        allow_patterns: list[str],
        ignore_patterns: str,
        local_files_only: bool = False,
        etag_timeout: float = 0,
    ) -> str:
        if local_files_only:
            if not self.snapshot.exists():
                raise LocalEntryNotFoundError("not here")
            return str(self.snapshot)
        if self.fault is not None:
            raise self.fault
        files = [str(f.relative_to(self.repository)) for f in self.repository.rglob("*") if f.is_file()]
        for file in filter_repo_objects(
            files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
        ):
            (self.snapshot / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.repository / file, self.snapshot / file)
        return str(self.snapshot)


def cut_in_two(model: Path) -> None:
    """Makes a model's weights two shards with an index."""
    tensors = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    halves = {"a.safetensors": sorted(tensors)[::2], "b.safetensors": sorted(tensors)[1::2]}
    for file, part in halves.items():
        save_file({name: tensors[name] for name in part}, model / file, {"format": "pt"})
    index = {"weight_map": {name: file for file, part in halves.items() for name in part}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    made = Hub(save_tiny_model(tmp_path / "repository"), tmp_path / "abc123")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", made.download)
    with hub_server(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}") as endpoint:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        yield made


def test_other_forms_of_the_weights_stay_where_they_are(hub: Hub) -> None:
    weights = hub.repository / "model.safetensors"
    for other in ("consolidated.safetensors", "original/model.safetensors", "onnx/model.json"):
        (hub.repository / other).parent.mkdir(exist_ok=True)
        shutil.copy(weights, hub.repository / other)
    notices: list[str] = []
    assert names.pull("owner/model", notices.append).identity == "owner/model@abc123"
    assert {f.name for f in hub.snapshot.rglob("*.safetensors")} == {"model.safetensors"}
    assert not (hub.snapshot / "onnx").exists()
    assert any("samples and learns" in line for line in notices)


def test_shards_are_those_that_the_index_names(hub: Hub) -> None:
    shutil.copy(hub.repository / "model.safetensors", hub.repository / "consolidated.safetensors")
    cut_in_two(hub.repository)
    path = names.pull("owner/model", lambda _: None).path
    assert {f.name for f in path.glob("*.safetensors")} == {"a.safetensors", "b.safetensors"}


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A snapshot in the cache of the real client, in two shards, and no hub that answers."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    repository = tmp_path / "hub" / "models--owner--model"
    snapshot = save_tiny_model(repository / "snapshots" / "abc123")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc123")
    cut_in_two(snapshot)
    return snapshot


def test_a_whole_model_is_not_asked_for_again(kept: Path) -> None:
    """Nor would a newer commit on the hub be taken, under which running batches could not go on."""
    notices: list[str] = []
    assert names.pull("owner/model", notices.append) == names.resolve("owner/model")
    assert names.resolve("owner/model").identity == "owner/model@abc123"
    assert notices[-1] == f"owner/model is here already: {kept}"


@pytest.mark.parametrize(
    "missing", ["b.safetensors", "model.safetensors.index.json", "config.json", "tokenizer.json"]
)
def test_a_half_model_is_not_taken_for_whole(kept: Path, missing: str) -> None:
    (kept / missing).unlink()
    with pytest.raises(PrerequisiteError, match="sdpo-solve model pull owner/model"):
        names.resolve("owner/model")
    with pytest.raises(PrerequisiteError, match="cannot download owner/model from the hub"):
        names.pull("owner/model", lambda _: None)


def test_a_cut_shard_is_not_taken_for_whole(kept: Path) -> None:
    shard = kept / "b.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(PrerequisiteError, match="cannot download owner/model from the hub"):
        names.pull("owner/model", lambda _: None)


def test_a_kept_model_that_is_not_supported_is_refused(kept: Path) -> None:
    (kept / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(ConfigError, match=r"not supported: .*encoder-decoder"):
        names.pull("owner/model", lambda _: None)


def test_what_is_not_supported_is_refused_before_its_weights_are_pulled(hub: Hub) -> None:
    (hub.repository / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(ConfigError, match=r"not supported: .*encoder-decoder"):
        names.pull("owner/model", lambda _: None)
    assert list(hub.snapshot.glob("*.safetensors")) == []


def test_certificates_that_are_not_there_are_named_with_their_variable(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    hub.fault = FileNotFoundError(errno.ENOENT, "No such file or directory")
    with pytest.raises(PrerequisiteError, match=r"SSL_CERT_FILE is /nowhere/ca\.pem"):
        names.pull("owner/model", lambda _: None)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            ValueError("Expecting value: line 1\ncolumn 1"),
            "cannot download owner/model from the hub: Expecting value",
        ),
        (TimeoutError("timed out"), "timed out"),
        (RuntimeError(), "RuntimeError"),
        (OSError(errno.ENOSPC, "No space left on device"), "is full.* set HF_HOME"),
        (OSError(errno.EROFS, "Read-only file system"), "cannot write to .* set HF_HOME"),
    ],
    ids=str,
)
def test_whatever_the_client_raises_is_one_line_with_what_to_do(
    hub: Hub, fault: Exception, words: str
) -> None:
    hub.fault = fault
    with pytest.raises(PrerequisiteError, match=words) as caught:
        names.pull("owner/model", lambda _: None)
    assert "\n" not in str(caught.value)
    assert names.config_dir("owner/model") is None


@pytest.mark.parametrize(("answer", "words"), ANSWERS.values(), ids=ANSWERS)
def test_a_hub_that_does_not_answer_is_not_waited_for(
    hub: Hub, answer: bytes | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.fault = AssertionError("the client was called")
    monkeypatch.setattr(names, "_HUB_TIMEOUT_S", 0.5)
    with hub_server(answer) as endpoint:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        with pytest.raises(PrerequisiteError, match=words) as caught:
            names.pull("owner/model", lambda _: None)
    assert "\n" not in str(caught.value)
