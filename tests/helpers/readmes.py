"""The READMEs of the repository, and the commands that they print."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
READMES = sorted(
    path for path in ROOT.rglob("README.md") if not {".venv", ".git", "chat_templates"} & set(path.parts)
)


def blocks(text: str, *languages: str) -> list[str]:
    """The fenced blocks of these languages; an empty text stands for a fence without one."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block for language, block in fenced if language in languages]


def commands(path: Path) -> list[str]:
    """Every `sdpo-solve ...` of shell blocks, transcripts and inline code, without what a shell does around it.

    Variables that a block sets (`sizes=DIR`) are put in.
    """
    text = path.read_text("utf-8")
    found = []
    for block in blocks(text, "sh", ""):
        lines = re.sub(r"\\\n\s*", "", block.replace("\n$ ", "\n").removeprefix("$ "))
        for name, quoted, plain in re.findall(r"(?:^| )(\w+)=(?:\"([^\"]*)\"|(\S+))", lines, re.MULTILINE):
            lines = lines.replace(f"${name}", quoted or plain)
        found += re.findall(r"(?:^|&& )\s*(?:\.venv/bin/)?(sdpo-solve [^&|>#\n]+)", lines, re.MULTILINE)
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    found += [" ".join(code.split()) for code in re.findall(r"`(sdpo-solve [^`]+)`", prose)]
    return sorted({command.strip() for command in found})
