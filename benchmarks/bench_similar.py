"""The ten nearest of 20,000 embeddings, against scikit-learn's brute-force search.

    python benchmarks/bench_similar.py

Random vectors of 384 numbers, the size of einthoven-small's; both searches are exact, by cosine.
The limit is 50 ms a query.
"""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import NearestNeighbors

from einthoven.explain import Gallery
from table import Row, alternately, print_table, speed_row

RECORDS, DIMENSIONS, COUNT = 20_000, 384, 10
ROUNDS = 10


def run() -> list[Row]:
    """Measure one query."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((RECORDS, DIMENSIONS), dtype=np.float32)
    names = np.arange(RECORDS).astype(str)
    gallery, query = Gallery.of(names, names, vectors), vectors[7]
    search = NearestNeighbors(n_neighbors=COUNT, metric="cosine", algorithm="brute").fit(vectors)
    distances, rows = search.kneighbors(query[None])
    found = gallery.nearest(query, COUNT)
    deviation = float(np.abs(distances[0] - [each.distance for each in found]).max())
    assert [each.row for each in found] == rows[0].tolist()
    ours, baseline = alternately(
        lambda: gallery.nearest(query, COUNT), lambda: search.kneighbors(query[None]), ROUNDS
    )
    note = f"10 of {RECORDS:,} x {DIMENSIONS}; distances within {deviation:.0e}"
    return [speed_row("similar records", ours, baseline, target=1.0, note=note)]


if __name__ == "__main__":
    print_table(run())
