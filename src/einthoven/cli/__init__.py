"""The command line. Verbs live in their own modules and import what they need when they run."""

from __future__ import annotations

import os
import sys

from einthoven.errors import EinthovenError

_INTERRUPTED = 130
PATIENCE = "3000"
"""Turns that a thread spins, some microseconds; a hundredth of what it does when nobody says."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a refusal is printed with its remedy and exits with status 1."""
    _use_large_pages()
    _let_waiting_threads_sleep()
    from einthoven.cli.app import app

    try:
        app(args=arguments, prog_name="einthoven")
    except EinthovenError as error:
        print(f"einthoven: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    except KeyboardInterrupt as error:
        _tell_stopped()
        raise SystemExit(_INTERRUPTED) from error
    except SystemExit as end:
        if end.code == _INTERRUPTED:  # Typer's form of Ctrl-C
            _tell_stopped()
        raise


def _use_large_pages() -> None:
    """Put large tensors on large pages of memory, where Linux offers them.

    PyTorch frees a step's tensors and takes new ones, which the system clears page by page: on a
    CPU that is up to a sixth of the time of training (`benchmarks/bench_pages.py`). This is
    PyTorch's own switch, which it reads at its first tensor; whoever has set it is obeyed.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def _let_waiting_threads_sleep() -> None:
    """Have threads that wait for others give up their core before long.

    A machine that does other things as well, such as a second training, takes cores away in the
    middle of an operation, and the threads that wait for its end spin on the others: small
    operations then take several times as long (`benchmarks/bench_waiting.py`). This is the switch
    of GNU's OpenMP, which PyTorch's own builds for Linux load; whoever has decided is obeyed.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", PATIENCE)


def _tell_stopped() -> None:
    text = "einthoven: stopped. Nothing is lost: the same command goes on where it was."
    print("\n" + text, file=sys.stderr)
