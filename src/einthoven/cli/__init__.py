"""The command line. Each command imports what it needs when it runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from einthoven.errors import EinthovenError

RESUMABLE = ("demo", "download", "pack", "predict", "pretrain", "posttrain", "reproduce")
"""Commands that continue an interrupted run when they are repeated; `predict` with --out."""

GOMP_SPINCOUNT = "3000"
"""How many times an idle OpenMP thread polls before it sleeps: some microseconds, 1 % of the
default of GNU's OpenMP."""

_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; print an EinthovenError with its remedy, and exit with status 1."""
    _use_large_pages()
    _shorten_busy_waiting()
    from einthoven.cli.app import app

    try:
        app(args=arguments, prog_name="einthoven")
    except EinthovenError as error:
        print(f"einthoven: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    except OSError as error:  # a place that cannot be read or written, a full disk
        print(
            f"einthoven: {error.filename or 'output'}: {error.strerror or error}", file=sys.stderr
        )
        print("  What to do: choose another place, or correct its permissions", file=sys.stderr)
        raise SystemExit(1) from error
    except KeyboardInterrupt as error:
        _report_interrupt(arguments)
        raise SystemExit(_INTERRUPTED) from error
    except SystemExit as end:
        if end.code == _INTERRUPTED:  # Typer's form of Ctrl-C
            _report_interrupt(arguments)
        raise


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


def _report_interrupt(arguments: Sequence[str] | None) -> None:
    typed = sys.argv[1:] if arguments is None else arguments
    command = next((word for word in typed if not word.startswith("-")), "")
    is_resumable = command in RESUMABLE and (command != "predict" or "--out" in typed)
    resumed = " Run the same command to resume." if is_resumable else ""
    print(f"\neinthoven: Interrupted.{resumed}", file=sys.stderr)
