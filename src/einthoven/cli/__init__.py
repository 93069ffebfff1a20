"""The command line. Each command imports what it needs when it runs."""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False  # as in typing, whose import takes longer than everything else here
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

RESUMABLE = ("demo", "download", "pack", "predict", "pretrain", "posttrain", "reproduce")
"""Commands that continue an interrupted run when they are repeated; `predict` with --out."""

GOMP_SPINCOUNT = "3000"
"""How many times an idle OpenMP thread polls before it sleeps: some microseconds, 1 % of the
default of GNU's OpenMP."""

_SIGNALS = {signal.SIGINT: (130, "Interrupted"), signal.SIGTERM: (143, "Terminated")}
"""Exit status and message."""


class _Signal(BaseException):
    """SIGINT or SIGTERM; a BaseException, so that no handler of errors takes it.

    KeyboardInterrupt would not do: Python ends by SIGINT itself, whatever the exit status, if one
    passed through `exec`, as in the creation of a dataclass.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main(arguments: list[str] | None = None) -> None:
    """Run the command line.

    Exits with status 1 and one message, with its remedy, for an EinthovenError, a place that cannot
    be read or written, and a lack of memory; with 130 and 143 after SIGINT and SIGTERM. What a
    command had not finished is then removed, as after any exception. This module imports little, so
    that both signals are handled from the first moment on.
    """
    try:
        before = _handle_signals()
        try:
            _run(arguments)
        finally:
            # The interpreter takes a while to end; the command is over.
            for number, handler in before.items():
                signal.signal(number, signal.SIG_IGN if arguments is None else handler)
    except (KeyboardInterrupt, _Signal) as error:
        status, reason = _SIGNALS[getattr(error, "number", signal.SIGINT)]
        _report_end(arguments, reason)
        raise SystemExit(status) from None


def _run(arguments: list[str] | None) -> None:
    _use_large_pages()
    _shorten_busy_waiting()
    from einthoven.cli.app import app
    from einthoven.cli.progress import shown_warnings
    from einthoven.errors import EinthovenError
    from einthoven.files import unwritable

    try:
        with shown_warnings():
            app(args=arguments, prog_name="einthoven")
    except EinthovenError as error:
        _fail(error)
    except OSError as error:
        _fail(unwritable(error.filename or "the output", error))
    except MemoryError as error:
        remedy = "use fewer processes, smaller batches or a smaller network"
        _fail(EinthovenError(f"not enough memory {error}".rstrip(), remedy=remedy))
    except SystemExit as end:
        if end.code == _SIGNALS[signal.SIGINT][0]:  # Typer's form of a KeyboardInterrupt
            raise KeyboardInterrupt from None
        raise


def _fail(error: Exception) -> None:
    from einthoven.cli.progress import as_options, echo

    echo(as_options(f"einthoven: {error}"), err=True)
    raise SystemExit(1) from error


def _handle_signals() -> dict[int, Any]:
    """Let SIGINT and SIGTERM raise an exception; return the handlers that they had.

    In another thread than the main one, which cannot set handlers, nothing is changed.
    """

    def end(number: int, frame: object) -> None:
        raise _Signal(number)

    try:
        return {number: signal.signal(number, end) for number in _SIGNALS}
    except ValueError:
        return {}


def _use_large_pages() -> None:
    """Let PyTorch allocate large tensors on large pages, where Linux offers them.

    PyTorch frees a step's tensors and allocates new ones, which the kernel clears page by page: up
    to a sixth of a training step on a CPU (`benchmarks/bench_pages.py`). PyTorch reads this
    variable at its first tensor; an existing value is respected.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def _shorten_busy_waiting() -> None:
    """Let OpenMP threads that wait for others release their core soon.

    If other programs, such as a second training, take cores away in the middle of an operation,
    the threads that wait for its end poll on the remaining ones, and small operations take several
    times as long (`benchmarks/bench_waiting.py`). An existing OMP_WAIT_POLICY or GOMP_SPINCOUNT is
    respected.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", GOMP_SPINCOUNT)


def _report_end(arguments: Sequence[str] | None, reason: str) -> None:
    typed = sys.argv[1:] if arguments is None else arguments
    command = next((word for word in typed if not word.startswith("-")), "")
    is_resumable = command in RESUMABLE and (command != "predict" or "--out" in typed)
    resumed = " Run the same command to resume." if is_resumable else ""
    print(f"\neinthoven: {reason}.{resumed}", file=sys.stderr)
