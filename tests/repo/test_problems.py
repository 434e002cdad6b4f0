"""The problems that come with the project: sound files, and expected values that a second way agrees with.

Every expected value is derived again here by a brute force that shares no idea with the reference, and the
reference is held against the same brute force on random inputs. Neither a model nor a sandbox is needed: the
only programs that run are the project's own references. Two functions a problem: `_name` derives the answer,
`CASES` pairs it with the random inputs.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import random
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from sdpo_solve.datasets.problem_json import load
from sdpo_solve.types import Kind, Problem

FOLDER = Path(__file__).parents[2] / "problems"
PROBLEMS = {path.stem: load(path) for path in sorted(FOLDER.glob("*.json"))}
RANDOM_INPUTS = 60

# -- the second way: arguments in, value out; for stdin the text in, the text out ----------------------------


def crew_phrase(names: list[str]) -> str:
    text = ""
    for name in names:
        text = name if not text else f"{text},{name}"
    return text


def dial_digits(n: int) -> list[int]:
    digits: list[int] = []
    while n:
        n, digit = divmod(n, 10)
        digits.append(digit)
    return digits


def tide_change(before: int, after: int) -> int:
    return len(range(min(before, after), max(before, after)))


def gull_count(notes: list[str]) -> int:
    return len(notes) - len([note for note in notes if note != "gull"])


def bucket_sum(text: str) -> str:
    total = 0
    for word in text.split():
        total += int(word)
    return f"{total}\n"


def reads_same(text: str) -> bool:
    return all(text[i] == text[len(text) - 1 - i] for i in range(len(text)))


def rope_left(length: int, piece: int) -> tuple[int, int]:
    pieces = 0
    while (pieces + 1) * piece <= length:
        pieces += 1
    return pieces, length - pieces * piece


def blinks(a: int, b: int, n: int) -> int:
    """Counts second by second over one common period, or, where that is long, over the blinks of one lamp."""
    if a * b <= 10**6:
        periods, rest = divmod(n, a * b)
        lit = [s for s in range(1, a * b + 1) if s % a == 0 or s % b == 0]
        return periods * len(lit) + sum(s <= rest for s in lit)
    a, b = min(a, b), max(a, b)
    return len(range(a, n + 1, a)) + sum(s % a != 0 for s in range(b, n + 1, b))


def knot_code(word: str) -> str:
    return re.sub(r"(.)\1*", lambda run: f"{run[1]}{len(run[0])}", word)


def clock_after(clock: str, minutes: int) -> str:
    hour, minute = map(int, clock.split(":"))
    for _ in range(abs(minutes)):
        minute += 1 if minutes > 0 else -1
        if minute in (60, -1):
            hour = (hour + (1 if minute == 60 else 23)) % 24
            minute %= 60
    return f"{hour:02}:{minute:02}"


def second_peak(heights: list[int]) -> int | None:
    lower = [h for h in heights if any(h < other for other in heights)]
    return max(lower, default=None)


def cargo_totals(text: str) -> str:
    rows = [line.split() for line in text.splitlines()[1:]]
    names = {name for name, _ in rows}
    lines = [f"{n} {sum(int(weight) for name, weight in rows if name == n)}\n" for n in names]
    return "".join(sorted(lines, key=lambda line: line.split()[0]))


def merged_watches(watches: list[list[int]]) -> list[list[int]]:
    """Marks every point and half point that a watch covers, then reads off the marked stretches."""
    marked = {point for start, end in watches for point in range(2 * start, 2 * end + 1)}
    starts = sorted(point for point in marked if point - 1 not in marked)
    ends = sorted(point for point in marked if point + 1 not in marked)
    return [[start // 2, end // 2] for start, end in zip(starts, ends, strict=True)]


def anchor_robot(text: str) -> str:
    """Rewrites the innermost repeat until only single orders are left, then walks in complex numbers."""
    orders = text.strip()
    while found := re.search(r"(\d*)\(([LRF]*)\)|(\d+)([LRF])", orders):
        times, body = (found[1], found[2]) if found[3] is None else (found[3], found[4])
        orders = orders[: found.start()] + body * int(times or 1) + orders[found.end() :]
    place, heading = 0j, 1j
    for order in orders:
        heading *= {"L": 1j, "R": -1j, "F": 1}[order]
        place += heading if order == "F" else 0
    return f"{int(place.real)} {int(place.imag)}\n"


def pile_tops(weights: list[int]) -> list[int]:
    """Keeps the crates in one sequence and marks each with its pile, instead of piles of crates."""
    laid: list[tuple[int, int]] = []  # (pile, weight), in the order of laying
    for number, weight in enumerate(weights):
        top = dict(laid)  # the last crate laid on a pile wins
        fitting = sorted((w, pile) for pile, w in top.items() if w >= weight)
        laid.append((fitting[0][1] if fitting else number, weight))
        if number % 3 == 2:
            top = dict(laid)
            pile = min(sorted(top), key=lambda p: top[p])
            last = max(i for i, crate in enumerate(laid) if crate[0] == pile)
            del laid[last]
    top = dict(laid)
    return [top[pile] for pile in sorted(top)]


def coin_tray(values: list[int], amount: int) -> int:
    reached, coins = {0}, 0
    while amount not in reached:
        wider = reached | {sum_ + v for sum_ in reached for v in values if sum_ + v <= amount}
        if wider == reached:
            return -1
        reached, coins = wider, coins + 1
    return coins


def fair_shares(n: int, k: int) -> list[int]:
    shares = [0] * k
    for coin in range(n):
        shares[k - 1 - coin % k] += 1
    return shares


def tally(word: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for letter in word:
        counts[letter] = counts.get(letter, 0) + 1
    return counts


def day_clock(minutes: int) -> str:
    clocks = [f"{tens}{hour}:{ten}{one}" for tens, hour, ten, one in product(*map(range, (3, 10, 6, 10)))]
    return clocks[minutes]


def level_range(levels: list[int]) -> list[int]:
    ordered = sorted(levels)
    return [ordered[0], ordered[-1]]


def bridge_load(text: str) -> str:
    left, *carts = map(int, text.split())
    for cart in carts:
        left -= cart
    return "no\n" if left < 0 else "yes\n"


def numbered(stops: list[str]) -> list[str]:
    return [str(index + 1) + ". " + stops[index] for index in range(len(stops))]


def vowels(word: str) -> str:
    return re.sub("[^aeiou]", "", word)


def longest_word(note: str) -> str:
    longest = ""
    for word in note.split():
        longest = word if len(word) > len(longest) else longest
    return longest


def word_lengths(note: str) -> list[int]:
    return [end - start for start, end in (found.span() for found in re.finditer(r"[^ ]+", note))]


def doubled(word: str) -> str:
    return "".join(word[index % len(word)] for index in range(2 * len(word)))


# -- random inputs -------------------------------------------------------------------------------------------


def _word(rng: random.Random, letters: str = "aeb", longest: int = 7, shortest: int = 0) -> str:
    return "".join(rng.choices(letters, k=rng.randint(shortest, longest)))


def _note(rng: random.Random) -> str:
    return " ".join(_word(rng, shortest=1, longest=4) for _ in range(rng.randint(0, 5)))


def _numbers(rng: random.Random, low: int = -3, high: int = 6, shortest: int = 0) -> list[int]:
    return [rng.randint(low, high) for _ in range(rng.randint(shortest, 7))]


def _watches(rng: random.Random) -> list[list[int]]:
    return [sorted((rng.randint(0, 12), rng.randint(0, 12))) for _ in range(rng.randint(0, 5))]


def _cargo(rng: random.Random) -> str:
    rows = [f"{_word(rng, shortest=1, longest=2)} {rng.randint(0, 9)}\n" for _ in range(rng.randint(0, 6))]
    return f"{len(rows)}\n{''.join(rows)}"


def _orders(rng: random.Random, depth: int = 2) -> str:
    text = ""
    for _ in range(rng.randint(1, 4)):
        number = str(rng.randint(1, 11)) if rng.random() < 0.4 else ""
        single = rng.random() < 0.6 or not depth
        text += number + (rng.choice("LRF") if single else f"({_orders(rng, depth - 1)})")
    return text


def _clock(rng: random.Random) -> list[Any]:
    return [f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}", rng.randint(-3000, 3000)]


@dataclass(frozen=True)
class Case:
    """How a problem is checked: its brute force, and what draws the arguments of one random call."""

    brute: Callable[..., Any]
    draw: Callable[[random.Random], list[Any]]


CASES = {
    "anchor-robot": Case(anchor_robot, lambda r: [_orders(r) + "\n"]),
    "bridge-load": Case(
        bridge_load, lambda r: [f"{r.randint(0, 12)}\n{' '.join(map(str, _numbers(r, 0, 6, 1)))}\n"]
    ),
    "bucket-sum": Case(bucket_sum, lambda r: [" ".join(map(str, _numbers(r, 0, 99, 1))) + "\n"]),
    "cargo-stack": Case(pile_tops, lambda r: [_numbers(r, 1, 6)]),
    "cargo-totals": Case(cargo_totals, lambda r: [_cargo(r)]),
    "coin-tray": Case(coin_tray, lambda r: [_numbers(r, 1, 9, 1), r.randint(0, 30)]),
    "crew-phrase": Case(crew_phrase, lambda r: [(_note(r) or "Ann").split()]),
    "day-clock": Case(day_clock, lambda r: [r.randint(0, 1439)]),
    "dial-digits": Case(dial_digits, lambda r: [r.randint(1, 10 ** r.randint(1, 9))]),
    "double-call": Case(doubled, lambda r: [_word(r)]),
    "fair-shares": Case(fair_shares, lambda r: [r.randint(0, 30), r.randint(1, 8)]),
    "gull-count": Case(gull_count, lambda r: [r.choices(("gull", "tern", "gulls"), k=r.randint(0, 6))]),
    "knot-code": Case(knot_code, lambda r: [_word(r, longest=15)]),
    "letter-tally": Case(tally, lambda r: [_word(r)]),
    "level-range": Case(level_range, lambda r: [_numbers(r, shortest=1)]),
    "longest-word": Case(longest_word, lambda r: [_note(r)]),
    "merged-watches": Case(merged_watches, lambda r: [_watches(r)]),
    "mirror-sign": Case(reads_same, lambda r: [_word(r, "ab", 5)]),
    "night-watch": Case(clock_after, _clock),
    "rope-left": Case(rope_left, lambda r: [r.randint(0, 99), r.randint(1, 12)]),
    "second-peak": Case(second_peak, lambda r: [_numbers(r)]),
    "sign-vowels": Case(vowels, lambda r: [_word(r, "aeioubcx")]),
    "stop-numbers": Case(numbered, lambda r: [_note(r).split()]),
    "tide-change": Case(tide_change, lambda r: [r.randint(-9, 9), r.randint(-9, 9)]),
    "two-lamps": Case(blinks, lambda r: [r.randint(1, 12), r.randint(1, 12), r.randint(0, 300)]),
    "word-lengths": Case(word_lengths, lambda r: [_note(r)]),
}


@dataclass(frozen=True)
class Reading:
    """One call, and what another fair reading of the statement answers."""

    args: list[Any]
    value: Any


OTHER_READING = {
    "bridge-load": Reading(["10\n3 4\n"], "True\n"),
    "crew-phrase": Reading([["Ann", "Bo"]], "Ann, Bo"),
    "day-clock": Reading([75], "1:15"),
    "dial-digits": Reading([123], [1, 2, 3]),
    "double-call": Reading(["sea"], "sseeaa"),
    "fair-shares": Reading([7, 3], [3, 2, 2]),
    "letter-tally": Reading(["noon"], 4),
    "level-range": Reading([[4, 9, 6]], 5),
    "longest-word": Reading(["ebb and sea"], "sea"),
    "sign-vowels": Reading(["sea"], ["e", "a"]),
    "stop-numbers": Reading([["Elm", "Oak"]], {1: "Elm", 2: "Oak"}),
    "tide-change": Reading([8, 3], -5),
    "word-lengths": Reading(["ebb and flow"], 3),
}

# -- the tests -----------------------------------------------------------------------------------------------


def _calls(problem: Problem) -> list[tuple[list[Any], Any]]:
    """Each test as (arguments, expected value); asserts are read as `assert CALL == VALUE`."""
    calls = []
    for test in problem.tests:
        if problem.kind is Kind.STDIN:
            calls.append(([test.input], test.expected))
        elif problem.kind is Kind.FUNCTION:
            calls.append((list(test.input), test.expected))
        else:
            (statement,) = ast.parse(test.input).body
            assert isinstance(statement, ast.Assert)
            compare = statement.test
            assert isinstance(compare, ast.Compare)
            assert isinstance(compare.left, ast.Call)
            args = [ast.literal_eval(arg) for arg in compare.left.args]
            calls.append((args, ast.literal_eval(compare.comparators[0])))
    return calls


def _reference(problem: Problem, args: list[Any]) -> Any:
    """What the reference answers; lists for tuples where the file's expected values are JSON."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    program = compile(problem.reference or "", f"{problem.id}.py", "exec")
    if problem.kind is Kind.STDIN:
        out = io.StringIO()
        with patch("sys.stdin", io.StringIO(args[0])), contextlib.redirect_stdout(out):
            exec(program, namespace)
        return out.getvalue()
    exec(program, namespace)
    value = namespace[problem.entry_point or ""](*deepcopy(args))
    return json.loads(json.dumps(value)) if problem.kind is Kind.FUNCTION else value


def test_every_problem_has_a_second_way() -> None:
    assert PROBLEMS.keys() == CASES.keys()


@pytest.mark.parametrize("name", CASES)
def test_expected_values_agree_with_the_brute_force(name: str) -> None:
    for args, expected in _calls(PROBLEMS[name]):
        assert CASES[name].brute(*deepcopy(args)) == expected, args


@pytest.mark.parametrize("name", CASES)
def test_the_reference_passes_every_test(name: str) -> None:
    for args, expected in _calls(PROBLEMS[name]):
        assert _reference(PROBLEMS[name], args) == expected, args


@pytest.mark.parametrize("name", CASES)
def test_the_reference_agrees_with_the_brute_force_on_random_inputs(name: str) -> None:
    rng = random.Random(name)
    for _ in range(RANDOM_INPUTS):
        args = CASES[name].draw(rng)
        assert _reference(PROBLEMS[name], args) == CASES[name].brute(*deepcopy(args)), args


@pytest.mark.parametrize("name", CASES)
def test_a_problem_names_its_file_and_has_tests_of_both_sorts(name: str) -> None:
    problem = PROBLEMS[name]
    assert problem.id == name
    n_visible = sum(test.visible for test in problem.tests)
    assert 2 <= n_visible <= 4
    assert 6 <= len(problem.tests) - n_visible <= 20


@pytest.mark.parametrize("name", CASES)
def test_no_test_stands_twice(name: str) -> None:
    inputs = [json.dumps(args) for args, _ in _calls(PROBLEMS[name])]
    assert len(set(inputs)) == len(inputs)


@pytest.mark.parametrize("name", [n for n, p in PROBLEMS.items() if "open" in p.meta])
def test_what_the_statement_leaves_open_is_shown_by_a_visible_test(name: str) -> None:
    problem, other = PROBLEMS[name], OTHER_READING[name]
    calls = zip(problem.tests, _calls(problem), strict=True)
    shown = {json.dumps(args): expected for test, (args, expected) in calls if test.visible}
    assert shown[json.dumps(other.args)] != other.value


def test_the_set_covers_every_kind_and_every_difficulty() -> None:
    assert {problem.kind for problem in PROBLEMS.values()} == set(Kind)
    assert {problem.meta["difficulty"] for problem in PROBLEMS.values()} == {
        "easy",
        "medium",
        "hard",
        "never",
    }
    assert sum("open" in problem.meta for problem in PROBLEMS.values()) >= 6
