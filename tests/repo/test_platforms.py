"""Systems without Linux's own files and modules: everything can be imported, and says where it cannot work."""

import subprocess
import sys
from pathlib import Path

import sdpo_solve

PROGRAM = """
import contextlib, importlib, io, os, pkgutil, sys
import docker, filelock, peft, psutil, rich, scipy.stats, tensorboard, torch, transformers, typer
import huggingface_hub, safetensors.torch, tempfile, urllib.request, concurrent.futures.process, docker.context
from rich.console import Console

ABSENT = {"fcntl", "resource", "pwd", "grp", "termios"}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in ABSENT:
            raise ModuleNotFoundError(name)

def no_linux_file(event, details):
    if event == "open" and str(details[0]).startswith(("/proc", "/sys")) and "sdpo_solve" in sys._getframe(1).f_code.co_filename:
        raise AssertionError(f"opened {details[0]}")

for name in ABSENT:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Absent())
sys.addaudithook(no_linux_file)
sys.platform = "darwin"
import sdpo_solve
for module in pkgutil.walk_packages(sdpo_solve.__path__, "sdpo_solve."):
    if ".programs" not in module.name and ".guest." not in module.name:
        importlib.import_module(module.name)
from sdpo_solve.cli.main import main
from sdpo_solve.sandboxes import _engine

_engine._SOCKET, _engine._SYSTEM_PROGRAMS = "/nowhere/docker.sock", ()
_engine.engine_host = lambda: "unix:///nowhere/docker.sock"
for sys.platform in ("darwin", "win32"):
    if sys.platform == "win32":
        for name in ("geteuid", "getuid", "register_at_fork", "statvfs", "uname"):
            delattr(os, name)
    for command in (["--help"], ["options"], ["doctor"], ["grade", "letter.json", "answer.py"]):
        sys.argv[1:] = command
        try:
            main()
        except SystemExit as exc:
            print("exit code of", *command, exc.code, flush=True)
"""

PROBLEM = '{"id": "p", "statement": "s", "kind": "stdin", "tests": [{"input": "1", "expected": "1", "visible": true}]}'


def test_what_needs_no_sandbox_works_and_what_does_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "letter.json").write_text(PROBLEM)
    (tmp_path / "answer.py").write_text("print(input())")
    environment = {"PYTHONPATH": str(Path(sdpo_solve.__file__).parents[1]), "HOME": str(tmp_path), "PATH": ""}
    environment |= {"DOCKER_CONFIG": str(tmp_path), "COLUMNS": "100", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stdout, done.stdout
    lines = done.stdout.splitlines()
    codes = [int(line.split()[-1]) for line in lines if line.startswith("exit code of")]
    assert codes == 2 * [0, 0, 3, 3], done.stdout
    errors = [line for line in lines if line.startswith("sdpo-solve: ")]
    assert ["Docker Desktop" in line for line in errors] == [True, False]
    assert ["WSL 2" in line for line in errors] == [False, True]
