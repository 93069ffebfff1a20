"""Embeddings of a cohort in two dimensions: principal components, or UMAP."""

from __future__ import annotations

import warnings
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from einthoven.errors import EvaluationError

Projection = Literal["umap", "pca"]
_COMPONENTS = 50  # principal components that UMAP is given


def project(
    vectors: NDArray[np.float32], method: Projection = "umap", *, seed: int = 0
) -> NDArray[np.float64]:
    """Project embeddings, (records, dim), to (records, 2).

    Every dimension is standardised first. UMAP (McInnes et al. 2018, arXiv 1802.03426) keeps
    neighbours together, by the cosine of 50 principal components; distances between groups and
    their sizes mean nothing there. Principal components keep the largest differences.

    Raises
    ------
    EvaluationError
        If the method is unknown, there are fewer than 3 records, or umap-learn is not installed.
    """
    if method not in get_args(Projection):
        raise EvaluationError(
            f"projection {method!r} is unknown", remedy=f"use {' or '.join(get_args(Projection))}"
        )
    if len(vectors) < 3:
        raise EvaluationError(f"a map of {len(vectors)} records", remedy="embed at least 3 records")
    x = vectors.astype(np.float64)
    deviation = x.std(axis=0)
    x = (x - x.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    components = min(2 if method == "pca" else _COMPONENTS, *x.shape)
    x = PCA(components, random_state=seed).fit_transform(x)
    if method == "pca":
        return np.asarray(np.pad(x, ((0, 0), (0, 2 - components))))
    try:
        import umap
    except ImportError as error:
        raise EvaluationError(
            "umap-learn, which computes the map, is not installed",
            remedy="pip install 'einthoven[explain]', or choose the projection pca",
        ) from error
    neighbours = min(15, len(x) - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # umap says that a seed means one thread
        reducer = umap.UMAP(n_neighbors=neighbours, metric="cosine", random_state=seed, init="pca")
        return np.asarray(reducer.fit_transform(x), dtype=np.float64)
