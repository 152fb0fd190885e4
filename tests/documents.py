"""Pages of Markdown as a reader goes through them: each block in its turn, none left out.

`sh` and `python` blocks are run, `text` blocks are what the one before printed; in `sh`, ID means
the execution that was told of last. Comments right before a block say what else holds for it:

    <!-- file: NAME -->        it is a file, which a later block uses
    <!-- exit: N -->           it ends with this exit code
    <!-- background: TEXT -->  it goes on; it is ready once it has printed TEXT
    <!-- terminal -->          it runs in a terminal; its texts are screens, the last one the end's
    <!-- needs: WHAT -->       it is run by a test of its own, where there is WHAT
    <!-- not run: REASON -->   it can't be
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

_COMMENT = re.compile(r"<!--\s*([a-z ]+?)\s*(?::\s*(.*?)\s*)?-->")
_REMARKS = {"file", "exit", "background", "terminal", "needs", "not run"}
_RUN = {"sh", "python"}
_MASKS = [
    (r"https?://[^\s'\"]+", "URL"),
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID"),
    (r"\b[A-Z][a-z]{2} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d\d:\d\d", "TIME"),
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d", "TIME"),
    (r"\b\d\d:\d\d:\d\d\b", "TIME"),
    (r"\b(\d+h )?(\d+m )?\d+(\.\d+)? ?s\b", "DURATION"),
    (r"(?<![\w./])/[\w.-]+(/[\w.-]+)+", "PATH"),
    (r"Prefect \d+\.\d+\.\d+", "Prefect VERSION"),
    (r"[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏]", "⠋"),
    (r"█+", "█"),
    (r"[ \t]+", " "),
]


class PageError(Exception):
    """A page has something that can't be run or checked."""


@dataclass(frozen=True)
class Block:
    """A fenced block, and what the comments before it say."""

    place: str
    language: str
    text: str
    remarks: dict[str, str]


@dataclass(frozen=True)
class Step:
    """A block that does something, and what it prints as far as the page shows it."""

    block: Block
    shown: list[str] = field(default_factory=list)


def steps(page: Path) -> list[Step]:
    """What a reader does.

    Raises:
        PageError: There is a block that nothing would run or check.
    """
    found: list[Step] = []
    for block in _blocks(page):
        if block.language == "text" and not block.remarks:
            if not found or "file" in found[-1].block.remarks:
                raise PageError(f"{block.place}: nothing was run that could have printed this")
            found[-1].shown.append(block.text)
        elif "file" in block.remarks or block.language in _RUN:
            found.append(Step(block))
        else:
            raise PageError(f"{block.place}: nobody runs or checks a block of {block.language!r}")
    _check_files(found)
    return found


def _blocks(page: Path) -> Iterator[Block]:
    remarks: dict[str, str] = {}
    for token in MarkdownIt("commonmark").parse(page.read_text()):
        if token.type == "html_block":
            remarks |= dict(_COMMENT.findall(token.content))
            continue
        if token.type in {"fence", "code_block"}:
            place = f"{page.name}:{token.map[0] + 1 if token.map else 0}"
            if unknown := remarks.keys() - _REMARKS:
                raise PageError(f"{place}: unknown comment {unknown}")
            yield Block(place, token.info or token.type, token.content, remarks)
        remarks = {}


def _check_files(found: list[Step]) -> None:
    for position, step in enumerate(found):
        name = step.block.remarks.get("file")
        later = [other.block.text for other in found[position + 1 :]]
        if name is not None and not any(name in text for text in later):
            raise PageError(f"{step.block.place}: no later block uses {name}")


def inline_code(page: Path) -> Iterator[str]:
    """The pieces of code within the text of a page."""
    for token in _inline(page):
        if token.type == "code_inline":
            yield token.content


def links(page: Path) -> Iterator[str]:
    """Where a page links to."""
    for token in _inline(page):
        if token.type == "link_open":
            yield str(token.attrs["href"])


def _inline(page: Path) -> Iterator[Token]:
    for token in MarkdownIt("commonmark").enable("table").parse(page.read_text()):
        yield from token.children or []


def masked(text: str) -> list[str]:
    """The lines of a text without what differs from run to run, and without Prefect's own log."""
    text = re.sub(r"(?m)^\d\d:\d\d:\d\d\.\d+ \| .*$", "", text)
    for pattern, replacement in _MASKS:
        text = re.sub(pattern, replacement, text)
    return [line.strip() for line in text.splitlines() if line.strip()]


def is_shown(shown: str, printed: str) -> bool:
    """Whether a page shows what was printed; a line of dots stands for any number of lines."""
    lines = [r"(.*\n)*" if line == "..." else re.escape(line) + r"\n" for line in masked(shown)]
    return (
        re.fullmatch("".join(lines), "".join(f"{line}\n" for line in masked(printed))) is not None
    )
