"""Similar records and projections, on embeddings whose neighbours are known."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from einthoven.errors import EvaluationError
from einthoven.explain import Gallery, precision_at, project


def clusters(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors near one of three directions, of any length, and their cluster."""
    random = np.random.default_rng(seed)
    cluster = np.arange(count) % 3
    vectors = 5 * np.eye(8)[cluster] + 0.3 * random.standard_normal((count, 8))
    return (vectors * random.uniform(0.1, 10, (count, 1))).astype(np.float32), cluster


def test_neighbours_are_the_nearest_by_cosine() -> None:
    vectors, _ = clusters(40)
    gallery = Gallery.of([f"r{i}" for i in range(40)], ["p"] * 40, vectors)
    found = gallery.nearest(3 * vectors[7], 4)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = np.argsort(-(unit @ unit[7]))[:4]
    assert [each.row for each in found] == expected.tolist()
    assert found[0].record == "r7"
    assert found[0].distance == pytest.approx(0, abs=1e-6)
    assert found[3].distance == pytest.approx(1 - unit[expected[3]] @ unit[7], abs=1e-6)


def test_records_are_left_out_and_counts_are_limited() -> None:
    vectors, _ = clusters(6)
    gallery = Gallery.of(list("abcdef"), list("ppqqrr"), vectors)
    found = gallery.nearest(vectors[0], 99, without=gallery.patients == "p")
    assert {each.record for each in found} == set("cdef")


def test_refusals() -> None:
    with pytest.raises(EvaluationError, match=r"\(2, 3\)"):
        Gallery.of(["a"], ["p"], np.zeros((2, 3)))
    gallery = Gallery.of(["a"], ["p"], np.zeros((1, 3)))
    with pytest.raises(EvaluationError, match=r"\(4,\)"):
        gallery.nearest(np.ones(4))
    assert gallery.nearest(np.ones(3))[0].distance == 1


def test_precision_is_one_among_equals_and_the_share_among_strangers() -> None:
    vectors, cluster = clusters(300)
    queries, query_cluster = clusters(30, seed=1)
    labels = np.eye(4, dtype=bool)[cluster]  # the last label has no record
    gallery = Gallery.of(np.arange(300), np.arange(300), vectors)
    there = precision_at(gallery, labels, queries, np.eye(4, dtype=bool)[query_cluster])
    assert there[:3] == pytest.approx(1)
    assert np.isnan(there[3])
    noise = np.random.default_rng(2).standard_normal((300, 8))
    strangers = precision_at(gallery, labels, noise, labels)
    assert strangers[:3] == pytest.approx(1 / 3, abs=0.1)


@pytest.mark.parametrize("method", ["pca", pytest.param("umap", marks=pytest.mark.slow)])
def test_maps_keep_clusters_apart(method: str) -> None:
    if method == "umap":
        pytest.importorskip("umap")
    vectors, cluster = clusters(90)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    points = project(vectors, method)
    assert points.shape == (90, 2)
    centres = np.stack([points[cluster == i].mean(axis=0) for i in range(3)])
    nearest = np.linalg.norm(points[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == cluster).all()


def test_a_missing_umap_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(EvaluationError, match="umap-learn") as error:
        project(clusters(9)[0], "umap")
    assert "einthoven[explain]" in error.value.remedy
