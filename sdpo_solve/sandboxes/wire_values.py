"""Wire form of plain Python values: how arguments enter a box and results leave it.

JSON keeps null, booleans, texts, lists, finite floats and ints below 2**53; everything else is an object with
one key that names its type: {"int": "0x..."}, {"float": "inf"}, {"tuple": [...]}, {"set": [...]},
{"frozenset": [...]}, {"dict": [[key, value], ...]}, {"bytes": "00ff"}, {"complex": [re, im]}. Results may
also be {"deque": [...]}, {"range": [start, stop, step]}, {"fraction": ["0x...", "0x..."]},
{"decimal": "1.50"}, and what equals no other value: {"match": "text"}, {"iterator": [...]},
{"object": "ClassName"}.

Standard library only and free of package imports, because the sandbox's runner carries this source into the
box. `decode` treats its text as hostile: it builds plain values and nothing else, within bounds of depth and
size.
"""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator

TYPE_CHECKING = False  # `typing` itself would cost every test some milliseconds
if TYPE_CHECKING:
    from typing import Any

MAX_DEPTH = 200
_SEQUENCES: dict[str, type] = {"tuple": tuple, "set": set, "frozenset": frozenset}
_MAX_FLOAT = 1.7976931348623157e308
_MAX_COMPARISONS = 1 << 22  # of keys with one hash, all together
_MAX_ITEMS = 1_000_000  # of an iterator or a range
_MAX_DIGITS = 1 << 16  # of a fraction's or decimal's text: their arithmetic is not linear
# Standard types by module and name, and the form that compares as they do (`==` of a SortedList is a list's).
_STANDARD = {
    ("collections", "deque"): "deque",
    ("fractions", "Fraction"): "fraction",
    ("decimal", "Decimal"): "decimal",
    ("builtins", "range"): "range",
    ("builtins", "dict_keys"): "set",
    ("builtins", "dict_items"): "set",
    ("builtins", "dict_values"): "iterator",
    ("builtins", "mappingproxy"): "dict",
    ("collections", "UserDict"): "dict",
    ("collections", "ChainMap"): "dict",
    ("collections", "UserList"): "list",
    ("collections", "UserString"): "text",
    ("array", "array"): "iterator",
    ("sortedcontainers.sortedlist", "SortedList"): "list",
    ("sortedcontainers.sortedset", "SortedSet"): "set",
}


class NotPlain(ValueError):
    """The value (or the text) is not plain data. The message names the type or the fault."""


class Opaque:
    """What is left of a value that is no plain data: its class's name. Equal to nothing else."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<an object of class {self.name}, equal to no plain value>"


class Match(Opaque):
    """What is left of an `re.Match`: that there was one, and the text that matched."""

    def __init__(self, text: str) -> None:
        super().__init__("re.Match")
        self.text = text

    def __repr__(self) -> str:
        return f"<re.Match of {self.text}>"


class Iterated(Opaque):
    """What is left of an iterator: its items, which can be taken once."""

    def __init__(self, items: list[object]) -> None:
        super().__init__("iterator")
        self._items = items
        self._rest = iter(items)

    def __iter__(self) -> Iterator[object]:
        return self._rest

    def __next__(self) -> object:
        return next(self._rest)

    def __repr__(self) -> str:
        return f"<iterator over {self._items!r}>"


def opaque_in(value: object) -> Opaque | None:
    """The first opaque value in a decoded one, at any depth; None where all of it is plain."""
    if isinstance(value, Opaque):
        return value
    parts: Iterable[object] = ()
    if isinstance(value, dict):
        parts = itertools.chain(value.keys(), value.values())
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        parts = value
    return next((found for part in parts if (found := opaque_in(part)) is not None), None)


def encode(value: object) -> str:
    """`value` as text, subclasses and numpy scalars and arrays as their plain form.

    Raises NotPlain for other types, and for nesting deeper than MAX_DEPTH (cycles included).
    """
    return json.dumps(_pack(value, 0, strict=True), separators=(",", ":"))


def encode_result(value: object) -> str:
    """The same for any value: iterators are drained, and of what is no plain data its class's name is left.

    Raises NotPlain for nesting deeper than MAX_DEPTH, and what draining an iterator raises.
    """
    return json.dumps(_pack(value, 0, strict=False), separators=(",", ":"))


def decode(text: str) -> object:
    """The plain value that `text` stands for.

    Raises NotPlain for anything that `encode` cannot have written.
    """
    try:
        return _unpack(json.loads(text, parse_constant=_no_constant), 0)
    except NotPlain:
        raise
    except (ValueError, TypeError, KeyError, RecursionError, ArithmeticError) as exc:
        raise NotPlain(f"not a value in wire form: {type(exc).__name__}") from None


def check_spread(keys: Iterable[object]) -> None:
    """Raises NotPlain for keys made to share one hash: a set or dict of them is built in quadratic time."""
    buckets: dict[int, list[object]] = {}
    n_comparisons = 0
    for key in keys:
        bucket = buckets.setdefault(hash(key), [])
        n_comparisons += len(bucket)
        if n_comparisons > _MAX_COMPARISONS:
            raise NotPlain("too many keys of one hash")
        if key not in bucket:
            bucket.append(key)


def _no_constant(name: str) -> object:
    raise NotPlain(f"bare {name} in wire form")


def _pack(value: object, depth: int, *, strict: bool) -> object:
    if depth > MAX_DEPTH:
        raise NotPlain(f"nested deeper than {MAX_DEPTH} levels")
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        plain = int.__add__(value, 0)
        return plain if -(2**53) < plain < 2**53 else {"int": hex(plain)}
    if isinstance(value, float):
        number = float.__pos__(value)
        return number if abs(number) <= _MAX_FLOAT else {"float": repr(number)}
    if isinstance(value, complex):
        return {"complex": [_pack(part, depth + 1, strict=strict) for part in (value.real, value.imag)]}
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"bytes": bytes(value).hex()}
    return _pack_container(value, depth + 1, strict=strict)


def _pack_container(value: object, depth: int, *, strict: bool) -> object:
    def all_of(items: Iterable[object]) -> list[object]:
        return [_pack(item, depth, strict=strict) for item in items]

    if isinstance(value, list):
        return all_of(list.__iter__(value))
    if isinstance(value, tuple):
        return {"tuple": all_of(tuple.__iter__(value))}
    if isinstance(value, dict):
        return {"dict": [all_of(pair) for pair in dict.items(value)]}
    if isinstance(value, (set, frozenset)):
        name = "set" if isinstance(value, set) else "frozenset"
        return {name: sorted(all_of(value), key=json.dumps)}
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return _pack(_of_numpy(value), depth, strict=strict)
    if type(value).__module__ == "re" and hasattr(value, "group"):
        return {"match": repr(value.group())[:200]}
    if strict:
        raise NotPlain(f"a value of type {type(value).__name__} is not plain data")
    return _pack_standard(value, all_of)


def _of_numpy(value: Any) -> object:
    """A numpy scalar or array in Python's types; scalars and arrays have the same method."""
    plain = value.tolist()
    if type(plain) is not type(value):
        return plain
    return complex(plain) if value.dtype.kind == "c" else float(plain)  # of extended precision


def _pack_standard(value: Any, all_of: Callable[[Iterable[object]], list[object]]) -> object:
    """A value of a type in `_STANDARD`, or of a class below one; an iterator; any other object."""
    kinds = [_STANDARD.get((cls.__module__, cls.__qualname__)) for cls in type(value).__mro__]
    kind = next(filter(None, kinds), "iterator" if hasattr(type(value), "__next__") else "object")
    if kind == "object":
        return {"object": type(value).__qualname__[:100]}
    if kind == "fraction":
        return {"fraction": [hex(value.numerator), hex(value.denominator)]}
    if kind == "decimal":
        return {"decimal": str(value)}
    if kind == "range":
        return {"range": all_of([value.start, value.stop, value.step])}
    if kind == "text":
        return str(value)
    if kind == "dict":
        return {"dict": [all_of(pair) for pair in value.items()]}
    items = all_of(itertools.islice(value, _MAX_ITEMS))
    return items if kind == "list" else {kind: items}


def _unpack(node: object, depth: int) -> object:
    if depth > 2 * MAX_DEPTH:
        raise NotPlain("nested too deep")
    if isinstance(node, list):
        return [_unpack(item, depth + 1) for item in node]
    if not isinstance(node, dict):
        return node
    if len(node) != 1:
        raise NotPlain("an object in wire form has one key")
    ((name, body),) = node.items()
    if name == "dict" and isinstance(body, list):
        pairs = [(_unpack(key, depth + 1), _unpack(item, depth + 1)) for key, item in body]
        check_spread(key for key, _ in pairs)
        return dict(pairs)
    if name in _SEQUENCES and isinstance(body, list):
        items = [_unpack(item, depth + 1) for item in body]
        if name != "tuple":
            check_spread(items)
        return _SEQUENCES[name](items)
    if name == "int" and isinstance(body, str):
        return int(body, 16)
    if name == "float" and isinstance(body, str) and body in ("inf", "-inf", "nan"):
        return float(body)
    if name == "bytes" and isinstance(body, str):
        return bytes.fromhex(body)
    if name == "match" and isinstance(body, str):
        return Match(body)
    if name == "object" and isinstance(body, str):
        return Opaque(body[:100])
    if name == "complex" and isinstance(body, list):
        real, imag = (_unpack(part, depth + 1) for part in body)
        if isinstance(real, float) and isinstance(imag, float):
            return complex(real, imag)
    return _unpack_standard(name, body, depth)


def _unpack_standard(name: str, body: object, depth: int) -> object:
    """Forms that only results have. Their modules are imported where they are needed: boxes start often."""
    if name == "decimal" and isinstance(body, str) and len(body) <= _MAX_DIGITS:
        from decimal import Decimal

        number = Decimal(body)
        big = number.is_finite() and abs(number.adjusted()) > _MAX_DIGITS
        return Opaque("Decimal") if big or number.is_snan() else number  # to compare an sNaN raises
    if not isinstance(body, list):
        raise NotPlain("unknown type name in wire form")
    if name == "fraction" and sum(map(len, body)) <= _MAX_DIGITS:
        from fractions import Fraction

        return Fraction(*(int(part, 16) for part in body))
    items = [_unpack(item, depth + 1) for item in body]
    if name == "deque":
        return deque(items)
    if name == "iterator":
        return Iterated(items)
    if name == "range" and len(items) == 3:
        found = range(*items)  # type: ignore[call-overload]
        return found if not found[_MAX_ITEMS:] else Opaque("range")  # not to be unrolled on the host
    raise NotPlain("unknown type name in wire form")
