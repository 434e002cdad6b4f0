"""Which arguments of MBPP+ are tuples, sets or complex numbers: JSON writes them as lists and texts.

The task numbers are facts of the data set (evalplus/data/mbpp.py reads them back in the same way).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Restore = Callable[[Any], Any]


def _keep(value: Any) -> Any:
    return value


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _tuples(value: Any) -> Any:
    return [_tuple(item) for item in value] if isinstance(value, list) else value


def _tuple_of_tuples(value: Any) -> Any:
    return _tuple(_tuples(value))


def _deep(value: Any) -> Any:
    return tuple(_deep(item) for item in value) if isinstance(value, list) else value


def _dict_of_tuples(value: Any) -> Any:
    return {key: _tuple(item) for key, item in value.items()} if isinstance(value, dict) else value


def _sets(value: Any) -> Any:
    return [set(item) if item else {} for item in value]


# What restores each argument, the last one serving all that follow: task numbers.
_SHAPES: dict[tuple[Restore, ...], str] = {
    (_tuple,): "2 116 132 143 222 261 273 394 399 421 424 429 470 560 579 596 616 630 726 740 744 809",
    (_tuples,): "63 64 70 94 120 237 272 299 400 409 417 438 473 614 780",
    (_tuples, _keep): "75 413 444 753",
    (_keep, _tuple): "106 750",
    (_tuple, _keep): "250 307 405 446 617 720 763 808",
    (_tuple_of_tuples,): "259 278 401 445",
    (_deep,): "580 615 791",
    (_dict_of_tuples, _keep): "722",
    (_sets,): "115",
    (float, complex): "124",
    (complex,): "252",
}
_BY_NUMBER = {int(number): shape for shape, numbers in _SHAPES.items() for number in numbers.split()}


def restore(number: int, args: Sequence[Any]) -> list[Any]:
    """The arguments of one call of task `number`, as they were before they became JSON. Raises TypeError,
    and ValueError for a number that is none.
    """
    if not isinstance(args, (list, tuple)):
        raise TypeError(f"the arguments of a call are no list, but {type(args).__name__}")
    shape = _BY_NUMBER.get(number, (_keep,))
    return [shape[min(place, len(shape) - 1)](arg) for place, arg in enumerate(args)]
