"""Output on the terminal: results on stdout; notes, warnings and progress bars on stderr."""

from __future__ import annotations

import ast
import os
import re
import shlex
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


_ARGUMENT = re.compile(r"`([a-z_]+)=([^`]+)`")
_OPTIONS = {
    "columns": "text",
    "keys": "key",
    "lead_subset": "leads",
    "options": "option",
    "overrides": "set",
    "shares": "share",
}
"""Options whose name is not that of the argument."""


def as_options(text: str) -> str:
    """Arguments of a Python function in a message of the library as options of a command.

    `folds=5` becomes --folds 5, `weights=...` becomes --weights, `overrides=['epochs=1']` becomes
    --set epochs=1, and `task=Task(kind='binary')` becomes --kind binary. Placeholders, such as
    COLUMN, stay as they are.
    """
    return _ARGUMENT.sub(_options, text)


def _options(argument: re.Match[str]) -> str:
    try:
        return _option(argument[1], ast.parse(argument[2], mode="eval").body)
    except SyntaxError:
        return argument[0]


def _option(name: str, value: ast.expr) -> str:
    if isinstance(value, ast.Call):
        return " ".join(_option(str(part.arg), part.value) for part in value.keywords)
    option = f"--{_OPTIONS.get(name, name).replace('_', '-')}"
    try:
        content = ast.literal_eval(value)
    except ValueError:
        return f"{option} {ast.unparse(value)}"
    if content is True or content is ...:
        return option
    if isinstance(content, list):
        return " ".join(f"{option} {shlex.quote(str(item))}" for item in content)
    text = ",".join(content) if isinstance(content, tuple) else str(content)
    return f"{option} {shlex.quote(text)}"


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
    """Print a line to stderr, with arguments as options."""
    console.print(as_options(text), style=style, soft_wrap=True)


@contextmanager
def shown_warnings() -> Iterator[None]:
    """Print warnings, and the library's log of decisions, as one line each."""

    def show(message: Warning | str, *details: Any, **more: Any) -> None:
        note(f"Warning: {message}", style="yellow")

    with warnings.catch_warnings(), progress.decisions(note):
        warnings.showwarning = show
        yield
