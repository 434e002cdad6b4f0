"""Facts about Python source that a model wrote, read from its syntax tree; nothing is executed.

The text is untrusted, so its length is bounded and every way in which the parser gives up is caught. It is
the host's grammar: a program in newer syntax than the host's Python counts as one that does not parse.
"""

from __future__ import annotations

import ast
import builtins
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MAX_CHARS = 100_000
# `warnings.catch_warnings` changes the process: two threads inside it would restore each other's filters.
_PARSER = threading.Lock()
_WRITERS = frozenset(
    ("print", "pprint", "stdout", "exec", "eval", "write", "writelines", "system", "run", "call")
)
_READERS = frozenset(("stdin", "open", "fdopen", "fileinput", "mmap", "read_text", "read_bytes"))
# What finds a definition by a text, as in globals()["main"]().
_FINDERS = frozenset(("globals", "locals", "vars", "modules"))
# What may stand over a definition without calling it.
_QUIET_DECORATORS = """
    abstractmethod asynccontextmanager bootstrap cache cached_property classmethod contextmanager dataclass
    jit lru_cache njit overload override property setter singledispatch staticmethod total_ordering wraps
"""
_BUILTINS = frozenset(dir(builtins))
_LIBRARIES = sys.stdlib_module_names | {
    "numpy",
    "scipy",
    "networkx",
    "sympy",
    "more_itertools",
    "sortedcontainers",
}


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """`functions`: names defined with a body, of methods `Class.method` too. `binds`: every name it gives a
    value. `uses`: names it reads that come from elsewhere: neither bound, nor imported from a known
    library; none where a `*` of that is imported. `acts`: it holds a definition, an import, an assignment or
    a call, so it is more than a literal. `holds_writer`: it names something that may write output.
    `writes`: that is reached when it runs; it is not in definitions alone that nothing uses. `reads`: it
    names something that may read standard input, and puts nothing else in its place.
    """

    functions: frozenset[str]
    binds: frozenset[str]
    imports: frozenset[str]
    uses: frozenset[str]
    acts: bool
    holds_writer: bool
    writes: bool
    reads: bool


def parse(text: str) -> ast.Module | None:
    """The tree of `text`; None where it is too long, is no Python or is nested too deep."""
    if len(text) > MAX_CHARS:
        return None
    try:
        with _PARSER, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a stray backslash in a literal
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def facts(tree: ast.Module) -> SourceFacts:
    """What `tree` defines, uses and does."""
    binds, loads, imports, known = set[str](), set[str](), set[str](), set[str]()
    acts = holds_writer = False
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                loads.add(name)
                holds_writer = holds_writer or name in _WRITERS
            case ast.Name(id=name) | ast.arg(arg=name) | ast.ExceptHandler(name=str(name)):
                binds.add(name)
            case ast.Attribute(attr=name):
                holds_writer = holds_writer or name in _WRITERS
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                binds.add(name)
            case (
                ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name))
            ):
                binds.add(name)
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                given = {alias.asname or alias.name.partition(".")[0] for alias in names}
                imports |= given
                known |= given if _is_known(node) else set()
        acts = acts or isinstance(
            node,
            (ast.Call, ast.Assign, ast.AugAssign, ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom),
        )
    return SourceFacts(
        functions=functions(tree),
        binds=frozenset(binds),
        imports=frozenset(imports),
        uses=frozenset() if "*" in known else frozenset(loads - binds - known - _BUILTINS),
        acts=acts,
        holds_writer=holds_writer,
        writes=holds_writer and _writes(tree),
        reads=_reads(tree),
    )


def entry_name(entry_point: str, functions: frozenset[str]) -> str | None:
    """`entry_point` as a program with these functions defines it: in a class or bare; None where it does not.

    LiveCodeBench decides by the program too: a method of `class Solution` where it has that class.
    """
    holder, _, name = entry_point.rpartition(".")
    names = (entry_point, name if holder else f"Solution.{name}")
    return next((name for name in names if name in functions), None)


def functions(tree: ast.Module) -> frozenset[str]:
    """The functions that `tree` defines at its top level, and `Class.method` for those of its classes, those
    of bases that it defines too.
    """
    names, methods = set(_defined(tree.body)), dict[str, set[str]]()
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and len(names) < MAX_CHARS:  # bases can multiply without end
            bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
            inherited = (methods.get(base, set()) for base in bases)
            methods[node.name] = set(_defined(node.body)).union(*inherited)
            names.update(f"{node.name}.{name}" for name in methods[node.name])
    return frozenset(names)


def _writes(tree: ast.Module) -> bool:
    """Whether what `tree` runs names a writer, by itself or through the definitions that it names."""
    running, later = _running(tree)
    waiting, seen = list(running), set[str]()
    while waiting:
        name = waiting.pop()
        if name in _WRITERS or name in _FINDERS:
            return True
        if name not in seen:
            seen.add(name)
            waiting += later.get(name, ())
    return False


def _reads(tree: ast.Module) -> bool:
    """Whether `tree` names what reads standard input; not where it puts a text in its place.

    An `input` of its own reads where it is made of something else that does.
    """
    is_own = False
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=targets, value=value):
                if "stdin" in set[str]().union(*map(_names, targets)) and not _may_read(_names(value)):
                    return False
            case ast.FunctionDef(name="input") | ast.Name(id="input", ctx=ast.Store()):
                is_own = True
    names = _names(tree)
    return _may_read(names) or ("input" in names and not is_own)


def _may_read(names: set[str]) -> bool:
    return not names.isdisjoint(_READERS) or {"os", "read"} <= names


def _running(tree: ast.Module) -> tuple[set[str], dict[str, set[str]]]:
    """The names in what runs when `tree` runs; and, for each name it defines, those in what runs only where
    that name is used. Methods go by their bare names. Where in doubt a name counts as used: a program that
    seems to write is better than one that seems not to.
    """
    running, later = set[str](), dict[str, set[str]]()
    stack: list[ast.AST] = list(tree.body)
    while stack:
        node = stack.pop()
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                later.setdefault(node.name, set()).update(*map(_names, node.body))
                running |= {node.name} if _is_handed_on(node.decorator_list) else set()
                stack += [*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)]
            case ast.ClassDef():
                later.setdefault(node.name, set()).update(_names(node))
                running |= {node.name} if _is_handed_on(node.decorator_list) else set()
                stack += [*node.decorator_list, *node.keywords, *node.body]
            case ast.Assign(value=value, targets=targets) if all(map(_is_reference, [value, *targets])):
                for name in set[str]().union(*map(_names, targets)):
                    later.setdefault(name, set()).update(_names(value))
            case ast.AnnAssign(value=value):
                stack += [value] if value is not None else []
            case ast.Name(id=name, ctx=ast.Load()):
                running.add(name)
            case ast.Attribute(attr=name, value=value):
                running.add(name)
                stack.append(value)
            case _:
                stack += ast.iter_child_nodes(node)
    return running, later


def _names(node: ast.AST) -> set[str]:
    """Every name and attribute in `node`."""
    parts = list(ast.walk(node))
    names = {part.id for part in parts if isinstance(part, ast.Name)}
    return names | {part.attr for part in parts if isinstance(part, ast.Attribute)}


def _is_handed_on(decorators: Sequence[ast.expr]) -> bool:
    """Whether some decorator of a definition may call it, as `atexit.register` does."""
    called = (node.func if isinstance(node, ast.Call) else node for node in decorators)
    names = (node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "") for node in called)
    return not set(names) <= set(_QUIET_DECORATORS.split())


def _is_reference(node: ast.expr) -> bool:
    """Whether an expression only gives another name to something: `sys.stdout.write`, a lambda, several."""
    if isinstance(node, ast.Tuple):
        return all(map(_is_reference, node.elts))
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, (ast.Name, ast.Lambda))


def _is_known(node: ast.Import | ast.ImportFrom) -> bool:
    """Whether an import is of a module, or of names in a library; else they may be of another block."""
    return isinstance(node, ast.Import) or (node.module or "").partition(".")[0] in _LIBRARIES


def _defined(body: list[ast.stmt]) -> Iterator[str]:
    """The names that statements bind to what can be called, those of stubs left out."""
    for node in body:
        match node:
            case ast.FunctionDef(name=name, body=inner) | ast.AsyncFunctionDef(name=name, body=inner):
                if not all(map(_is_stub, inner)):
                    yield name
            case ast.Assign(targets=targets):
                parts = (part for each in targets for part in getattr(each, "elts", [each]))
                yield from (part.id for part in parts if isinstance(part, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
                yield name
            case ast.If(body=first, orelse=second) | ast.Try(body=first, orelse=second):
                yield from _defined([*first, *second])


def _is_stub(node: ast.stmt) -> bool:
    """Whether a statement does nothing: `pass`, `...`, a docstring, `raise NotImplementedError`."""
    match node:
        case ast.Pass() | ast.Expr(value=ast.Constant()):
            return True
        case ast.Raise(exc=ast.Name(id=name) | ast.Call(func=ast.Name(id=name))):
            return name == "NotImplementedError"
    return False
