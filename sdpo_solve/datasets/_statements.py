"""Facts that a statement or starter code states about its tests: granted errors, letters in any case, several
right outputs, forms that cannot be judged by comparing outputs.

English phrases of AtCoder, LeetCode, Codeforces and the data sets made from them. Used live on every row, so
that a whole release is treated alike; `_lcb_scan.py` keeps the findings on LiveCodeBench as a table.
"""

from __future__ import annotations

import re
import unicodedata

SEVERAL = "several outputs are right, the tests accept one"
INTERACTIVE = "interactive"

_MINUS = r"[-−‐‑–﹣－]"
# An error of another kind goes first and grants nothing, nor does a limit of time. Else a word, and a
# negative power of ten after it in the same sentence, which may be wrapped, though not over an empty line or
# into the next item of a list.
_UNIT_OF_TIME = r"(?:[mμ]?s|(?:milli|micro)?sec(?:ond)?s?|minutes?|hours?)\b"
_LIMIT_OF_TIME = rf"\s+[\d.e^-]{{1,12}}\s*{_UNIT_OF_TIME}(?!\s+(?:of|from)\b)"
_ERROR = re.compile(
    r"\b(?:compil\w+|run-?time|syntax|presentation|internal|server)[ \t]+errors?\b"
    r"|\berrors?[ \t]+(?:codes?|messages?|numbers?)\b"
    rf"|\b(?:errors?|within(?!{_LIMIT_OF_TIME})|tolerance|precision|accuracy)\b"
    r"(?:[^.\n]|(?<=\d)\.(?=\d)|\n(?![ \t\r]*(?:\n|[-*•]\s))){0,160}?"
    rf"(?:10\s*(?:\^|\*\*|<sup[^>\n]{{0,60}}>)?\s*[{{(]{{0,2}}\s*{_MINUS}\s*[{{(]?(\d{{1,2}})"
    rf"|10⁻([⁰¹²³⁴-⁹]{{1,2}})|(?<![\d.])1(?:\.0{{1,9}})?e{_MINUS}(\d{{1,2}})|(?<!\d)0?\.(0{{1,11}})1\b)",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][)\"'”’]))\s+(?=[A-Z\"'“‘(*$])|\n\s*\n")
_WINDOW_CHARS, _MOST_CHARS = 600, 6000  # of a sentence: looking at one is not linear
_SPEAKS_OF_CASE = re.compile(r"case|register|capitali|yes", re.IGNORECASE)
_WRITES = r"\b(?:print|output|writ|display|answer|respon|verdict)\w*"
_JUDGES = r"\b(?:checker|judge|grader|accept|recogni[sz]|treated as|considered)\w*"
_MAY = r"\b(?:can|may|could|free|allowed|permitted|accepted|acceptable|ok|okay|fine)\b"
_LETTERS = r"\b(?:letter|character|symbol)s?\b"
_ANY = r"(?:any|either|arbitrary|whatever|whichever)"
_IN_ANY_CASE = rf"\bin {_ANY} (?:case|register)\b"
_UPPER_OR_LOWER = r"(?:upper|lower)[- ]?(?:case)? ?(?:or|and|/) ?(?:in )?(?:upper|lower)[- ]?case"
# What is said of letters alone, in a sentence on what is written or how it is judged.
_LETTER_CASE = (
    rf"\b{_ANY} (?:letter|character)s?[- ]case"
    rf"|{_IN_ANY_CASE}\s*(?:,?\s*(?:upper|lower)|\(|,? (?:for example|e\.g)[, ]+(?:\w+ )?[\"'“‘`\\$])"
    rf"|\(\s*{_IN_ANY_CASE}\s*\)"
    rf"|\b(?:both|either) (?:in )?{_UPPER_OR_LOWER}[^.,;]{{0,40}}\baccept"
    rf"|\b{_UPPER_OR_LOWER}[^.,;]{{0,40}}\b(?:both|either) (?:are |is |be )?accept"
    r"|\b(?:case|capitali[sz]ation)(?: of [^.,;]{0,40}?)? (?:does|do|is|are)(?: not|n't|n’t)"
    r" (?:matter|important|significant|relevant|checked)"
    r"|\b(?:regardless|irrespective) of (?:the )?(?:letters?'? |character )?case\b"
    r"|\bcase[- ]?insensitive\b|(?:\bnot|n't|n’t) case[- ]?sensitive|\b(?-i:yEs|yeS|YeS|yES)\b"
)
# "In any case" may mean "whatever happens", and "upper or lower case" what a text consists of.
_GRANTS_CASE = re.compile(
    rf"(?=.*(?:{_WRITES}|{_JUDGES}))(?=.*(?:{_LETTER_CASE}))"
    rf"|(?:{_WRITES}.*{_LETTERS}|{_LETTERS}.*{_WRITES}).*{_IN_ANY_CASE}"
    rf"|{_MAY}.*(?:{_WRITES}|\bgive\w*).*(?:{_IN_ANY_CASE}|\bin (?:{_ANY} |both )?{_UPPER_OR_LOWER})",
    re.IGNORECASE | re.DOTALL,
)
_ANY_OF = r"\b(?:any|an arbitrary)(?: one)? of (?:them|these|those)\b"
_PRINT = r"\b(?:print|output|return)(?:ing)?"
_GIVE = rf"(?:{_PRINT}|\b(?:write|report|give|show|find))"
_IN_ANY_ORDER = r"in (?:any|(?:an )?arbitrary) order"
_CLAUSE_END = r"(?=\s*[.,;)]|\s*$)"
_RIGHT = r"(?:valid|correct|possible|suitable|appropriate|acceptable|optimal|feasible)"
_SEVERAL = re.compile(
    r"\b(?:multiple|several|many|more than one|various)\b[^.\n]{0,120}"
    rf"(?:{_ANY_OF}|{_GIVE} one of (?:them|these|those)\b"
    rf"|(?:{_GIVE}|\b(?:choose|pick|select)) any(?: one)?{_CLAUSE_END})"
    rf"|{_ANY_OF}[^.\n]{{0,40}}\b(?:accept|correct|valid|fine|allowed|will do)"
    rf"|{_PRINT} (?:any|an arbitrary) (?:of|one|such|solution|answer|{_RIGHT})"
    rf"|{_PRINT} any{_CLAUSE_END}"
    rf"|{_PRINT} any \w+ (?:that|which|such|satisfying)\b"
    rf"|{_PRINT}[^.\n]{{0,120}}\b{_IN_ANY_ORDER}"
    r"|\b(?:answers?|outputs?|results?|solutions?)\b[^.\n]{0,60}\b(?:printed|returned|be|given) "
    rf"{_IN_ANY_ORDER}"
    # Not one that lies within an error, nor one that is refused.
    r"|\bany (?:of the )?(?!(?:other|wrong|incorrect)\b)(?:[\w-]+ ){0,2}"
    r"(?:answer|solution|output|sequence|arrangement)s?\b"
    r"(?:(?!\b(?:not|within|errors?|precision)\b|n't|n’t)[^.\n]){0,40}(?:accepted|will do|is fine)"
    r"|(?<!if )\bany (?:one )?(?:(?:(?:will|would|can|may) be|is|are) accept|will do\b)",
    re.IGNORECASE | re.MULTILINE,
)
_INTERACTIVE = re.compile(
    r"\bthis is an interactive|\binteractive (?:problem|task)|\b(?:problem|task) is interactive"
    r"|\binteractor\b|\binteract with the (?:judge|grader)",
    re.IGNORECASE,
)
_CLASSES = (
    r"\w*ListNode|TreeNode|GraphNode|NestedInteger|BinaryMatrix|MountainArray|ArrayReader|CustomFunction"
    r"|Optional\[Node\]|'Node'"
)
_NODES = re.compile(rf"^[^#\n]*(?<!\w)({_CLASSES})", re.MULTILINE)
_IN_PLACE = re.compile(r"\)\s*->\s*None\s*:")
_DEFINITION = re.compile(r"^[ \t]*(?:(?:async[ \t]+)?def[ \t]+(\w+)|class[ \t]+\w+[ \t]*[:(])", re.MULTILINE)


def granted_error(statement: str) -> float:
    """The relative or absolute error that a statement grants; 0 where it grants none."""
    match = next((each for each in _ERROR.finditer(statement) if any(each.groups())), None)
    if match is None:
        return 0.0
    # A superscript is no digit for int(); its compatibility form is.
    power = unicodedata.normalize("NFKC", match[1] or match[2] or match[3] or "")
    digits = int(power or len(match[4]) + 1)
    return 10.0**-digits if 1 <= digits <= 15 else 0.0


def grants_case(statement: str) -> bool:
    """Whether a statement says that letters of the output may be written in any case."""
    windows = (
        sentence[at : at + _WINDOW_CHARS]
        for sentence in _SENTENCE_END.split(statement)
        for at in range(0, min(len(sentence), _MOST_CHARS), _WINDOW_CHARS // 2)
    )
    return any(_SPEAKS_OF_CASE.search(text) and _GRANTS_CASE.search(text) for text in windows)


def statement_fault(statement: str) -> str | None:
    """Why outputs of this problem cannot be judged by comparing them; None where no reason is found."""
    if _INTERACTIVE.search(statement):
        return INTERACTIVE
    return SEVERAL if _SEVERAL.search(statement) else None


def starter_fault(starter_code: str, entry_point: str = "") -> str | None:
    """Why a function with this starter code cannot be called with plain values; None where it can.

    `entry_point`: the one that is called; any of them where it is not known.
    """
    for text in _functions(starter_code, entry_point.rpartition(".")[2]):
        node = _NODES.search(text)
        if node:
            return f"its arguments are objects of a class ({node[1]})"
        if _IN_PLACE.search(text):
            return "it changes its argument in place and returns None"
    return None


def _functions(code: str, name: str) -> list[str]:
    """The functions of this name with their docstrings; else all but `__init__` and its kin; else all."""
    starts = list(_DEFINITION.finditer(code))
    ends = [start.start() for start in starts[1:]] + [len(code)]
    found = [(start[1] or "__", code[start.start() : end]) for start, end in zip(starts, ends, strict=False)]
    called = [text for defined, text in found if defined == name]
    return called or [text for defined, text in found if not defined.startswith("__")] or [code]
