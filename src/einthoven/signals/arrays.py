"""Records that are in memory already, where code expects a store.

They are not packed: a store holds whole microvolts of at most 32.7 mV, and arrays need neither be
rounded, nor written, nor held twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from einthoven.errors import StoreError
from einthoven.signals.store import Chunk, Store

__all__ = ["ArrayStore"]


@dataclass(eq=False)
class ArrayStore(Store):
    """A store over an array; each batch is converted when it is read.

    Attributes
    ----------
    array : numpy.ndarray
        (records, leads, samples) millivolts of any real type; also memory-mapped.
    """

    array: Any = None

    @classmethod
    def over(cls, array: NDArray[Any], *, leads: Sequence[str], rate: float) -> ArrayStore:
        """Records of one rate and length; their ids are their row numbers.

        Parameters
        ----------
        array : numpy.ndarray
            (records, leads, samples), in millivolts.
        leads : sequence of str
            Names of the second axis.
        rate : float
            In hertz.

        Raises
        ------
        StoreError
            When the array has another shape.
        """
        if array.ndim != 3 or array.shape[1] != len(leads):
            raise StoreError(
                f"an array of shape {array.shape} for the leads {', '.join(leads)}",
                remedy="give (records, leads, samples)",
            )
        ids = pd.RangeIndex(len(array)).astype(str)
        index = pd.DataFrame({"rate": float(rate), "samples": array.shape[2]}, index=ids)
        nothing = pd.DataFrame({"record": [], "path": [], "reason": []}, dtype=str)
        return cls("", tuple(leads), index, nothing, {}, LocalFileSystem(), array=array)

    def read(self, rows: NDArray[np.intp]) -> list[Chunk]:
        """The records as float32 microvolts, not rounded to whole ones."""
        if not len(rows):
            return []
        signals: Any = self.array[rows].astype(np.float32) * np.float32(1000)
        return [Chunk(np.arange(len(rows)), float(self.index["rate"].iloc[0]), signals)]
