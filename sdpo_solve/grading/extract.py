"""The program in a model's answer. Prompts ask for one fenced code block with the whole program.

Two rules, chosen by the option `extract` of a run:

program         Thinking is taken off, a markdown parser finds the fenced blocks. The program is the last one
                of the language that parses and is complete (defines the entry point; for standard input,
                writes output when it runs, and reads before one that does not), else the last that parses
                (one that only defines what would write before others), else the last of that language. Where
                none is complete, other readings of the fences are tried (a fence glued to code, one inside a
                docstring, a missing one). Output, shell commands, usage and tests are no program.
livecodebench   What stands between the last two lines that hold ``` (lcb_runner/utils/extraction_utils.py).

The answer is untrusted: its length, and the number of readings that are tried, are bounded.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sdpo_solve.config import ExtractionRule
from sdpo_solve.grading.python_source import SourceFacts, entry_name, parse
from sdpo_solve.grading.python_source import facts as source_facts
from sdpo_solve.grading.thinking import without_thinking
from sdpo_solve.sandboxes.languages import Language
from sdpo_solve.types import Extracted, Finish

_FENCE = "```"
_MAX_ANSWER_CHARS = 400_000
_MAX_READ_CHARS = 300_000  # of all other readings together, 1000 for each at least
_NO_PROGRAM, _OF_LANGUAGE, _PARSES, _DEFINES, _COMPLETE, _READS = range(6)
# Info strings of blocks that are not a program in any language of the sandbox.
_OTHER_TAGS = """
    bash sh shell zsh console terminal cmd powershell text txt plaintext plain output stdout stderr stdin
    input json yaml yml toml ini xml html css csv diff patch markdown md latex tex math mermaid pycon
    doctest traceback python-repl python cpp c++ c java javascript js go typescript ts golang rust rs ruby
    rb kotlin kt swift scala csharp cs dart dockerfile haskell julia lua makefile perl php r sql
"""
_LOOSE_TAGS = ("text", "txt", "plaintext", "plain", "c")  # of those, what may hold a program after all
_CODE_LINE = re.compile(
    r"^\s*(?:def|class|import|from|for|while|if|print|return|with|try)\b|^\s*#include|;\s*$|=", re.MULTILINE
)
_DEFINED = re.compile(r"^[ \t]*(?:async[ \t]+)?(?:def|class)[ \t]+(\w+)", re.MULTILINE)
# C++: a definition of main, and a first line that is no sentence.
_MAIN = re.compile(r"\bmain\s*\([^()]*\)[^;{}]{0,80}\{")
_CPP_START = re.compile(r"\s*(?:[#/]|[^\n]*[;{})>][ \t]*(?://[^\n]*)?(?:\n|$))")
# Its comments, strings and characters, also those that do not end: no text is read twice.
_CPP_TEXT = re.compile(r"""//[^\n]*|/\*.*?(?:\*/|\Z)|"(?:[^"\\\n]|\\.)*"?|'(?:[^'\\\n]|\\.)*'?""", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Block:
    """A fenced block. `tag`: the language of its info string, in lower case, may be empty."""

    tag: str
    code: str
    closed: bool = True


def extract(
    text: str,
    finish: Finish,
    language: Language,
    entry_point: str | None = None,
    rule: ExtractionRule = "program",
) -> Extracted:
    """The program of an answer in `language`; `entry_point`: what it must define, None for standard input."""
    if rule == "livecodebench":
        code = between_last_fences(text)
        return Extracted(code, code is None and finish is Finish.LENGTH)
    answer = without_thinking(_bare(text[-_MAX_ANSWER_CHARS:]))
    cut_off = finish is Finish.LENGTH or answer.unfinished
    search = _Search(language, entry_point)
    blocks = [block for block in _fenced(answer.text, search) if block.code.strip()]
    closed = [block for block in blocks if block.closed]
    best = search.best(closed if cut_off else blocks)
    if best.score < _COMPLETE and len(closed) < len(blocks):
        best = search.best(closed)
    if best.score < _COMPLETE and not answer.unfinished:
        open_blocks = [] if cut_off else [block for block in blocks if not block.closed]
        readings = [_Block("", code) for code in _other_readings(answer.text, search, cut_off)]
        other = search.best(open_blocks + readings, closed)
        best = other if other.score > max(best.score, _OF_LANGUAGE) else best
    if best.score == _NO_PROGRAM:
        return Extracted(None, cut_off or len(blocks) > len(closed))
    return Extracted(best.code)


def between_last_fences(text: str) -> str | None:
    """What stands between the last two lines that hold ```; None where there are fewer than two."""
    lines = text.split("\n")
    fences = [number for number, line in enumerate(lines) if _FENCE in line]
    return "\n".join(lines[fences[-2] + 1 : fences[-1]]) if len(fences) >= 2 else None


# -- which block -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Scored:
    score: int
    code: str = ""


@dataclass(frozen=True, slots=True)
class _Names:
    """The names that the blocks of an answer bind, and those that blocks define which do not parse: their
    syntax may be newer than the host's Python.
    """

    bound: frozenset[str]
    unread: frozenset[str]


def _names_of(blocks: Sequence[_Block], facts: Sequence[SourceFacts | None]) -> _Names:
    texts = [block.code for block, each in zip(blocks, facts, strict=True) if each is None]
    return _Names(
        bound=frozenset().union(*(each.binds for each in facts if each is not None)),
        unread=frozenset(name for text in texts for name in _DEFINED.findall(text)),
    )


@dataclass(frozen=True, slots=True)
class _Search:
    """How blocks are compared: for one language, and one entry point."""

    language: Language
    entry_point: str | None

    def best(self, blocks: Sequence[_Block], others: Sequence[_Block] = ()) -> _Scored:
        """The last of the blocks that score most; `others`: further blocks of the answer."""
        every = (*blocks, *others)
        facts = [self._facts(block.code) for block in every]
        names = _names_of(every, facts)
        best = _Scored(_NO_PROGRAM)
        for block, of_block in zip(blocks, facts, strict=False):
            score = self._score(block, of_block, names)
            if score and score >= best.score:
                best = _Scored(score, block.code)
        return best

    def is_tagged(self, tag: str) -> bool:
        """Whether an info string names the language, with or without a version."""
        return tag in self.language.fence_tags or tag.rstrip("0123456789.") in self.language.fence_tags

    def joined(self, block: _Block, beside: str) -> _Block:
        """`block` with the code that stands on its opening line, where the rest needs it."""
        whole, rest = (self._facts(code) for code in (f"{beside}\n{block.code}", block.code))
        if whole is None:
            return block
        needed = rest is None or "*" in whole.imports or rest.uses & (whole.binds | whole.imports)
        return replace(block, code=f"{beside}\n{block.code}") if needed else block

    def unglued(self, block: _Block) -> _Block:
        """An open block up to the one fence in it, glued to the end of a line, where that is whole code."""
        lines = block.code.split("\n")
        fences = [number for number, line in enumerate(lines) if _FENCE in line]
        if len(fences) != 1 or not lines[fences[0]].rstrip().endswith(_FENCE):
            return block
        code = "\n".join([*lines[: fences[0]], lines[fences[0]].rstrip().rstrip("`")])
        return replace(block, code=code, closed=True) if self._ends(code) else block

    def _ends(self, code: str) -> bool:
        """Whether code is not cut off in its middle; for C++ its braces tell."""
        if self.language.makes_calls:
            return parse(code) is not None
        code = _CPP_TEXT.sub("", code)
        return code.count("{") == code.count("}")

    def _score(self, block: _Block, facts: SourceFacts | None, names: _Names) -> int:
        tagged = self.is_tagged(block.tag)
        if not tagged and block.tag in _OTHER_TAGS.split():
            return _NO_PROGRAM
        if block.code.lstrip().startswith((">>>", "$ ", "Traceback (most")):
            return _NO_PROGRAM
        if not self.language.makes_calls and _MAIN.search(block.code):
            if not block.closed and not self._ends(block.code):
                return _OF_LANGUAGE
            return _COMPLETE if tagged or _CPP_START.match(block.code) else _NO_PROGRAM
        if facts is None:
            return _OF_LANGUAGE if tagged or _CODE_LINE.search(block.code) else _NO_PROGRAM
        if not facts.acts:
            return _OF_LANGUAGE if tagged else _NO_PROGRAM
        if self.entry_point is not None:
            if entry_name(self.entry_point, facts.functions) is not None:
                return _COMPLETE
        elif facts.holds_writer and not facts.uses & (names.bound | names.unread):
            return _DEFINES if not facts.writes else _READS if facts.reads else _COMPLETE
        return _NO_PROGRAM if facts.uses & names.unread else _PARSES

    def _facts(self, code: str) -> SourceFacts | None:
        """Facts about a code that parses; None for others, and where the grammar is not Python's."""
        tree = parse(code) if self.language.makes_calls else None
        return source_facts(tree) if tree is not None else None


# -- readings of the fences ----------------------------------------------------------------------


def _fenced(text: str, search: _Search) -> list[_Block]:
    """The fenced blocks by CommonMark's rules, those inside lists and quotes too."""
    from markdown_it import MarkdownIt

    # Tags such as <answer> must not hide a fence, and what is between blocks is not needed.
    parser = MarkdownIt("commonmark").disable(
        ["inline", "text_join", "html_block", "reference", "lheading"], True
    )
    lines = text.split("\n")
    blocks = []
    for token in parser.parse(text):
        if token.type != "fence" or token.map is None:
            continue
        first, last = token.map[0], min(token.map[1], len(lines)) - 1
        end = lines[last].strip(" \t\r>")
        closed = last > first and end.startswith(token.markup) and not end.strip(token.markup[0])
        tag, beside = _info(token.info)
        code = _bare(token.content.removesuffix("\n"))
        line, _, rest = code.partition("\n")
        if not tag and search.is_tagged(line.strip().lower()):  # the tag on a line of its own
            tag, code = line.strip().lower(), _bare(rest)
        block = _Block(tag, code, closed)
        block = block if closed else search.unglued(block)
        blocks.append(search.joined(block, beside) if beside else block)
    return blocks


def _bare(code: str) -> str:
    """`code` without a byte order mark before it: CPython takes one in a file, `ast.parse` does not."""
    return re.sub(r"\A(\s*)\ufeff+", r"\1", code)


def _info(text: str) -> tuple[str, str]:
    """An info string's language and the rest: `Python`, `{.python}` and `python x = 1` are in `python`."""
    match = re.match(r"[{.\s]*([\w+#.-]*)\s*", text)
    return (match[1].lower(), text[match.end() :]) if match else ("", text)


def _other_readings(text: str, search: _Search, cut_off: bool) -> Iterator[str]:
    """The first of the other readings that is a complete program."""
    n_chars = 0
    for code in map(_bare, _readings(text, search, cut_off)):
        n_chars += len(code) + 1000
        if n_chars > _MAX_READ_CHARS:
            return
        if code.strip() and search.best([_Block("", code)]).score >= _COMPLETE:
            yield code
            return


def _readings(text: str, search: _Search, cut_off: bool) -> Iterator[str]:
    """Between any two lines with a fence, later ones first; before a lone fence; the whole answer."""
    lines = text.split("\n")
    fences = [n for n, line in enumerate(lines) if _FENCE in line or line.lstrip().startswith("~~~")]
    for position in range(len(fences) - 1, -1, -1):
        yield from _from_fence(lines, fences, position, search)
    if fences:
        before = lines[: fences[0]]
        starts = [0] + [n + 1 for n, line in enumerate(before) if not line.strip()]
        for start in starts[:8]:
            yield "\n".join(before[start:])
    elif not cut_off:
        yield text


def _from_fence(lines: Sequence[str], fences: Sequence[int], position: int, search: _Search) -> Iterator[str]:
    """Codes that begin at one fence, with and without what stands on its line."""
    number = fences[position]
    rest = re.split(r"```+|~~~+", lines[number], maxsplit=1)[1]
    word = re.match(r"[\w+#.-]*", rest)
    tag = word[0].lower() if word else ""
    if tag in _OTHER_TAGS.split() and tag not in _LOOSE_TAGS and not search.is_tagged(tag):
        return
    beside = rest[len(tag) :] if search.is_tagged(tag) else rest
    if _FENCE in beside:  # opened and closed on one line
        yield beside.split(_FENCE)[0].strip()
    for end in fences[position + 1 : position + 6]:
        body = list(lines[number + 1 : end])
        glued = re.split(r"```+|~~~+", lines[end])[0]
        body += [glued] if glued.strip() else []
        yield textwrap.dedent("\n".join(body))
        if beside.strip():
            yield "\n".join([beside.lstrip(), *body])
