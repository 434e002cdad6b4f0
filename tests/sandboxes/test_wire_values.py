"""The wire form keeps plain values and their types, and refuses everything else."""

import math
import re
from collections import Counter, defaultdict, deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpo_solve.sandboxes.wire_values import Match, NotPlain, decode, encode

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.frozensets(st.integers())
    ),
)


@given(plain)
def test_round_trip_keeps_value_and_type(value: object) -> None:
    back = decode(encode(value))
    assert back == value
    assert repr(back) == repr(value) or isinstance(value, (set, frozenset, dict, list, tuple))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (defaultdict(int, {1: 2}), {1: 2}),
        (Counter("aab"), {"a": 2, "b": 1}),
        (type("MyInt", (int,), {})(7), 7),
        (type("Liar", (int,), {"__eq__": lambda a, b: True, "__repr__": lambda a: "9"})(7), 7),
        ((1, [2.0, {3}]), (1, [2.0, {3}])),
        (10**4000, 10**4000),
        (float("-inf"), float("-inf")),
    ],
)
def test_subclasses_become_their_plain_form(value: object, expected: object) -> None:
    back = decode(encode(value))
    assert back == expected
    assert type(back) is type(expected)


def test_nan_survives() -> None:
    assert math.isnan(decode(encode(float("nan"))))  # type: ignore[arg-type]


def test_of_a_match_its_text_is_left_and_it_equals_nothing() -> None:
    found = decode(encode(re.search("b+", "abbc")))
    assert isinstance(found, Match)
    assert (found.text, found == decode(encode(re.search("b+", "abbc")))) == ("'bb'", False)
    with pytest.raises(NotPlain):
        decode('{"match": 1}')


@pytest.mark.parametrize("value", [object(), deque([1]), iter([1]), lambda: 1, range(3)])
def test_other_types_are_refused(value: object) -> None:
    with pytest.raises(NotPlain, match="not plain data"):
        encode(value)


def test_cycles_are_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(NotPlain, match="levels"):
        encode(loop)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"a":1}',
        '{"dict":[[[1],2]]}',
        '{"int":12}',
        "NaN",
        "[" * 100_000,
        '{"set":[[1]]}',
        '{"int":"z"}',
    ],
)
def test_hostile_text_is_refused(text: str) -> None:
    with pytest.raises(NotPlain):
        decode(text)


def test_monster_integers_pass_in_hexadecimal() -> None:
    """Decimal text of more than 4300 digits would raise in Python; hexadecimal is linear and allowed."""
    assert decode(encode([10**50_000])) == [10**50_000]


def test_keys_made_to_share_one_hash_are_refused_at_once() -> None:
    """Multiples of 2**61 - 1 all hash to 0: a set of these would take minutes."""
    keys = ",".join(f'{{"int":"{hex((2**61 - 1) * number)}"}}' for number in range(1, 50_000))
    pairs = ",".join(f"[{key},0]" for key in keys.split(","))
    for text in (f'{{"set":[{keys}]}}', f'{{"frozenset":[{keys}]}}', f'{{"dict":[{pairs}]}}'):
        with pytest.raises(NotPlain, match="one hash"):
            decode(text)
    assert decode(f"[{keys}]") == [(2**61 - 1) * number for number in range(1, 50_000)]
    assert decode('{"set":[1,1,1]}') == {1}
