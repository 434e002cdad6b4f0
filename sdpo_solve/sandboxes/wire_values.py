"""The wire form of plain Python values: how arguments enter a box and results leave it.

JSON keeps null, booleans, texts, lists, finite floats and ints below 2**53; everything else is an object with
one key that names its type: {"int": "0x..."}, {"float": "inf"}, {"tuple": [...]}, {"set": [...]},
{"frozenset": [...]}, {"dict": [[key, value], ...]}, {"bytes": "00ff"}, {"complex": [re, im]},
{"match": "text"}.

Standard library only and free of package imports, because the sandbox's runner carries this source into the
box. `decode` treats its text as hostile: it builds plain values and nothing else, within a depth limit.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

MAX_DEPTH = 200
_SEQUENCES: dict[str, type] = {"tuple": tuple, "set": set, "frozenset": frozenset}
_MAX_FLOAT = 1.7976931348623157e308
_MAX_COLLISIONS = 16


class NotPlain(ValueError):
    """The value (or the text) is not plain data. The message names the type or the fault."""


class Match:
    """What is left of an `re.Match`: that there was one, and the text that matched. Equal to nothing else."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return f"<re.Match of {self.text}>"


def encode(value: object) -> str:
    """`value` as text, subclasses and numpy scalars and arrays as their plain form.

    Raises NotPlain for other types, and for nesting deeper than MAX_DEPTH (cycles included).
    """
    return json.dumps(_pack(value, 0), separators=(",", ":"))


def decode(text: str) -> object:
    """The plain value that `text` stands for.

    Raises NotPlain for anything that `encode` cannot have written.
    """
    try:
        return _unpack(json.loads(text, parse_constant=_no_constant), 0)
    except NotPlain:
        raise
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as exc:
        raise NotPlain(f"not a value in wire form: {type(exc).__name__}") from None


def check_spread(keys: Iterable[object]) -> None:
    """Raises NotPlain for keys made to share one hash: a set or dict of them is built in quadratic time."""
    buckets: dict[int, list[object]] = {}
    for key in keys:
        bucket = buckets.setdefault(hash(key), [])
        if key not in bucket:
            bucket.append(key)
        if len(bucket) > _MAX_COLLISIONS:
            raise NotPlain("many keys of one hash")


def _no_constant(name: str) -> object:
    raise NotPlain(f"bare {name} in wire form")


def _pack(value: object, depth: int) -> object:
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
        return {"complex": [_pack(value.real, depth + 1), _pack(value.imag, depth + 1)]}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": bytes(value).hex()}
    return _pack_container(value, depth + 1)


def _pack_container(value: object, depth: int) -> object:
    if isinstance(value, list):
        return [_pack(item, depth) for item in list.__iter__(value)]
    if isinstance(value, tuple):
        return {"tuple": [_pack(item, depth) for item in tuple.__iter__(value)]}
    if isinstance(value, dict):
        return {"dict": [[_pack(key, depth), _pack(item, depth)] for key, item in dict.items(value)]}
    if isinstance(value, (set, frozenset)):
        name = "set" if isinstance(value, set) else "frozenset"
        return {name: sorted((_pack(item, depth) for item in value), key=json.dumps)}
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return _pack(value.tolist(), depth)  # numpy scalars and arrays have the same method
    if type(value).__module__ == "re" and hasattr(value, "group"):
        return {"match": repr(value.group())[:200]}
    raise NotPlain(f"a value of type {type(value).__name__} is not plain data")


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
    if name == "complex" and isinstance(body, list):
        real, imag = (_unpack(part, depth + 1) for part in body)
        if isinstance(real, float) and isinstance(imag, float):
            return complex(real, imag)
    raise NotPlain("unknown type name in wire form")
