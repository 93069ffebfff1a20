"""Output on the terminal: results on stdout; notes, warnings and progress bars on stderr."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import typer
from rich.console import Console as RichConsole
from rich.text import Text

from einthoven import progress

# Control characters except tab and newline, marks of writing direction, line separators, and the
# bytes of file names that are no text.
_CONTROL = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]"
)


def escaped(text: str) -> str:
    r"""Text for a terminal: control characters as `\u001b`, which JSON takes too."""
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def echo(text: object, *, err: bool = False, nl: bool = True) -> None:
    """Print a result as it is, without line breaks of its own."""
    typer.echo(escaped(str(text)), err=err, nl=nl)


class Console(RichConsole):
    """A terminal on which texts cannot move the cursor or reverse the direction of writing."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Text of a string, in a line or in a cell of a table."""
        return super().render_str(escaped(text), **options)


# Labels and file names are printed as they are: square brackets in them are not markup. Among
# several processes (torchrun sets RANK) only the first one writes to stderr.
output = Console(markup=False, emoji=False, highlight=False)
console = Console(
    stderr=True,
    markup=False,
    emoji=False,
    highlight=False,
    quiet=os.environ.get("RANK", "0") != "0",
)
progress_bars = partial(progress.progress_bars, console)


def note(text: str, *, style: str | None = None) -> None:
    """Print a line to stderr."""
    console.print(text, style=style, soft_wrap=True)


@contextmanager
def shown_warnings() -> Iterator[None]:
    """Print warnings, and the library's log of decisions, as one line each."""

    def show(message: Warning | str, *details: Any, **more: Any) -> None:
        note(f"Warning: {message}", style="yellow")

    with warnings.catch_warnings(), progress.decisions(note):
        warnings.showwarning = show
        yield
