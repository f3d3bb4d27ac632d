"""The fenced blocks of a page, and the commands in them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))
# What a fence may say that it holds; `text` is a picture or a form, not to be run.
LANGUAGES = ("console", "json", "python", "sh", "text", "toml", "yaml")

_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.M | re.S)


@dataclass(frozen=True, slots=True)
class Block:
    """What stands between two fences.

    Attributes:
        page: its path below the clone.
        line: of the first fence.
        language: what the fence says.
        text: the lines between.
        heading: that it stands below, without its marks.
    """

    page: str
    line: int
    language: str
    text: str
    heading: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}-{self.language}"


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a shell, and what the page says that it prints; empty where it says nothing."""

    text: str
    shown: str = ""


def read_page(page: str) -> str:
    """The text of a page."""
    return (ROOT / page).read_text("utf-8")


def blocks_of(page: str) -> list[Block]:
    """All blocks of a page, in order."""
    return find_blocks(page, read_page(page))


def find_blocks(page: str, text: str) -> list[Block]:
    """The blocks in the text of a page, in order."""
    return [
        Block(
            page,
            text.count("\n", 0, found.start()) + 1,
            found[1],
            found[2],
            re.findall(r"^#+ (.+)$", f"# \n{text[: found.start()]}", re.M)[-1].replace("`", ""),
        )
        for found in _FENCE.finditer(text)
    ]


def commands_of(block: Block) -> list[Command]:
    """The commands of a block of `sh` (all lines), or of `console` (those behind a `$`)."""
    if block.language == "sh":
        return [Command(text) for text in _join(block.text.splitlines())]
    parts = re.split(r"^\$ ", block.text, flags=re.M)
    assert parts[0] == "", f"{block}: a console block begins with '$ '"
    found = []
    for part in parts[1:]:
        lines = part.splitlines()
        command = _join(lines, first=True)[0]
        shown = "\n".join(lines[command.count("\n") + 1 :])
        found.append(Command(command, shown.strip()))
    return found


def _join(lines: list[str], *, first: bool = False) -> list[str]:
    """Lines as commands: a command goes on behind a backslash, and until its quotes are closed."""
    commands: list[str] = []
    begun = ""
    for line in lines:
        begun = f"{begun}\n{line}" if begun else line
        if line.endswith("\\") or not _is_closed(begun):
            continue
        if shlex.split(begun, comments=True):
            commands.append(begun)
        begun = ""
        if first and commands:
            return commands
    assert not begun, f"a command that does not end: {begun}"
    return commands


def _is_closed(text: str) -> bool:
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return False
    return True
