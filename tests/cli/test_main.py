"""The command line as a user meets it: real processes, real containers, scripted replies, exit codes."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.helpers.command import PROBLEM, RIGHT, SLOW, VISIBLE_ONLY, WRONG, Place, one_line


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# -- what needs no container ---------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [("model", "list"), ("schema",)])
def test_an_output_that_nobody_reads_is_not_an_answer(place: Place, arguments: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        place.command(*arguments), stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False
    )
    os.close(writing)
    assert done.returncode == 141
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "inc.json", "--methd", "sdpo"), "No such option: --methd"),
        (
            ("run", "inc.json", "--method", "grpo"),
            "unknown method 'grpo' (known: best-of-k, multi-turn, sdpo)",
        ),
        (("run", "inc.json", "--engine", "magic"), "unknown engine 'magic'"),
        (("run", "inc.json", "--sandbox", "host"), "unknown sandbox 'host'"),
        (
            ("grade", "inc.json", "inc.py", "--set", "sandbox.parallel=1"),
            "say of which with --sandbox bubblewrap or docker",
        ),
        (
            ("check", "inc.json", "--runtime", "runsc", "--set", "sandbox.separate=uid"),
            "no sandbox has the options runtime, separate",
        ),
        (
            ("check", "inc.json", "--sandbox", "bubblewrap", "--runtime", "runsc"),
            "sandbox has no option 'runtime'",
        ),
        (("run", "inc.json", "--engine", "scripted"), "needs --replies FILE"),
        (
            ("run", "inc.json", "--engine", "scripted", "--replies", "x", "--set", "learner.lr=1e-3"),
            "--set learner.lr would do nothing",
        ),
        (("run", "inc.json", "--replies", "inc.json"), "--replies is for --engine scripted"),
        (("run", "inc.json", "--attempts", "0"), "--attempts must be at least 1 (got 0)"),
        (("run", "inc.json", "--feedback-mode", "x"), "--feedback-mode must be 'public', 'paper' or 'all'"),
        (("run", "inc.json", "--from", "May"), "--from must be a date such as 2025-02-01 (got 'May')"),
        (("run", "inc.json", "--set", "learner.lr=-1"), "--set learner.lr must be "),
        (("run", "inc.json", "--set", "learner.lrr=1"), "learner has no option 'lrr'; did you mean lr?"),
        (
            ("run", "inc.json", "--method", "best-of-k", "--set", "learner.lr=1"),
            "there is no part 'learner' here",
        ),
        (("run", "inc.json", "--method", "multi-turn", "--group-size", "4"), "leave --group-size out"),
        (("run", "inc.json", "--set", "sdpo.teacher=both"), "add --keep-going"),
        (("run", "nothing.json"), "nothing.json"),
        (("run", "web:thing"), "unknown source 'web:thing'"),
        (("grade", "inc.json", "nothing.py"), "cannot read nothing.py"),
        (("rnu",), "No such command 'rnu'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(place: Place, arguments: tuple[str, ...], said: str) -> None:
    done = place(*arguments)
    assert done.returncode == 2, done.stderr
    assert said in one_line(done.stderr)
    assert done.stdout == ""


def test_a_model_that_is_not_here_is_exit_code_3_with_the_command(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDPO_SOLVE_CACHE", str(place.path / "empty"))
    done = place("doctor")
    assert done.returncode == 3
    assert "sdpo-solve model pull" in done.stdout


def test_doctor_says_what_a_model_takes_and_whether_it_fits(place: Place) -> None:
    from tests.helpers.tiny_model import save_tiny_model

    said = place("doctor", "--model", str(save_tiny_model(place.path / "tiny"))).stdout
    assert "this machine's memory, engine hf:" in said
    assert "one GPU for vLLM and the learner:" in said
    assert "GB here: fits" in said
    record = json.loads(place("doctor", "--model", str(place.path / "tiny"), "--json").stdout)
    assert record["model"]["level"] in ("learns", "samples")
    assert record["model"]["memory"][0]["fits"] is True
    assert all(check["ok"] or not check["needed"] for check in record["checks"]) is record["ok"]


def test_names_of_models_are_whole_in_a_narrow_terminal(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    listed = place("model", "list").stdout
    assert "qwen2.5-coder-0.5b (default)" in listed
    assert "…" not in listed
    assert max(map(len, listed.splitlines())) <= 40


@pytest.mark.parametrize("flags", [("--sandbox", "docker"), ("--runtime", "runsc")], ids=" ".join)
def test_no_docker_engine_is_exit_code_3_with_what_to_do(
    place: Place, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    """Also where only `--runtime` asks for Docker: bubblewrap has none and is not tried instead."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    (place.path / "inc.py").write_text("def inc(x):\n    return x + 1\n")
    done = place("grade", "inc.json", "inc.py", *flags)
    assert done.returncode == 3
    assert one_line(done.stderr) == (
        "sdpo-solve: no Docker engine answers (No such file or directory); "
        "DOCKER_HOST is unix:///nowhere/docker.sock: start that engine, or unset it"
    )


@pytest.mark.docker
@pytest.mark.parametrize("flags", [("--runtime", "nope"), ("--set", "sandbox.runtime=nope")], ids=" ".join)
def test_a_runtime_unknown_to_docker_is_exit_code_3_and_a_known_one_is_used(
    place: Place, flags: tuple[str, ...]
) -> None:
    (place.path / "inc.py").write_text("def inc(x):\n    return x + 1\n")
    done = place("grade", "inc.json", "inc.py", *flags)
    assert done.returncode == 3
    assert "the Docker engine has no runtime 'nope' (known: " in one_line(done.stderr)
    known = [flag.replace("nope", "runc") for flag in flags]
    assert place("grade", "inc.json", "inc.py", *known).returncode == 0


def test_help_and_version(place: Place) -> None:
    assert place("--version").stdout.startswith("sdpo-solve ")
    listed = place("--help").stdout
    for command in ("run", "grade", "check", "setup", "doctor", "model", "schema", "report"):
        assert command in listed
        assert "Examples" in place(command, "--help").stdout or command == "model"


def test_the_schema_is_json_and_accepts_the_problem(place: Place) -> None:
    import jsonschema

    schema = json.loads(place("schema").stdout)
    jsonschema.validate(PROBLEM, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**PROBLEM, "kind": "stdio"}, schema)


# -- what starts containers ----------------------------------------------------------------------------------


@pytest.mark.docker
def test_grade_json_is_the_contract(place: Place) -> None:
    (place.path / "answer.py").write_text("def inc(x):\n    return 2\n")
    done = place("grade", "inc.json", "answer.py", "--json")
    assert done.returncode == 1
    verdict = json.loads(done.stdout)
    assert (verdict["solved"], verdict["passed_visible"], verdict["passed_hidden"]) == (False, True, False)
    assert [case["status"] for case in verdict["cases"]] == ["accepted", "wrong_answer"]
    assert verdict["sandbox"].startswith("docker")
    assert set(verdict["cases"][0]) == {"status", "visible", "cpu_s", "wall_s"}


@pytest.mark.docker
def test_check_tells_right_from_wrong(place: Place) -> None:
    assert place("check", "inc.json").returncode == 0
    bad = {**PROBLEM, "id": "bad", "reference": "def inc(x):\n    return x\n"}
    (place.path / "bad.json").write_text(json.dumps(bad))
    done = place("check", "inc.json", "bad.json")
    assert done.returncode == 1
    for fact in ("the reference fails", "visible", "hidden", "wrong answer"):
        assert fact in done.stdout
    (place.path / "torn.json").write_text('{"id": ')
    done = place("check", "inc.json", "torn.json", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["right"] == {"inc": True}


@pytest.mark.docker
def test_check_judges_a_reference_in_its_own_language(place: Place) -> None:
    code = '#include <cstdio>\nint main() { int n; scanf("%d", &n); printf("%d\\n", 2 * n); }\n'
    (place.path / "ref.cpp").write_text(code)
    test = {"input": "2\n", "expected": "4\n", "visible": True}
    double = {"id": "double", "kind": "stdin", "statement": "s", "tests": [test], "reference": "ref.cpp"}
    (place.path / "double.json").write_text(json.dumps(double))
    done = place("check", "double.json", "inc.json", "--sandbox", "bubblewrap")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.docker
def test_run_json_is_the_contract(place: Place) -> None:
    place.replies(WRONG, VISIBLE_ONLY, RIGHT, WRONG)
    done = place.run("--method", "best-of-k", "--group-size", "2", "--attempts", "4", "--json")
    assert done.returncode == 0
    result = json.loads(one_line(done.stdout))
    assert set(result) == {
        "solved", "status", "discovery_time", "attempts", "tokens", "wall_s", "confirmed", "method", "model", "seed", "out", "program",
    }  # fmt: skip
    assert (result["solved"], result["discovery_time"], result["attempts"]) == (True, 3, 4)
    assert result["confirmed"] is True
    assert (place.path / result["out"] / "solution.py").read_text().strip() == "def inc(x):\n    return x + 1"
    kinds = [event["event"] for event in place.events("best-of-k")]
    assert kinds == [
        "run_started", "prompt", "attempt", "attempt", "group", "attempt", "attempt", "group", "run_finished",
    ]  # fmt: skip


@pytest.mark.docker
def test_a_spent_budget_is_exit_code_1_and_running_out_of_replies_4(place: Place) -> None:
    place.replies(WRONG, WRONG, WRONG)
    assert place.run("--method", "best-of-k", "--group-size", "1", "--attempts", "2").returncode == 1
    done = place.run("--method", "best-of-k", "--group-size", "2", "--attempts", "4", "--seed", "1")
    assert done.returncode == 4
    assert "replies.jsonl holds 3 replies" in done.stderr.splitlines()[-1]


@pytest.mark.docker
def test_a_run_without_weights_learns_nothing_and_still_solves(place: Place) -> None:
    place.replies(WRONG, RIGHT)
    done = place.run("--method", "sdpo", "--group-size", "1", "--attempts", "2", "--json")
    assert json.loads(done.stdout)["discovery_time"] == 2
    assert "update" not in [event["event"] for event in place.events("sdpo")]


@pytest.mark.docker
def test_multi_turn_reads_the_feedback_of_every_earlier_attempt(place: Place) -> None:
    place.replies(WRONG, VISIBLE_ONLY, "no code", RIGHT)
    assert place.run("--method", "multi-turn", "--attempts", "4").returncode == 0
    prompts = [e["messages"][-1]["content"] for e in place.events("multi-turn") if e["event"] == "prompt"]
    assert len(prompts) == 4
    assert "Output: 1\nExpected: 2" in prompts[1]
    assert "fails a hidden test" in prompts[2]
    assert "holds no program" in prompts[3]
    assert (
        prompts[3].index("Expected: 2")
        < prompts[3].index("hidden test")
        < prompts[3].index("holds no program")
    )
    assert "return 2" not in prompts[3]


@pytest.mark.docker
def test_other_options_do_not_mix_with_an_old_run(place: Place) -> None:
    place.replies(WRONG, WRONG)
    place.run("--method", "best-of-k", "--group-size", "1", "--attempts", "2")
    done = place.run("--method", "best-of-k", "--group-size", "1", "--attempts", "2", "--keep-going")
    assert done.returncode == 2
    assert "options.keep_going = False, now it is True" in one_line(done.stderr)


@pytest.mark.docker
def test_a_run_that_was_begun_before_there_was_an_option_goes_on_with_its_default(place: Place) -> None:
    place.replies(WRONG, WRONG, WRONG)
    one_by_one = ("--method", "best-of-k", "--group-size", "1", "--attempts", "2")
    assert place.run(*one_by_one).returncode == 1
    path = place.path / "out/inc/best-of-k/seed-0/config.json"
    written = json.loads(path.read_text())
    del written["parts"]["feedback"]["total_chars"], written["options"]["thinking"]
    path.write_text(json.dumps(written))
    assert place.run(*one_by_one).returncode == 1
    done = place.run(*one_by_one, "--set", "feedback.total_chars=777")
    assert done.returncode == 2
    assert "parts.feedback.total_chars = 2000, now it is 777" in one_line(done.stderr)


@pytest.mark.docker
def test_what_grades_cannot_change_in_the_middle_of_a_run(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.replies(WRONG, WRONG)
    one_by_one = ("--method", "best-of-k", "--group-size", "1", "--attempts", "2")
    assert place.run(*one_by_one).returncode == 1
    written = json.loads((place.path / "out/inc/best-of-k/seed-0/config.json").read_text())
    assert written["grader"]["identity"].startswith("docker")
    assert written["versions"]["sdpo-solve"]
    assert place.run(*one_by_one, "--sandbox", "docker").returncode == 1  # the same, by its name
    for other in (("--sandbox", "bubblewrap"), ("--sandbox", "docker", "--set", "sandbox.memory_mb=512")):
        done = place.run(*one_by_one, *other)
        assert done.returncode == 2, done.stderr
        assert "holds a run with grader." in one_line(done.stderr)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    done = place.run(*one_by_one)
    assert done.returncode == 2, done.stderr
    assert "now it is 'bubblewrap" in one_line(done.stderr)
    assert "bring that one back or choose another --out" in done.stderr


@pytest.mark.docker
def test_a_mistake_in_the_language_leaves_nothing_behind(place: Place) -> None:
    place.replies(WRONG, WRONG)
    one_by_one = ("--method", "best-of-k", "--group-size", "1", "--attempts", "2")
    done = place.run(*one_by_one, "--language", "cpp", "--sandbox", "bubblewrap")
    assert done.returncode == 2
    assert "inc is a problem of kind function, which needs --language python" in one_line(done.stderr)
    assert done.stdout == ""
    assert not (place.path / "out").exists()
    assert place.run(*one_by_one).returncode == 1


@pytest.mark.parametrize("command", ["run", "batch", "screen"])
def test_an_out_that_is_a_file_is_said_first(place: Place, command: str) -> None:
    place.replies(WRONG)
    done = place(command, "inc.json", "--engine", "scripted", "--replies", "replies.jsonl",
                 "--out", "inc.json/x")  # fmt: skip
    assert done.returncode == 2
    assert "--out inc.json/x: " in one_line(done.stderr)
    assert "inc.json is a file; choose another --out" in done.stderr


def containers(process: int) -> list[str]:
    """The boxes that a process of ours has started and that are still there."""
    chosen = ["--filter", f"label=sdpo-solve.box={process}"]
    listed = subprocess.run(["docker", "ps", "-aq", *chosen], capture_output=True, text=True, check=True)
    return listed.stdout.split()


@pytest.mark.docker
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_an_interrupted_run_leaves_no_container_and_goes_on(place: Place, number: int, code: int) -> None:
    place.replies(WRONG, SLOW, SLOW, RIGHT)
    arguments = ("run", "inc.json", "--engine", "scripted", "--replies", "replies.jsonl", "--out", "out",
                 "--method", "best-of-k", "--group-size", "1", "--attempts", "4")  # fmt: skip
    process = subprocess.Popen(place.command(*arguments), cwd=place.path, stderr=subprocess.PIPE, text=True)
    journal = place.path / "out/inc/best-of-k/seed-0/journal.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (journal.exists() and '"group"' in journal.read_text()):
        time.sleep(0.1)
    time.sleep(1)  # the second attempt sleeps in its box now
    assert containers(process.pid)
    os.kill(process.pid, number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == code, said
    if number == signal.SIGINT:
        assert "interrupted; the same command goes on" in said
    for _ in range(100):
        if not containers(process.pid):
            break
        time.sleep(0.1)
    assert not containers(process.pid)
    assert [e["event"] for e in place.events("best-of-k")][-1] == "group"
    done = place.run("--method", "best-of-k", "--group-size", "1", "--attempts", "4", "--json")
    assert json.loads(done.stdout)["discovery_time"] == 4
