"""The command lines that the documentation shows, found and read as a shell would."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import shlex
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parent.parent
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in (
        *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md"),
        *(
            "benchmarks/README.md",
            "benchmarks/*.py",
            "stress/*.py",
            "configs/*.py",
            "examples/*.py",
        ),
    )
    for path in ROOT.glob(pattern)
)

_TUTORIAL = re.compile(
    r"<!-- tutorial[^\n]* -->\n```sh\n(.*?)^```", re.MULTILINE | re.DOTALL
)
TUTORIALS = [page for page in PAGES if _TUTORIAL.search((ROOT / page).read_text())]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(`+)(.+?)\1", re.DOTALL)
_INDENTED = re.compile(r"^    (?=(?:python|sphemb|pip) )((?:.*\\\n)*.*)", re.MULTILINE)
_COMMAND = re.compile(r"(\.venv/bin/)?(sphemb|python3?|pip) ")


@dataclasses.dataclass(frozen=True)
class Command:
    """One line that a reader may type.

    Attributes:
        words: what the shell makes of it, the program first.
        whole: it stands in a block, to be typed as it is. In running text what the
            reader knows already may be left out.
    """

    words: tuple[str, ...]
    whole: bool

    def __str__(self) -> str:
        """Gives the line again, to be told."""
        return shlex.join(self.words)


def shell_blocks(text: str) -> list[str]:
    """The fenced blocks of a page that a shell can read."""
    return [block for name, block in _FENCE.findall(text) if name in ("sh", "bash")]


def code_spans(text: str) -> list[str]:
    """What stands in backquotes outside of the blocks, on one line each."""
    found = _SPAN.findall(_FENCE.sub("", text))
    return [" ".join(span.split()) for _, span in found]


def split_lines(block: str) -> Iterator[tuple[str, ...]]:
    """The words of every command, without comments and what joins commands."""
    for line in block.replace("\\\n", " ").splitlines():
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), "&&"]:
            if word != "&&":
                words.append(word)
            elif words:
                yield tuple(words)
                words = []


def read_page(page: str) -> list[Command]:
    """The commands of a page.

    Args:
        page: one of `PAGES`: a Markdown file, or a Python file whose docstring has
            commands in indented lines or in backquotes.

    Returns:
        Those of the programs that a reader has from here, in their order.
    """
    text = (ROOT / page).read_text()
    blocks = shell_blocks(text)
    if page.endswith(".py"):
        text = re.split(r'r?"""', text)[1]
        # A config says, behind some room, what a variant is.
        blocks = [
            re.split(r"\s{4,}", block.replace("\\\n        ", ""))[0]
            for block in _INDENTED.findall(text)
        ]
    spans = [span for span in code_spans(text) if _COMMAND.match(span)]
    return [
        Command(_plain(words), whole)
        for lines, whole in ((blocks, True), (spans, False))
        for line in lines
        for words in split_lines(line)
    ]


def read_tutorial(page: str) -> list[Command]:
    """The commands that a page asks to type, in their order."""
    blocks = _TUTORIAL.findall((ROOT / page).read_text())
    return [
        Command(_plain(words), True) for block in blocks for words in split_lines(block)
    ]


def _plain(words: tuple[str, ...]) -> tuple[str, ...]:
    """A command without the environment's folder and the brackets of usage."""
    program = words[0].removeprefix(".venv/bin/")
    told = (
        word if "[" in word[1:] else word.strip("[]")  # extras keep theirs
        for word in words[1:]
    )
    return (program, *(word for word in told if word not in ("", "...")))
