"""Output on the terminal: results on stdout; notes, warnings and progress bars on stderr."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from rich.console import Console

from einthoven import progress

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
