"""Setup says what it does, does nothing twice and names what to run; doctor's checks only look."""

import os
import subprocess
from pathlib import Path

import pytest

from sdpo_solve.errors import PrerequisiteError
from sdpo_solve.sandboxes import _engine, docker, install
from sdpo_solve.sandboxes.images import image_folder, image_tag, setup_command
from sdpo_solve.types import BoxInput, Limits, Program


def test_without_any_sandbox_every_check_fails_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    monkeypatch.setenv("PATH", str(tmp_path))
    checks = install.check_machine()
    assert [(check.ok, check.needed) for check in checks] == [*[(False, True)] * 3, (False, False)]
    assert [check.remedy for check in checks] == [
        "DOCKER_HOST is tcp://127.0.0.1:9: start that engine, or unset it",
        "run: sdpo-solve setup",
        "or, without Docker, run: sudo apt-get install bubblewrap",
        "for --language cpp in Docker; run: sdpo-solve setup --language cpp",
    ]


def test_bubblewrap_alone_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    if not install.check_bubblewrap().ok:
        pytest.skip("bubblewrap does not work here")
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    engine, image, boxes, _ = install.check_machine()
    assert (engine.ok, image.ok, boxes.ok) == (False, False, True)
    assert not engine.needed
    assert not image.needed
    assert engine.remedy.startswith("not needed while bubblewrap works; ")


@pytest.mark.docker
def test_docker_alone_is_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    engine, image, boxes, _ = install.check_machine()
    assert (engine.ok, image.ok, boxes.ok, boxes.needed) == (True, True, False, False)
    assert boxes.remedy == "not needed while Docker works; run: sudo apt-get install bubblewrap"


@pytest.mark.parametrize("place", ["tcp://127.0.0.1:9", "unix:///nowhere/docker.sock"])
def test_an_engine_elsewhere_is_never_installed_here(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setenv("DOCKER_HOST", place)
    said: list[str] = []
    with pytest.raises(PrerequisiteError, match=f"DOCKER_HOST is {place}: start that engine"):
        install.ensure_docker_engine(said.append)
    assert said == []


def test_a_user_without_rights_is_told_what_to_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(install, "connect", _absent)
    monkeypatch.setattr(_engine, "_SYSTEM_PROGRAMS", (str(tmp_path),))
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(Path, "exists", lambda self: False)
    with pytest.raises(PrerequisiteError, match="as root, on Debian or Ubuntu"):
        install.ensure_docker_engine(lambda _: None)
    (tmp_path / "dockerd").touch(mode=0o755)
    with pytest.raises(PrerequisiteError, match="start it"):
        install.ensure_docker_engine(lambda _: None)
    (tmp_path / "dockerd").unlink()  # the socket alone says that there is an engine
    monkeypatch.setattr(Path, "exists", lambda self: str(self) == "/var/run/docker.sock")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PrerequisiteError, match=r"sudo usermod -aG docker \$USER"):
        install.ensure_docker_engine(lambda _: None)


def _absent() -> None:
    raise PrerequisiteError(f"no Docker engine answers (no such file); {_engine.engine_remedy()}")


def test_a_failing_command_is_quoted_with_its_last_words() -> None:
    with pytest.raises(
        PrerequisiteError, match="`sh -c echo one; echo two >&2; exit 7` failed with exit code 7: two"
    ):
        install._run(["sh", "-c", "echo one; echo two >&2; exit 7"])


def test_the_tag_changes_with_the_dockerfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sdpo_solve.sandboxes import images

    (tmp_path / "sandbox_images" / "python").mkdir(parents=True)
    dockerfile = tmp_path / "sandbox_images" / "python" / "Dockerfile"
    monkeypatch.setattr(images, "_PACKAGE", tmp_path / "package")
    dockerfile.write_text("FROM a\n")
    first = images.image_tag("python")
    dockerfile.write_text("FROM b\n")
    assert images.image_tag("python") != first
    assert images.image_folder("python") == dockerfile.parent


@pytest.mark.docker
def test_what_is_there_is_not_made_again() -> None:
    said: list[str] = []
    install.ensure_docker_engine(said.append)
    install.ensure_images(said.append)
    assert said[0].startswith("The Docker engine answers (version ")
    assert said[1:] == [f"The sandbox image {image_tag('python')} is there."]
    assert all(check.ok and not check.remedy for check in install.check_machine() if check.needed)


@pytest.mark.docker
def test_a_build_that_fails_leaves_no_image_and_no_container(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {image_tag('python')}\nRUN echo last words; false\n")
    client = install.connect()
    try:
        with pytest.raises(PrerequisiteError, match=r"sdpo-solve-test:broken cannot be built: .*last words"):
            install._build(client, tmp_path, "sdpo-solve-test:broken", {})
        assert not install.image_exists(client, "sdpo-solve-test:broken")
    finally:
        client.close()
    listing = subprocess.run(
        ["docker", "ps", "-aq", "--filter", "status=exited"], capture_output=True, check=True
    )
    assert listing.stdout == b""


@pytest.mark.docker
def test_the_image_holds_languages_and_nothing_of_this_project() -> None:
    command = "import numpy, sortedcontainers, pkgutil; print([m.name for m in pkgutil.iter_modules() if 'sdpo' in m.name])"
    done = subprocess.run(
        ["docker", "run", "--rm", "--network", "none", image_tag("python"), "python3", "-c", command],
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"[]\n"


@pytest.mark.docker
def test_the_image_has_todays_python() -> None:
    code = """from itertools import batched
type Row = tuple[int, ...]
def rows[T](items: list[T]) -> list[Row]: return [*batched(items, 2)]
print(f"{", ".join(f"{row}" for row in rows([1, 2, 3]))}")
"""
    sandbox = docker.DockerSandbox(docker.Options(boxes_ready=1, parallel=1))
    try:
        (result,) = sandbox.run(Program(code), [BoxInput()], Limits(2.0, 128))
        assert result.stdout == "(1, 2), (3,)\n"
        assert sandbox.toolchain.title == "Python 3.13"
        assert set(sandbox.toolchain.libraries) >= {"numpy", "sortedcontainers"}
    finally:
        sandbox.close()


@pytest.mark.docker
def test_the_fuller_image_has_its_libraries_or_names_the_command_that_makes_it() -> None:
    options = docker.Options(boxes_ready=1, parallel=1, image="full")
    if not install.check_image("python-full").ok:
        with pytest.raises(PrerequisiteError, match="run: sdpo-solve setup --image full"):
            docker.DockerSandbox(options)
        return
    sandbox = docker.DockerSandbox(options)
    sandbox.close()
    wanted = {"scipy", "networkx", "sympy", "more_itertools", "bitarray"}
    assert set(sandbox.toolchain.libraries) >= wanted


@pytest.mark.parametrize("name", ["python", "python-full", "cpp", "cpp-full"])
def test_every_image_folder_names_a_base_and_its_debian_packages(name: str) -> None:
    assert install._default_base(name)
    packages = (image_folder(name) / "debian-packages").read_text().split()
    assert "python3" in packages
    if not name.startswith("cpp"):  # the same libraries, wherever they come from
        lines = (image_folder(name) / "requirements.txt").read_text().split()
        assert ["python3", *(f"python3-{line.partition('<')[0]}" for line in lines)] == packages


def test_the_command_that_makes_an_image() -> None:
    assert [setup_command(name) for name in ("python", "cpp", "python-full")] == [
        "sdpo-solve setup", "sdpo-solve setup --language cpp", "sdpo-solve setup --image full"
    ]  # fmt: skip


def test_where_bubblewrap_works_no_engine_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    notices: list[str] = []
    for works in (True, False):
        check = install.Check("bubblewrap", works, "")
        monkeypatch.setattr(install, "check_bubblewrap", lambda check=check: check)
        if works:
            install.ensure_sandbox(notices.append, ["python"])
            assert "bubblewrap works" in notices[0]
        else:
            with pytest.raises(PrerequisiteError, match="DOCKER_HOST"):
                install.ensure_sandbox(notices.append, ["python"])
