"""EvalPlus's suites as Python text: the column `test` of the hub's MBPP+ and of HumanEvalPlus-OriginFmt.

The text assigns `inputs` (argument lists) and `results`, or defines `ref_func` in place of results, and loops
over both with `assertion(f(*inp), exp, atol)`. It is read as data: literals only, nothing is executed here; a
`ref_func` runs in the sandbox.
"""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass
from typing import Any

from sdpo_solve.grading.assert_eval import Evaluator, check_deep
from sdpo_solve.types import Checker, Program


class NoSuite(ValueError):
    """The text is not of this form; the message names the difference."""


@dataclass(frozen=True, slots=True)
class Suite:
    """`expected`: one value an input, None where `reference` is to be called for them."""

    inputs: list[list[Any]]
    expected: list[Any] | None
    reference: Program | None
    checker: Checker


def is_suite(test: str) -> bool:
    """Whether a row's test text looks like one of these."""
    return "inputs =" in test and "assertion(" in test


def read_suite(test: str) -> Suite:
    """Raises NoSuite for a text of another form."""
    try:
        tree = ast.parse(test)
        assigned = {
            target.id: node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        inputs = _literal(assigned["inputs"])
        expected = _literal(assigned["results"]) if "results" in assigned else None
    except KeyError as exc:
        raise NoSuite(f"its suite assigns no {exc.args[0]}") from None
    except (SyntaxError, ValueError, ArithmeticError, TypeError, RecursionError, MemoryError) as exc:
        raise NoSuite(f"its suite holds no plain literals: {type(exc).__name__}") from None
    if not isinstance(inputs, list) or not inputs or not all(isinstance(args, list) for args in inputs):
        raise NoSuite("its suite's inputs are not lists of arguments")
    if expected is not None and (not isinstance(expected, list) or len(expected) != len(inputs)):
        raise NoSuite("its suite has not one result an input")
    return Suite(inputs, expected, _reference(tree) if expected is None else None, _checker(tree))


def _literal(node: ast.expr) -> Any:
    class Constants(ast.NodeTransformer):
        def visit_Name(self, name: ast.Name) -> ast.AST:
            return (
                ast.Constant({"inf": math.inf, "nan": math.nan}[name.id])
                if name.id in ("inf", "nan")
                else name
            )

    plain = Constants().visit(node)
    check_deep(plain)
    return Evaluator({}).value(plain)


def _reference(tree: ast.Module) -> Program:
    """The suite's own solution, as a program without its inputs and loops."""
    body = [node for node in tree.body if not isinstance(node, (ast.For, ast.Assign))]
    if not any(isinstance(node, ast.FunctionDef) and node.name == "ref_func" for node in body):
        raise NoSuite("its suite has neither results nor ref_func")
    return Program(ast.unparse(ast.Module(body, [])), "ref_func")


def _checker(tree: ast.Module) -> Checker:
    """The rule of the loop's `assertion(ACTUAL, EXPECTED, ATOL)`."""
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "assertion"
    ]
    if len(calls) != 1 or len(calls[0].args) != 3:
        raise NoSuite("its suite compares in a way that is not known here")
    actual, _, atol = calls[0].args
    match actual:
        case ast.Call(func=ast.Name(id="set"), args=[ast.Call()]):
            return Checker("set")
        case ast.Compare(left=ast.Call(), ops=[ast.IsNot()]):
            return Checker("not-none")
        case ast.Call(args=[ast.Starred()]) if isinstance(atol, ast.Constant):
            return Checker("python", float(atol.value))  # type: ignore[arg-type]
    raise NoSuite("its suite compares in a way that is not known here")
