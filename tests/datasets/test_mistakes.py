"""Typical mistakes in a problem file: each is named with its place and a remedy, all of a file at once."""

import json
from typing import Any

import pytest

from sdpo_solve.datasets import problem_json
from sdpo_solve.errors import ProblemError

STDIN = """{
  "id": "sum-two",
  "statement": "Add two numbers.",
  "kind": "stdin",
  "limits": {"time_s": 2},
  "tests": [
    {"input": "1 2\\n", "expected": "3\\n", "visible": true},
    {"input": "5 5\\n", "expected": "10\\n", "visible": false}
  ]
}
"""
FUNCTION = """{
  "id": "half",
  "statement": "Halve a number.",
  "kind": "function",
  "entry_point": "half",
  "starter_code": "def half(x):",
  "tests": [{"input": [3], "expected": 1.5, "visible": true}]
}
"""
ASSERTS = """{
  "id": "pair",
  "statement": "Return a pair.",
  "kind": "asserts",
  "entry_point": "pair",
  "tests": [{"input": "assert pair(1) == (1, 1)", "visible": true}]
}
"""


def mistakes(text: str) -> list[str]:
    with pytest.raises(ProblemError) as caught:
        problem_json.parse_text(text, "p.json")
    lines = caught.value.mistakes
    assert str(caught.value).startswith(lines[0])
    for line in lines:
        assert line.startswith("p.json: ")
        assert "\n" not in line
    return [line.removeprefix("p.json: ") for line in lines]


# What is replaced in a sound file, by what, and the facts of the one line that must come of it.
OF_STDIN: dict[str, tuple[str, str, str, str]] = {
    # how JSON is written
    "comma after the last test": ("false}\n  ]", "false},\n  ]", "line 8", "comma after the last"),
    "comma after the last key": ("  ]\n}", "  ],\n}", "line 9", "comma after the last"),
    "two commas": ('"stdin",', '"stdin",,', "line 4", "comma too many"),
    "comma missing between keys": ('"stdin",', '"stdin"', "line 5", "comma is missing"),
    "comma missing between tests": ("true},", "true}", "line 8", "comma is missing"),
    "semicolon": ('"stdin",', '"stdin";', "line 4", "write a comma"),
    "line comment": ('"stdin",', '"stdin", // what it is', "line 4", "comment"),
    "comment with a hash": ("{\n  ", '{\n # mine\n  ', "line 2", "comment"),
    "block comment": ('"stdin"', '/* or\n function */ "stdin"', "line 4", "comment"),
    "single quotes": ('"stdin"', "'stdin'", "line 4", "double quotes"),
    "curly quotes": ('"stdin"', "“stdin”", "line 4", "straight"),
    "Python's True": ("true", "True", "line 7", "write true"),
    "Python's None": ("{\n  ", '{\n "reference": None,\n ', "line 2", "null"),
    "key without quotes": ('"kind"', "kind", "line 4", "key without quotes"),
    "text without quotes": ('"stdin"', "stdin", "line 4", "text without quotes"),
    "= after a key": ('"kind":', '"kind" =', "line 4", "colon"),
    "line break within a text": ("Add two", "Add\ntwo", "line 3", "write \\n"),
    "tab within a text": ("Add two", "Add\ttwo", "line 3", "write \\t"),
    "backslash": ("Add two", "Add \\d two", "line 3", "write \\\\d"),
    "quote within a text": ("Add two", 'Add "two"', "line 3", 'write \\"'),
    "text not closed": ('numbers.",', "numbers.,", "line 3", "closing quote"),
    "text not opened": ('"stdin"', 'stdin"', "line 4", "opening quote"),
    "sentence not opened": ('"Add two', "Add two", "line 3", "opening quote"),
    "key not closed": ('"kind"', '"kind', "line 4", "closing quote"),
    "key not opened": ('"kind"', 'kind"', "line 4", "opening quote"),
    "last bracket missing": ("  ]\n}\n", "  ]\n", "line 1", "{ is never closed"),
    "bracket of the tests missing": ("  ]\n}\n", "", "line 6", "[ is never closed"),
    "triple quotes": ('"Add two numbers."', '"""Add\ntwo numbers."""', "line 3", "triple quotes"),
    "raw text": ('"stdin"', 'r"stdin"', "line 4", "letter before the quote"),
    "number with underscores": ('_s": 2', '_s": 1_0', "line 5", "no number of JSON"),
    "number with a leading zero": ('_s": 2', '_s": 02', "line 5", "no number of JSON"),
    "number without a digit first": ('_s": 2', '_s": .5', "line 5", "no number of JSON"),
    "infinity": ('_s": 2', '_s": Infinity', "limits.time_s", "finite"),
    "number too large": ('_s": 2', '_s": 1e999', "limits.time_s", "finite"),
    "monster integer": ('_s": 2', '_s": ' + "9" * 4301, "limits.time_s", "finite"),
    "key twice": ('"kind"', '"id": "other",\n  "kind"', "line 4, id", "twice"),
    "lone surrogate": ("Add two", "Add \\ud800", "line 3, statement", "surrogate"),
    "two objects": ("]\n}\n", "]\n}\n{}\n", "line 11", "one problem a file"),
    # keys
    "misspelt key": ('"statement"', '"statment"', "line 3, statment: unknown", "'statement'"),
    "key in capitals": ('"kind"', '"Kind"', "line 4, Kind: unknown", "'kind'"),
    "misspelt key of a test": ('"visible": true', '"visble": true', "tests[0].visble: unknown", "'visible'"),
    "key of another format": ('"statement"', '"description"', "line 3, description", "'statement'"),
    "examples for tests": ('"tests"', '"examples"', "line 6, examples", "'tests'"),
    "output for expected": ('"expected": "3', '"output": "3', "line 7, tests[0].output", "'expected'"),
    "hidden for visible": ('"visible": false', '"hidden": true', "line 8", "opposite"),
    "time limit at the top": ('"limits": {"time_s": 2}', '"timeout": 2', "line 5", "'limits.time_s'"),
    "unit left out": ('"time_s"', '"time"', "limits.time: unknown", "'time_s'"),
    "key of another kind": ('"kind"', '"entry_point": "f", "kind"', "entry_point", "kind function"),
    "key of nothing": ('"kind"', '"colour": "red", "kind"', "colour: unknown key", "meta"),
    "no visible": (', "visible": true', "", "line 7, tests[0].visible", "feedback may quote"),
    "no statement": ('  "statement": "Add two numbers.",\n', "", "statement: it is missing", "add it"),
    "no kind": ('  "kind": "stdin",\n', "", "kind is missing", '"stdin"'),
    # values
    "kind in other words": ('"stdin"', '"StdIO"', "line 4, kind", "did you mean 'stdin'?"),
    "id with blanks": ("sum-two", "sum two/1", "line 2, id", '"sum-two-1"'),
    "empty statement": ("Add two numbers.", " ", "line 3, statement", "empty"),
    "statement as lines": ('"Add two numbers."', '["Add", "two"]', "line 3, statement", "joined by \\n"),
    "visible in quotes": ("true", '"true"', "line 7, tests[0].visible", "without quotes"),
    "visible as a number": ("true", "1", "line 7, tests[0].visible", "true or false"),
    "expected as a number": ('"3\\n"', "3", 'line 7, tests[0].expected: got 3', '"3\\n"'),
    "expected as true": ('"3\\n"', "true", "line 7, tests[0].expected: got true", "text"),
    "input as a list": ('"1 2\\n"', "[1, 2]", "line 7, tests[0].input", '"1 2\\n"'),
    "input as a table": ('"1 2\\n"', '{"a": 1}', "line 7, tests[0].input", "kind function"),
    "test as a list": ('{"input": "1 2\\n", "expected": "3\\n", "visible": true}', '["1 2", "3"]',
                       "line 7, tests[0]", '{"input"'),
    "limits as a number": ('{"time_s": 2}', "2", "line 5, limits", '{"time_s"'),
    "seconds in words": ('_s": 2', '_s": "2 s"', "line 5, limits.time_s", "number"),
    "negative seconds": ('_s": 2', '_s": -2', "line 5, limits.time_s: got -2", "greater than 0"),
    "bytes for megabytes": ('"time_s": 2', '"memory_mb": 536870912', "limits.memory_mb", "at most"),
    "unknown checker": ('"kind"', '"checker": "fuzzy", "kind"', "checker", '"tokens"'),
    "checker that is not there": ('"kind"', '"checker": {"program": "c.py"}, "kind"', "checker", "c.py"),
    "reference as a file": ('"kind"', '"reference": "answer.py", "kind"', "reference", "beside it"),
    "contradiction": ('"5 5\\n"', '"1 2\\n"', "line 8, tests[1].expected", "tests[0]"),
}  # fmt: skip
OF_FUNCTION = {
    "no entry point": ('  "entry_point": "half",\n', "", "entry_point: it is missing", "tests call"),
    "call as entry point": ('_point": "half"', '_point": "half(x)"', "entry_point", ': "half"'),
    "keyword as entry point": (
        '"half",\n  "starter_code": "def half(x):"',
        '"class"',
        "entry_point",
        "keyword",
    ),
    "another name in the starter": ("def half", "def halve", "starter_code", "entry_point says 'half'"),
    "argument without a list": ('"input": [3]', '"input": 3', "tests[0].input: got 3", "[3]"),
    "arguments by name": ('"input": [3]', '"input": {"x": 3}', "tests[0].input", "[3]"),
    "tuple": ('"input": [3]', '"input": (3, 4)', "line 7", "list: [ ]"),
    "checker of stdin": ('"kind"', '"checker": "tokens", "kind"', "checker", '{"float": 1e-6}'),
    "nodes": ("def half(x):", "def half(x: ListNode):", "starter_code", "ListNode"),
    "in place": ("def half(x):", "def half(x) -> None:", "starter_code", "in place"),
}
OF_ASSERTS = {
    "not an assert": ("assert pair(1) == (1, 1)", "pair(1)", "tests[0].input", "assert"),
    "another function": ("assert pair(1)", "assert open(1)", "tests[0].input", "open"),
    "no text": ('"assert pair(1) == (1, 1)"', "[1]", "tests[0].input", "joined"),
    "checker": ('"kind"', '"checker": "exact", "kind"', "checker: unknown key", "stdin and function"),
}
ALL = [
    (text, *case)
    for text, cases in ((STDIN, OF_STDIN), (FUNCTION, OF_FUNCTION), (ASSERTS, OF_ASSERTS))
    for case in cases.values()
]


@pytest.mark.parametrize(
    ("sound", "old", "new", "place", "fact"), ALL, ids=[*OF_STDIN, *OF_FUNCTION, *OF_ASSERTS]
)
def test_a_mistake_is_named_with_place_and_remedy(
    sound: str, old: str, new: str, place: str, fact: str
) -> None:
    problem_json.parse_text(sound, "p.json")
    assert old in sound
    (line,) = mistakes(sound.replace(old, new, 1))
    assert place in line
    assert fact in line


def test_all_mistakes_of_a_file_come_at_once_in_their_order() -> None:
    text = (
        STDIN.replace('"sum-two",', "'sum two',  # mine")
        .replace('"statement"', '"statment"')
        .replace("true", "True")
        .replace('"10\\n"', "10")
    )
    found = mistakes(text)
    places = ["line 2: a text in single", "line 2, id", "line 2: a comment", "line 3, statment", "line 7: "]
    assert len(found) == 6
    for line, place in zip(found, [*places, "line 8, tests[1].expected"], strict=True):
        assert place in line


@pytest.mark.parametrize(
    ("old", "new", "fact"),
    [
        ("  ]\n}\n", "  ]\n", "{ is never closed"),
        ("  ]\n}\n", "", "[ is never closed"),
        ("false}\n  ]\n}\n", "false", "{ is never closed"),
        ('"kind":', '"kind" @', "broken JSON"),
        ('numbers."', "numbers", "closing quote"),
        ('"meta"', '"meta": ' + "[" * 100_000 + ', "a"', "nested too deep"),
        ("]\n}\n", "]\n}\n{}\n", "second object"),
    ],
)
def test_a_key_twice_beside_what_cannot_be_read(old: str, new: str, fact: str) -> None:
    """Where keys stand is known only of what can be read."""
    twice = STDIN.replace('"5 5\\n",', '"5 5\\n", "input": "3\\n",').replace('"kind"', '"meta": {}, "kind"')
    assert old in twice
    found = mistakes(twice.replace(old, new, 1))
    assert any(fact in line for line in found)


def test_a_python_literal_is_read_as_it_was_meant() -> None:
    data: dict[str, Any] = json.loads(STDIN)
    del data["tests"][0]["visible"]
    found = mistakes(repr(data))
    assert [word for word in ("single quotes", "Python word", "visible") for line in found if word in line]
    assert len(found) == 3


def test_the_same_mistake_in_many_tests_is_one_line() -> None:
    data = json.loads(STDIN)
    data["tests"] = [{"input": f"{n}\n", "expected": "1\n"} for n in range(50)]
    (line,) = mistakes(json.dumps(data, indent=1))
    assert "tests[0].visible" in line
    assert "49 more" in line


def test_a_remedy_is_never_in_the_notation_of_python() -> None:
    for value in (True, None, ["a"], {"a": None}, 1.5):
        for key in ("input", "expected", "visible"):
            data = json.loads(STDIN)
            data["tests"][0][key] = value
            for line in mistakes(json.dumps(data)) if (key, value) not in SOUND else ():
                assert not any(word in line for word in ("True", "None", "'a'"))


SOUND = (("visible", True), ("expected", ["a"]))


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_file_points_to_new(text: str) -> None:
    (line,) = mistakes(text)
    assert "sdpo-solve new" in line


@pytest.mark.parametrize("text", ["[" * 100_000, '{"meta": ' + "[" * 150 + "]" * 150 + "}"])
def test_deep_nesting_is_refused(text: str) -> None:
    assert any("nested too deep" in line for line in mistakes(text))


@pytest.mark.parametrize("text", [f"[{STDIN}]", "3", '"text"', "null"])
def test_what_is_no_object_is_refused(text: str) -> None:
    (line,) = mistakes(text)
    assert "one JSON object" in line


def test_a_byte_order_mark_and_a_schema_are_understood() -> None:
    text = "\ufeff" + STDIN.replace("{\n", '{\n  "$schema": "problem.schema.json",\n', 1)
    assert problem_json.parse_text(text, "p.json").id == "sum-two"
