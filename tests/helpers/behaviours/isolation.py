"""No test reaches the host, the runner, another test or the next one."""

import os
import time

from sdpo_solve.protocols import Sandbox
from sdpo_solve.types import BoxInput, ExecutionStatus, Limits, Program
from tests.helpers.behaviours import LIMITS, behaviour, one


@behaviour
def no_right_is_left(sandbox: Sandbox) -> None:
    status = one(sandbox, "print(open('/proc/self/status').read())").stdout
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["CapPrm"], 16) == int(fields["CapEff"], 16) == int(fields["CapInh"], 16) == 0
    assert int(fields["CapAmb"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"
    assert "0" not in fields["Uid"].split()


@behaviour
def only_the_home_is_writable(sandbox: Sandbox) -> None:
    code = """import os
found = []
for folder, folders, _ in os.walk("/"):
    folders[:] = [f for f in folders if os.path.join(folder, f) not in ("/proc", "/sys")]
    hidden = ["/box/0", "/box/1", "/box/build", "/dev/mqueue", "/dev/shm", os.getcwd()] if folder == "/" else []
    for place in [folder, *hidden]:
        try:
            open(os.path.join(place, "probe"), "w").close()
            found.append(place)
        except OSError:
            pass
print(os.getcwd() in found and all(os.path.samefile(place, ".") for place in found) or found)
"""
    assert one(sandbox, code, limits=Limits(6, 128)).stdout == "True\n"


@behaviour
def the_environment_tells_nothing(sandbox: Sandbox) -> None:
    os.environ["SDPO_TEST_SECRET"] = "secret"
    try:
        shown = one(sandbox, "import os; print(dict(os.environ))").stdout
    finally:
        del os.environ["SDPO_TEST_SECRET"]
    assert "secret" not in shown
    assert "SDPO" not in shown


@behaviour
def there_is_no_network(sandbox: Sandbox) -> None:
    result = one(sandbox, "import socket; socket.create_connection(('1.1.1.1', 53), 1)")
    assert result.status is ExecutionStatus.RUNTIME_ERROR
    interfaces = one(sandbox, "import os; print(open('/proc/net/dev').read().count(':'))")
    assert int(interfaces.stdout) <= 1  # the loopback


@behaviour
def no_test_sees_another(sandbox: Sandbox) -> None:
    code = """import os, signal, time
me = input()
open("secret", "w").write(me)
deadline = time.monotonic() + 0.4
reached = 0
while time.monotonic() < deadline:
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        if pid == os.getpid():
            continue
        for act in (lambda: os.kill(pid, signal.SIGCONT), lambda: open(f"/proc/{pid}/mem", "rb"),
                    lambda: os.listdir(f"/proc/{pid}/fd"), lambda: os.readlink(f"/proc/{pid}/cwd"),
                    lambda: open(f"/proc/{pid}/environ", "rb").read()):
            try:
                act()
                reached += 1
            except OSError:
                pass
    for slot in range(4):
        try:
            reached += open(f"/box/{slot}/home/secret").read() not in ("", me)
        except OSError:
            pass
print(reached)
"""
    wrapper = "import os\nprint(len([p for p in os.listdir('/proc') if p.isdigit()]))"
    results = sandbox.run(Program(code), [BoxInput("a"), BoxInput("b")], LIMITS)
    # In a namespace of its own a test may signal the two helpers that hold it, and nothing else is there.
    alone = int(one(sandbox, wrapper).stdout) <= 2
    for result in results:
        assert result.status is ExecutionStatus.OK, result
        assert result.stdout == "0\n" or alone


@behaviour
def no_test_writes_what_another_prints(sandbox: Sandbox) -> None:
    """Each test may open its own standard output by name."""
    code = """import os, time
me = input()
deadline = time.monotonic() + 0.4
while time.monotonic() < deadline:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for number in range(8) if pid != str(os.getpid()) else ():
            try:
                with open(f"/proc/{pid}/fd/{number}", "w") as file:
                    file.write(f"{me} was here")
            except OSError:
                pass
with open("/dev/stdout", "w") as out:
    out.write(f"this is {me}")
"""
    for first, second in (("a", "b"), ("b", "a")):
        results = sandbox.run(Program(code), [BoxInput(first), BoxInput(second)], LIMITS)
        for me, other, result in zip((first, second), (second, first), results, strict=True):
            assert result.status is ExecutionStatus.OK, result
            assert result.stdout.endswith(f"this is {me}")
            assert f"{other} was here" not in result.stdout + result.stderr


@behaviour
def no_test_finds_another_in_its_memory(sandbox: Sandbox) -> None:
    code = """import re
mine = input().encode()
found = set()
with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
    for line in maps:
        place, rights = line.split()[:2]
        first, last = (int(text, 16) for text in place.split("-"))
        if rights.startswith("r") and not line.rstrip().endswith("[vvar]"):
            try:
                memory.seek(first)
                found |= set(re.findall(rb"tok=[a-z]{8}", memory.read(last - first)))
            except (OSError, OverflowError, ValueError):
                pass
print(mine in found, found - {mine})
"""
    inputs = [BoxInput("tok=" + 8 * letter) for letter in "abcdef"]
    results = sandbox.run(Program(code), inputs, Limits(6, 256))
    assert [result.stdout for result in results] == ["True set()\n"] * 6, results


@behaviour
def nothing_is_carried_from_test_to_test(sandbox: Sandbox) -> None:
    code = """import os
print(sorted(os.listdir(".")), sorted(os.listxattr(".")))
open("left", "w").write("x")
os.mkdir("deep")
os.chmod("deep", 0)
if os.fork() == 0:
    os.setsid()
    while True: pass
"""
    results = sandbox.run(Program(code), [BoxInput()] * 6, LIMITS)
    assert {result.stdout for result in results} == {"['solution.py'] []\n"}


@behaviour
def a_daemon_that_keeps_the_output_open_does_not_delay(sandbox: Sandbox) -> None:
    code = "import os, time\nprint('done', flush=True)\nif os.fork() == 0:\n    os.setsid(); time.sleep(100)"
    began = time.monotonic()
    assert one(sandbox, code).stdout == "done\n"
    assert time.monotonic() - began < 5


@behaviour
def killing_the_runner_is_the_programs_error_or_fails(sandbox: Sandbox) -> None:
    code = """import os, signal
for pid in (1, os.getppid(), -1):
    try:
        if pid != os.getpid():
            os.kill(pid, signal.SIGKILL)
    except OSError:
        pass
raise SystemExit(5)
"""
    assert one(sandbox, code).status is ExecutionStatus.RUNTIME_ERROR
