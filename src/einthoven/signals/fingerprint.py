"""Fingerprints of packed signals: the same recording is known under any file name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from einthoven.signals.store import Store

__all__ = ["BITS", "fingerprint", "signal_fingerprints"]

BITS = 48
"""Two million recordings against ten thousand: a false alarm in fewer than one of 10,000 cases."""
_BATCH = 256


def fingerprint(*parts: str) -> int:
    """A number of `BITS` bits for a sequence of texts."""
    return _number("\0".join(parts).encode())


def signal_fingerprints(
    store: Store, rows: NDArray[np.intp], leads: Sequence[str]
) -> NDArray[np.uint64]:
    """A number for the content of each record: rate, and int16 microvolts of some leads.

    The same samples at the same rate give the same number, whatever the file is called, however
    its leads are ordered and which others it has. The same recording at another rate, cut or
    filtered, does not.

    Parameters
    ----------
    store : Store
        The packed cohort.
    rows : numpy.ndarray
        Rows of the store.
    leads : sequence of str
        Leads that count, all of them in the store.

    Returns
    -------
    numpy.ndarray, (rows,) uint64
        Zero for a record that is constant in all these leads and so says nothing of itself.
    """
    order = [store.leads.index(lead) for lead in leads]
    found = np.zeros(len(rows), dtype=np.uint64)
    for start in range(0, len(rows), _BATCH):
        for chunk in store.read(rows[start : start + _BATCH]):
            rate = np.float64(chunk.rate).tobytes()
            for place, signal in zip(chunk.places, chunk.signals[:, order], strict=True):
                if (signal != signal[:, :1]).any():
                    found[start + place] = _number(rate + signal.tobytes())
    return found


def _number(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=BITS // 8).digest(), "big")
