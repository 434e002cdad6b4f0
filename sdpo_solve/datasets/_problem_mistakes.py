"""What is wrong with the values of a problem file, from pydantic's errors and from what they cannot say."""

from __future__ import annotations

import difflib
import json
import keyword
import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from sdpo_solve.config import fault_words
from sdpo_solve.datasets._mistakes import Mistake
from sdpo_solve.datasets._statements import starter_fault
from sdpo_solve.errors import ProblemError
from sdpo_solve.grading.asserts import parse
from sdpo_solve.grading.checkers import texts_match, values_match
from sdpo_solve.sanitize import middle_cut
from sdpo_solve.types import Checker

# Keys by the names that other formats have for them.
_OTHER_NAMES = {
    "id": "name title slug problem_id task_id",
    "statement": "description question prompt problem text problem_statement content",
    "tests": "examples cases samples test_list",
    "input": "stdin in inputs args arguments",
    "expected": "output out stdout answer ans result outputs returns",
    "visible": "public shown sample hidden private",
    "limits.time_s": "timeout time time_limit",
    "limits.memory_mb": "memory memory_limit",
    "reference": "solution code canonical_solution",
    "entry_point": "function func fn function_name method",
    "starter_code": "signature template starter stub skeleton",
    "kind": "type",
    "checker": "tolerance eps judge",
    "meta": "notes note comment author source url tags difficulty",
}
_KEY_OF = {name: key for key, names in _OTHER_NAMES.items() for name in names.split()}
_TEST = '{"input": ..., "expected": ..., "visible": true}'
_ASSERTS_TEST = '{"input": "assert f(1) == 2", "visible": true}'
_STEPS_OF_UNIONS = re.compile(
    r"^(literal\[|constrained-|list\[|FloatChecker$|TokensChecker$|ProgramChecker$)"
)


def value_mistakes(
    exc: ValidationError,
    model: type[BaseModel],
    others: Mapping[str, type[BaseModel]],
    data: Mapping[str, Any],
) -> list[Mistake]:
    """One mistake a place. `model`: the file's kind; `others`: those of the other kinds."""
    found: dict[str, Mistake] = {}
    meant: set[str] = set()
    faults = sorted(exc.errors(include_url=False), key=lambda fault: fault["type"] == "missing")
    for fault in faults:
        steps = [step for step in fault["loc"] if not _STEPS_OF_UNIONS.match(str(step))]
        if not steps:  # a key with a lone surrogate: named already
            continue
        steps = steps[:1] if steps[0] == "checker" else steps
        if len(steps) > 1 and steps[-1] == "str":
            steps.pop()
        place = _path(steps)
        if place in found or place in meant:
            continue
        match fault["type"]:
            case "extra_forbidden":
                key, remedy = _other_key(str(steps[-1]), _holder(model, steps[:-1]), others)
                meant.add(_path([*steps[:-1], key.partition(".")[0]]) if key else "")
                found[place] = Mistake(place, "unknown key", remedy)
            case "missing":
                found[place] = Mistake(place, "it is missing", f"add it{_example(str(steps[-1]))}")
            case _:
                what, remedy = _wrong_value(fault, steps, str(data.get("kind")), data)
                found[place] = Mistake(place, what, remedy)
    return [*found.values()]


def _path(steps: Sequence[str | int]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")


def _holder(model: type[BaseModel], steps: Sequence[str | int]) -> type[BaseModel]:
    """The model of the object at `steps` of a file."""

    def models(kind: Any) -> list[type[BaseModel]]:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return [kind]
        return [one for arg in get_args(kind) for one in models(arg)]

    for step in steps:
        if isinstance(step, str):
            model = next(iter(models(model.model_fields[step].annotation)), model)
    return model


def _example(key: str) -> str:
    return {
        "visible": ": true where feedback may quote the test, false where not",
        "entry_point": ": the name of the function that tests call",
        "tests": f": a list of {_TEST}",
        "id": ': a short name such as "two-sums"',
    }.get(key, "")


def _other_key(name: str, holder: type[BaseModel], others: Mapping[str, type[BaseModel]]) -> tuple[str, str]:
    """The key that was meant, or nothing, and the remedy for an unknown one."""
    known = [field.alias or key for key, field in holder.model_fields.items()]
    plain = name.lower().replace("-", "_").replace(" ", "_").strip("_")
    key = plain if plain in known else _KEY_OF.get(plain, "")
    if key.partition(".")[0] in known:
        note = ", with the opposite value" if plain in ("hidden", "private") else ""
        return key, f"did you mean {key!r}{note}?"
    if near := difflib.get_close_matches(plain, known, n=1):
        return near[0], f"did you mean {near[0]!r}?"
    kinds = " and ".join(kind for kind, other in others.items() if name in other.model_fields)
    note = f"it belongs to kind {kinds}" if kinds else "remove it, or keep notes under 'meta'"
    return "", f"{note} (known: {', '.join(known)})"


def _wrong_value(
    fault: Mapping[str, Any], steps: Sequence[str | int], kind: str, data: Mapping[str, Any]
) -> tuple[str, str]:
    """What is wrong with a value of a known key, and what to write; never in Python's notation."""
    value, last = fault["input"], str(steps[-1])
    got = f"got {middle_cut(' '.join(json.dumps(value, ensure_ascii=False).split()), 80)}"
    is_test = steps[0] == "tests" and len(steps) > 1
    a_test = _ASSERTS_TEST if kind == "asserts" else _TEST
    if last == "checker":
        of_stdin = '"exact", "tokens", {"tokens": {"case": "ignore"}}, {"program": "check.py"}'
        names = of_stdin if kind == "stdin" else '"exact"'
        return f"unknown checker {_short(data['checker'])}", f'write {names} or {{"float": 1e-6}}'
    if last == "id":
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", str(value)).strip("-._")[:100] or "my-problem"
        return got, f'use letters, digits, ".", "_" and "-", for example "{slug}"'
    if last == "tests":
        if fault["type"] == "too_short":
            return "there are no tests", "add at least one"
        return got, f"write a list: [{a_test}]"
    if is_test and isinstance(steps[-1], int) and len(steps) == 2:
        return got, f"write {a_test}"
    if last == "visible":
        return got, "it must be true or false, without quotes"
    if is_test and last == "input" and kind == "function":
        arguments = [*value.values()] if isinstance(value, dict) else [value]
        return got, f"write a list of the arguments in their order: {_short(arguments)}"
    if is_test and kind == "stdin":
        what, other = ("given", "input") if last == "input" else ("printed", "output")
        values = value if isinstance(value, list) else [value]
        texts = [one if isinstance(one, str) else json.dumps(one) for one in values]
        has_example = not isinstance(value, dict | bool | None)
        example = ": " + _short(" ".join(texts) + "\n") if has_example else ""
        return got, f"standard {other} is a text; write what is {what}{example}, or use kind function"
    if last == "entry_point":
        name = re.match(r"[A-Za-z_]\w*", str(value).removeprefix("def "))
        return got, "write a function's name, or Class.method" + (f': "{name[0]}"' if name else "")
    if last == "statement" and isinstance(value, str):
        return got, "it is empty: write what the program is to do"
    if last == "limits":
        return got, 'write {"time_s": 6, "memory_mb": 512}'
    if fault["type"] == "string_type" and isinstance(value, list):
        return got, "write one text, its lines joined by \\n"
    return got, f"it {fault_words(fault)}"


def _short(value: Any) -> str:
    return middle_cut(json.dumps(value, ensure_ascii=False), 60)


# -- what a model cannot say ---------------------------------------------------------------------------------


def kind_mistake(data: Mapping[str, Any], kinds: Sequence[str]) -> tuple[str, list[Mistake]]:
    """The kind of the file, guessed where it is missing or unknown, and what is wrong with it."""
    key = next((key for key in data if key.lower() in ("kind", "type")), "kind")
    kind = data.get(key)
    if kind in kinds:
        return str(kind), []
    near = difflib.get_close_matches(kind.lower(), kinds, n=1, cutoff=0.5) if isinstance(kind, str) else []
    guess = near[0] if near else "function" if "entry_point" in data else "stdin"
    what = f"kind is {_short(kind)}" if key in data else "kind is missing"
    hint = f", did you mean {near[0]!r}?" if near else ""
    return guess, [Mistake("kind", what, f'write "stdin", "function" or "asserts"{hint}')]


def other_mistakes(data: Mapping[str, Any]) -> list[Mistake]:
    """Names that do not fit each other, tests that contradict each other, asserts that cannot be judged."""
    tests = data["tests"] if isinstance(data.get("tests"), list) else []
    numbered = [(number, test) for number, test in enumerate(tests) if isinstance(test, dict)]
    found = _name_mistakes(data, numbered) if isinstance(data.get("entry_point"), str) else []
    if data["kind"] != "asserts" and not isinstance(data.get("checker"), dict):
        found += _contradictions(data, numbered)
    return found


def _name_mistakes(data: Mapping[str, Any], tests: Sequence[tuple[int, dict[str, Any]]]) -> list[Mistake]:
    found: list[Mistake] = []
    name, starter = data["entry_point"], str(data.get("starter_code") or "")
    if any(keyword.iskeyword(part) for part in name.split(".")):
        found.append(Mistake("entry_point", f"{name!r} is a Python keyword", "rename the function"))
    named = re.findall(r"^\s*(?:async\s+)?def\s+(\w+)", starter, re.MULTILINE)
    if named and name.replace(".", "").isidentifier() and name.split(".")[-1] not in named:
        what = f"it defines {named[0]!r}, and entry_point says {name!r}"
        found.append(Mistake("starter_code", what, "use one name"))
    fault = starter_fault(starter, name)
    if fault and any(test.get("expected", True) is not None for _, test in tests):
        remedy = "state the problem over plain values, with a value returned"
        found.append(Mistake("starter_code", fault, remedy))
    for number, test in tests if data["kind"] == "asserts" else ():
        try:
            if isinstance(test.get("input"), str):
                parse(test["input"], name)
        except ProblemError as exc:
            what, _, remedy = str(exc).rpartition("; ")
            found.append(Mistake(f"tests[{number}].input", what, remedy))
    return found


def _contradictions(data: Mapping[str, Any], tests: Sequence[tuple[int, dict[str, Any]]]) -> list[Mistake]:
    found: list[Mistake] = []
    first: dict[str, tuple[int, Any]] = {}
    for number, test in tests:
        before, expected = first.setdefault(json.dumps(test.get("input")), (number, test.get("expected")))
        if "input" in test and not _agree(data, expected, test.get("expected")):
            what = f"tests[{before}] has the same input and expects something else"
            found.append(Mistake(f"tests[{number}].expected", what, "mend one of the two"))
    return found


def _agree(data: Mapping[str, Any], one: Any, other: Any) -> bool:
    """Whether some answer is right both where `one` and where `other` is expected."""
    checker = Checker("tokens" if data.get("checker") == "tokens" else "exact")
    if data["kind"] == "function":
        return values_match(checker, one, other)
    texts = other if isinstance(other, list) else [other]
    return any(texts_match(checker, one, str(text)) for text in texts)
