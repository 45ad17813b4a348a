"""Text of strangers, as names and metadata are, made fit for a terminal, a shell and a table."""

import os
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with which a spreadsheet's formula begins


def printable(text: str) -> str:
    """Text for a terminal: control characters and bytes that are no text are shown, not sent."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def as_text(*parts: str | tuple[str, str]) -> "Text":
    """A line for `rich` of words, plain or with a style, and never markup."""
    from rich.text import Text

    return Text.assemble(*(printable(p) if isinstance(p, str) else (printable(p[0]), p[1]) for p in parts))


def quote_name(name: str) -> str:
    """A file name as a word of a shell's command line, of printable characters only.

    What is not printable is written in bytes, as `$'...'` of bash, zsh and POSIX 2024.
    """
    if name.isprintable():
        return shlex.quote(name)
    bytes_ = os.fsencode(name)
    plain = (chr(b) if 32 <= b < 127 and b not in b"\\'" else f"\\x{b:02x}" for b in bytes_)
    return f"$'{''.join(plain)}'"


def as_cell(text: str) -> str:
    """Text for a cell of a spreadsheet: printable lines, and never the beginning of a formula."""
    text = "\n".join(map(printable, text.split("\n")))
    return f"'{text}" if text.startswith(_FORMULA) else text
