"""Every command of the command line: its help has examples, and those and the READMEs' are run as printed.

Nothing is listed by hand but how a command is run; a new command without examples fails, and so does one that
nobody says how to run.
"""

import glob
import gzip
import itertools
import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner, Result

from sdpo_solve.cli.main import app, exit_code
from sdpo_solve.errors import SdpoSolveError
from tests.helpers.journals import Made, make
from tests.helpers.readmes import READMES, commands
from tests.helpers.tiny_model import save_tiny_model

ROOT = Path(__file__).parents[2]
NAME = "sdpo-solve"


def leaves(command=None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Every command that does something, with its names: ("model", "list")."""
    command = command or get_command(app)
    inside = getattr(command, "commands", None)
    if inside is None:
        yield path, command
        return
    for name, child in inside.items():
        yield from leaves(child, (*path, name))


COMMANDS = dict(leaves())


def examples(command) -> list[list[str]]:
    """The words of each example, without the program's name and without a redirection."""
    found = []
    for line in (command.epilog or "").splitlines():
        words = shlex.split(line)
        if words[:1] == [NAME]:
            found.append(words[1 : words.index(">") if ">" in words else None])
    return found


ALL = [(path, words) for path, command in COMMANDS.items() for words in examples(command)]


def of_readmes() -> list[tuple[tuple[str, ...], list[str]]]:
    """The commands that READMEs print and that are no example of `--help`."""
    lines = {line: shlex.split(line)[1:] for path in READMES for line in commands(path)}
    named = [
        (next((path for path in COMMANDS if tuple(words[: len(path)]) == path), ()), words)
        for words in lines.values()
    ]
    return [(path, words) for path, words in named if (path, words) not in ALL]


ALL_RUN = ALL + of_readmes()
# What stands in a README for something of the reader's: what the tests have of that kind.
PLACEHOLDERS = {
    "FILE": "problems/letter-tally.json", "RUN": "runs/first/inc/sdpo", "DIR": "runs/first",
    "NAME": "qwen2.5-coder-0.5b", "X": "qwen2.5-coder-0.5b", "ROWS.jsonl": "rows.jsonl", "IDS": "letter-tally", "MODEL": "tiny",
    "lcb:v6": "lcb:rows.jsonl",
}  # fmt: skip
# A README's command that cannot be run here, by a word of it, with the reason.
NOT_HERE = {
    "0.171": "it takes problems of MBPP+ that a screening of the real model chose",
    "http://localhost:8000": "it needs a running server: tests/engines/test_vllm_server.py starts one",
}


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*path, "--help"])
    assert result.exit_code == 0
    assert f"{NAME} {' '.join(path)}" in result.output
    found = examples(COMMANDS[path])
    assert found, f"{' '.join(path)} has no example in its help"
    assert all(tuple(words[: len(path)]) == path for words in found)
    assert max(map(len, result.output.splitlines())) <= 80


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_no_help_text_is_taken_for_markup(path: tuple[str, ...]) -> None:
    """Square brackets would vanish from the screen: `[default: 16]` is read as a style."""
    command = COMMANDS[path]
    texts = [command.help or "", *(getattr(parameter, "help", None) or "" for parameter in command.params)]
    assert not [text for text in texts if "[" in text]


@pytest.mark.parametrize(("path", "words"), ALL, ids=[" ".join(words) for _, words in ALL])
def test_every_example_is_a_line_that_its_command_takes(path: tuple[str, ...], words: list[str]) -> None:
    with COMMANDS[path].make_context(" ".join(path), list(words[len(path) :])):
        pass
    for word in words:
        if word.startswith("problems"):
            assert glob.glob(str(ROOT / word)), f"{word} is not in the repository"


# -- and now for real ----------------------------------------------------------------------------------------

# Run as they are.
PLAIN = {"schema", "model list", "export", "report", "show", "options", "new", "clean"}
# Run with scripted replies, of which the first group solves, and a real sandbox.
SCRIPTED = {"run", "batch", "screen"}
# Run as they are, in a real sandbox.
GRADED = {"grade", "check"}
# They look at, or make ready, the machine that the tests need anyway.
MACHINE = {"doctor", "setup", "model pull"}
# They need a run that has learned, or wait for a browser: run by their own tests.
ELSEWHERE = {"explain", "listen"}
# Measurements, which take minutes of a quiet machine: run with a tiny model and these sizes over their own. A
# missed target is an answer too.
TINY = ("--model", "tiny")
MEASURES: dict[str, tuple[str, ...]] = {
    "bench sampling": (*TINY, "--samples", "4", "--rows", "2", "--max-tokens", "6", "--rounds", "1"),
    "bench update": (
        *TINY, "--attempts", "2", "--question-tokens", "20", "--feedback-tokens", "10", "--answer-tokens", "10",
        "--rounds", "1",
    ),
    "bench forgetting": ("--first", "1", "--samples", "2"),
    "bench lesson": ("--group-size", "2", "--updates", "1"),
    "bench grading": ("--rounds", "1"),
}  # fmt: skip


def of(*groups: set[str]) -> list[pytest.param]:
    """The examples of these commands, with the mark of those that take minutes."""
    kept = set().union(*groups)
    return [
        pytest.param(words, id=" ".join(words), marks=[pytest.mark.slow] if takes_minutes(words) else [])
        for path, words in ALL_RUN
        if " ".join(path) in kept and not NOT_HERE.keys() & set(words)
    ]


def takes_minutes(words: list[str]) -> bool:
    """A whole batch of runs, every hostile program of `doctor --sandbox`, a process for each form of an update,
    and a `docker run` an attempt."""
    several = "--seeds" in words and words[0] != "bench" and "--dry-run" not in words
    return several or words[:2] in (["doctor", "--sandbox"], ["bench", "update"], ["bench", "grading"])


def test_every_command_is_in_one_of_the_groups() -> None:
    known = PLAIN | SCRIPTED | GRADED | MACHINE | ELSEWHERE | set(MEASURES)
    assert {" ".join(path) for path in COMMANDS} == known


ROW = {
    "question_title": "Three",
    "question_content": "Print three.",
    "platform": "atcoder",
    "question_id": "abc387_f",
    "contest_id": "abc387",
    "contest_date": "2025-03-01T00:00:00",
    "starter_code": "",
    "difficulty": "hard",
    "public_test_cases": json.dumps([{"input": "\n", "output": "3\n", "testtype": "stdin"}]),
    "private_test_cases": json.dumps([{"input": "x\n", "output": "3\n", "testtype": "stdin"}]),
    "metadata": "{}",
}

MBPP = {
    "task_id": "Mbpp/2",
    "prompt": '"""Write a function to double a number."""\n',
    "entry_point": "double",
    "canonical_solution": "\ndef double(n):\n    return 2 * n\n",
    "base_input": [[1], [2]],
    "plus_input": [[3], [4]],
    "atol": 0,
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that has what the examples speak of; `answer.py` and every reply solve all of it."""
    path = tmp_path / "problems" / "letter-tally.json"
    path.parent.mkdir()
    path.write_bytes((ROOT / "problems" / path.name).read_bytes())
    make(tmp_path / "runs" / "first", Made(solved_at=(6,)))
    make(tmp_path / "runs" / "first", Made(method="best-of-k"))
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW) + "\n")
    with gzip.open(tmp_path / "MbppPlus.jsonl.gz", "wt") as file:
        file.writelines(json.dumps({**MBPP, "task_id": f"Mbpp/{n}"}) + "\n" for n in range(2, 22))
    (tmp_path / "problems" / "discovery").symlink_to(ROOT / "problems" / "discovery")
    (tmp_path / "batch.toml").write_text('sources = "problems"\nseeds = 1\nout = "runs/of-file"\n')
    program = f"print(3)\n{json.loads(path.read_text())['reference']}"
    (tmp_path / "answer.py").write_text(program)
    reply = json.dumps({"text": f"```python\n{program}\n```"})
    (tmp_path / "replies").write_text(f"{reply}\n" * 2000)
    (tmp_path / "wrong").write_text('{"text": "no"}\n' * 2000)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(words: list[str], codes: tuple[int, ...] = (0,)) -> Result:
    """Run the words as a shell would pass them on, with something real for every placeholder."""
    words = [PLACEHOLDERS.get(word, word) for word in words]
    expanded = [path for word in words for path in (sorted(glob.glob(word)) if "*" in word else [word])]
    result = CliRunner().invoke(app, expanded)
    said = result.exception
    code = exit_code(said) if isinstance(said, SdpoSolveError) else result.exit_code
    assert code in codes, f"{result.output}\n{said!r}"
    assert said is None or isinstance(said, (SystemExit, SdpoSolveError)), repr(said)
    return result


@pytest.mark.parametrize("words", of(PLAIN))
def test_examples_that_need_no_machine(place: Path, words: list[str]) -> None:
    if "runs/screen" in words:  # a screening that has sampled the problem of the runs
        counts = {"n": 8, "solved": 0, "teacher_n": 0, "teacher_solved": 0, "tokens": 1}
        lines = [
            {"event": "screening", "config": {"model": "tiny at rest"}},
            {"event": "group", "problem": "inc", "digest": "d", **counts},
        ]
        (place / "runs" / "screen").mkdir()
        (place / "runs" / "screen" / "screening.jsonl").write_text(
            "".join(json.dumps(line) + "\n" for line in lines)
        )
    if "ROWS.jsonl" in words:
        rows = [ROW, {**ROW, "question_id": "inc"}]
        (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if "runs/lcb" in words:
        make(place / "runs" / "lcb", Made(solved_at=(6,)))
    result = invoke(words)
    written = [name for option, name in itertools.pairwise(words) if option in ("--html", "--png", "--out")]
    assert result.output.strip() or written
    assert all((place / name).stat().st_size > 50 for name in written)


@pytest.mark.docker
@pytest.mark.parametrize("words", of(SCRIPTED))
def test_examples_that_sample_with_scripted_replies(place: Path, words: list[str]) -> None:
    model = str(save_tiny_model(place / "tiny"))
    if words[0] == "screen" and not {"problems", "lcb:v6"} & set(words):
        words = [*words, "problems"]
    if "--model" in words or "--teacher" in words or "discovery" in " ".join(words):
        # A plan of hours is made, and not carried out; a screening is cut short.
        if "discovery" in " ".join(words):
            for path in (ROOT / "problems").glob("*.json"):
                (place / "problems" / path.name).write_bytes(path.read_bytes())
        short = (
            ["--dry-run"] if words[0] == "batch" else ["--max-tokens", "8", "--attempts", "2", "--first", "1"]
        )
        invoke([*words, *short, "--model", model])
        return
    if "--only" in words:  # it reads a screening
        invoke(["screen", "lcb:v6", "--attempts", "300", "--engine", "scripted", "--replies", "wrong"])
    scripted = ["--engine", "scripted", "--replies", "replies"]
    # What only a model reads would be refused with replies alone.
    result = invoke([*words, *scripted, *(["--model", model] if "--max-tokens" in words else [])])
    if words[0] == "run":
        assert json.loads(result.stdout)["solved"] if "--json" in words else "solved at" in result.output


@pytest.mark.docker
@pytest.mark.parametrize("words", of(GRADED))
def test_examples_that_grade(place: Path, words: list[str]) -> None:
    invoke(words)


@pytest.mark.docker
@pytest.mark.model
@pytest.mark.parametrize("words", of(MACHINE))
def test_examples_that_look_after_the_machine(place: Path, words: list[str]) -> None:
    # That something is missing (another model, another runtime) is an answer of `doctor` too.
    invoke(words, (0, 3) if words[0] == "doctor" else (0,))


@pytest.mark.docker
@pytest.mark.parametrize("words", of(set(MEASURES)))
def test_examples_that_measure(place: Path, words: list[str]) -> None:
    save_tiny_model(place / "tiny")
    (place / "problems" / "other.json").write_bytes((ROOT / "problems" / "word-lengths.json").read_bytes())
    if {"RUN", "RUNS"} & set(words):  # one that failed, learned, and then solved its problem
        (place / "mixed").write_text('{"text": "no"}\n' * 2 + (place / "replies").read_text())
        learned = "--engine scripted --replies mixed --attempts 4 --group-size 2 --max-tokens 8 --keep-going"
        each = "--set sdpo.preset=paper --set learner.min_gap=0"  # an update after each group
        invoke(["run", "problems/letter-tally.json", *TINY, *f"{learned} {each}".split(), "--out", "learned"])
        words = ["learned" if word in ("RUN", "RUNS") else word for word in words]
    result = invoke([*words, *MEASURES[" ".join(words[:2])]], (0, 1))
    assert json.loads(result.stdout) if "--json" in words else len(result.stdout.splitlines()) > 1
