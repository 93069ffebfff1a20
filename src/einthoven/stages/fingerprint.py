"""Fingerprints of packed signals, which identify a recording under any file name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from einthoven.signals.store import Store

__all__ = ["BITS", "fingerprint", "signal_fingerprints"]

BITS = 48
"""Bits of a fingerprint; two million recordings against ten thousand have a chance below 1e-4 of
a false alarm."""
_BATCH = 256


def fingerprint(*parts: str) -> int:
    """Return a number of `BITS` bits for a sequence of texts."""
    return _number("\0".join(parts).encode())


def signal_fingerprints(
    store: Store, rows: NDArray[np.intp], leads: Sequence[str]
) -> NDArray[np.uint64]:
    """Return a number for the content of each record: rate, and int16 microvolts of some leads.

    The same samples at the same rate have the same number, independent of the file name, the order
    of the leads and any other leads. The same recording at another rate, cut or filtered, has
    another one.

    Parameters
    ----------
    store : Store
        The packed cohort.
    rows : numpy.ndarray
        Rows of the store.
    leads : sequence of str
        Leads that count; the store has all of them.

    Returns
    -------
    numpy.ndarray, (rows,) uint64
        Zero for a record that is constant in all these leads and cannot be identified.
    """
    order = [store.leads.index(lead) for lead in leads]
    numbers = np.zeros(len(rows), dtype=np.uint64)
    for start in range(0, len(rows), _BATCH):
        for chunk in store.read(rows[start : start + _BATCH]):
            rate = np.float64(chunk.rate).tobytes()
            for place, signal in zip(chunk.places, chunk.signals[:, order], strict=True):
                if (signal != signal[:, :1]).any():
                    numbers[start + place] = _number(rate + signal.tobytes())
    return numbers


def _number(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=BITS // 8).digest(), "big")
