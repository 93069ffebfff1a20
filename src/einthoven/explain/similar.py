"""Similar records: nearest neighbours by the cosine of embeddings, and whether labels agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from einthoven.errors import EvaluationError

_AT_A_TIME = 512  # queries in a product


class Neighbour(NamedTuple):
    """A similar record: its row in the gallery, its id, and its distance, 1 - cosine."""

    row: int
    record: str
    distance: float


@dataclass(frozen=True, eq=False)
class Gallery:
    """Embeddings to search.

    Attributes
    ----------
    records, patients : numpy.ndarray
        (records,) ids of records and patients.
    vectors : numpy.ndarray
        (records, dim) float32, of length 1; zeros stay zeros.
    """

    records: NDArray[np.str_]
    patients: NDArray[np.str_]
    vectors: NDArray[np.float32]

    @classmethod
    def of(cls, records: ArrayLike, patients: ArrayLike, vectors: ArrayLike) -> Gallery:
        """Scale vectors, (records, dim), to length 1.

        Raises
        ------
        EvaluationError
            If there is no record, or there are not as many vectors as records.
        """
        ids, rows = np.asarray(records, dtype=str), np.asarray(vectors, dtype=np.float32)
        if not len(ids) or rows.ndim != 2 or len(rows) != len(ids):
            raise EvaluationError(
                f"vectors of shape {rows.shape} for {len(ids)} records",
                remedy="pass one pooled embedding for each record",
            )
        return cls(ids, np.asarray(patients, dtype=str), unit(rows))

    def nearest(
        self, query: ArrayLike, count: int = 10, *, without: NDArray[np.bool_] | None = None
    ) -> list[Neighbour]:
        """Find the nearest records to one embedding, (dim,), the nearest first.

        The search is exact: one matrix product. Records where `without` is true are left out.

        Raises
        ------
        EvaluationError
            If the embedding has another size than those of the gallery.
        """
        vector = np.asarray(query, dtype=np.float32)
        if vector.shape != self.vectors.shape[1:]:
            raise EvaluationError(
                f"an embedding of shape {vector.shape} for vectors of {self.vectors.shape[1]}",
                remedy="embed the record and the gallery with the same model",
            )
        cosine = self.vectors @ unit(vector[None])[0]
        if without is not None:
            cosine = np.where(without, -np.inf, cosine)
        count = min(count, int(np.isfinite(cosine).sum()))
        rows = np.argpartition(-cosine, max(count - 1, 0))[:count]
        rows = rows[np.argsort(-cosine[rows], kind="stable")]
        return [Neighbour(int(i), str(self.records[i]), float(1 - cosine[i])) for i in rows]


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale vectors, (..., dim), to length 1; zeros stay zeros."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1), dtype=np.float32)


def precision_at(
    gallery: Gallery,
    labels: NDArray[np.bool_],
    queries: ArrayLike,
    query_labels: NDArray[np.bool_],
    *,
    count: int = 10,
) -> NDArray[np.float64]:
    """Measure how often the nearest records share a label.

    Parameters
    ----------
    labels, query_labels : array of bool
        (records, labels) of the gallery and of the queries.
    queries : array
        (queries, dim) embeddings. Patients of the queries are not in the gallery.
    count : int
        Neighbours of a query.

    Returns
    -------
    numpy.ndarray, shape (labels,)
        Share of the neighbours with the label, the mean over the queries with it; NaN for a label
        that no query has. Random neighbours have the label's share of the gallery.
    """
    vectors = unit(np.asarray(queries, dtype=np.float32))
    total = np.zeros(labels.shape[1])
    for start in range(0, len(vectors), _AT_A_TIME):
        part = slice(start, start + _AT_A_TIME)
        cosine = vectors[part] @ gallery.vectors.T
        rows = np.argpartition(-cosine, count - 1, axis=1)[:, :count]
        total += (labels[rows].mean(axis=1) * query_labels[part]).sum(axis=0)
    queries_of = query_labels.sum(axis=0)
    return np.where(queries_of > 0, total / np.maximum(queries_of, 1), np.nan)
