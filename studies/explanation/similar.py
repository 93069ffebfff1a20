"""Precision at 10 of similar records on PTB-XL: fold 10 against folds 1 to 8, by label.

    einthoven embed PTBXL --out small.parquet
    einthoven embed PTBXL --model RANDOM --out random.parquet
    python studies/explanation/similar.py PTBXL small.parquet random.parquet

Random neighbours have a label as often as the gallery. RANDOM is a model folder of the same network
and preparation with weights that were never trained (`create_backbone`, `save_model`). Patients are
in one fold only. einthoven-small was trained with the labels of the gallery.
"""

from __future__ import annotations

import json
import sys

import numpy as np

import einthoven
from einthoven.explain import Gallery, precision_at
from einthoven.inference import read_embeddings


def main(ptbxl: str, *files: str) -> None:
    """Print precisions by label as JSON: the gallery's share first, then one for each file."""
    cohort = einthoven.open_cohort(ptbxl)
    rows = {name: row for row, name in enumerate(cohort.ids().tolist())}
    columns = []
    for file in files:
        known = read_embeddings(file)
        place = np.array([rows[name] for name in known.records.tolist()])
        split = cohort.table["split"].to_numpy()[place]
        train, test = split == "train", split == "test"
        labels = cohort.matrix[place] == 1
        gallery = Gallery.of(known.records[train], known.patients[train], known.vectors[train])
        precision = precision_at(gallery, labels[train], known.vectors[test], labels[test])
        columns.append(precision)
        share, queries = labels[train].mean(axis=0), labels[test].sum(axis=0)
    table = {
        label: [int(n), *(round(float(x), 4) for x in values)]
        for label, n, *values in zip(cohort.labels, queries, share, *columns, strict=True)
    }
    known_labels = np.isfinite(columns[0])
    table["macro"] = [
        int(known_labels.sum()),
        *(round(float(np.mean(x[known_labels])), 4) for x in (share, *columns)),
    ]
    print(json.dumps(table))


if __name__ == "__main__":
    main(*sys.argv[1:])
