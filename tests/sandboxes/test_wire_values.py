"""The wire form keeps plain values and their types, and refuses everything else."""

import itertools
import math
import re
from array import array
from collections import ChainMap, Counter, UserDict, UserList, UserString, defaultdict, deque
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sortedcontainers import SortedDict, SortedList, SortedSet

from sdpo_solve.sandboxes.wire_values import (
    Iterated,
    Match,
    NotPlain,
    Opaque,
    decode,
    encode,
    encode_result,
    opaque_in,
)

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
def test_other_types_are_no_arguments(value: object) -> None:
    with pytest.raises(NotPlain, match="not plain data"):
        encode(value)


class Own:
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (deque([1, 2], maxlen=5), deque([1, 2])),
        (Fraction(2, 6), Fraction(1, 3)),
        (Decimal("1.50"), Decimal("1.5")),
        (range(3), range(3)),
        ({1: 2}.keys(), {1}),
        ({1: 2}.items(), {(1, 2)}),
        (memoryview(b"ab"), b"ab"),
        (UserDict({1: [2]}), {1: [2]}),
        (ChainMap({1: 2}, {1: 3, 4: 5}), {1: 2, 4: 5}),
        (MappingProxyType({1: 2}), {1: 2}),
        (UserList([1, (2,)]), [1, (2,)]),
        (UserString("ab"), "ab"),
        (SortedList([3, 1]), [1, 3]),
        (SortedSet([3, 1]), {1, 3}),
        (SortedDict({3: 1}), {3: 1}),
        (np.arange(2.0), [0.0, 1.0]),
        (np.int64(3), 3),
        (np.longdouble(0.5), 0.5),
        (np.array([1.5, 2], dtype=np.longdouble), [1.5, 2.0]),
        (np.array(0.5, dtype=np.longdouble), 0.5),
        (np.clongdouble(1 + 2j), 1 + 2j),
        ([{"a": np.longdouble("inf")}], [{"a": math.inf}]),
    ],
)
def test_results_of_standard_types_compare_as_they_do_in_python(value: object, expected: object) -> None:
    back = decode(encode_result([value]))
    assert back == [expected]
    assert opaque_in(back) is None


@pytest.mark.parametrize(
    "value",
    [(n for n in (1, 2)), map(int, "12"), iter([1, 2]), {"a": 1, "b": 2}.values(), array("i", [1, 2])],
)
def test_of_an_iterator_its_items_are_left_to_be_taken_once(value: Iterable[object]) -> None:
    back = decode(encode_result(value))
    assert isinstance(back, Iterated)
    assert back != [1, 2]
    assert list(back) == [1, 2]
    assert list(back) == []


def test_an_iterator_without_end_is_cut() -> None:
    back = decode(encode_result(itertools.count()))
    assert isinstance(back, Iterated)
    assert next(back) == 0


@pytest.mark.parametrize("value", [Own(), Own, print, range(10**20), Decimal("sNaN"), Decimal("-sNaN1")])
def test_of_any_other_object_its_class_is_left_equal_to_nothing(value: object) -> None:
    back = decode(encode_result({"a": [value]}))
    opaque = opaque_in(back)
    assert isinstance(opaque, Opaque)
    assert type(value).__name__ in repr(back)
    assert opaque != 1


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
        '{"fraction":["0x1","0x0"]}',
        '{"fraction":["0x1","0x' + "1" * 70_000 + '"]}',
        '{"decimal":"x"}',
        '{"decimal":"' + "1" * 70_000 + '"}',
        '{"range":[0,1,0]}',
        '{"range":["a",1,1]}',
        '{"deque":1}',
        '{"object":[]}',
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


def test_honest_integers_that_share_hashes_are_a_set() -> None:
    """2**k has the hash of 2**(k % 61)."""
    powers = {2**k for k in range(1100)}
    assert decode(encode_result(powers)) == powers
