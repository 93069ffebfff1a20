"""Faithfulness of every method of attribution for einthoven-small, on records of PTB-XL's fold 10.

    python studies/explanation/measure.py /data/ptb-xl results.json

For each of 100 records, drawn with seed 0 among those with a label that is called and true, the
rarest such label is explained by every method that suits the network. Deletion and insertion have
steps of 5 %; the random order is one for all methods of a record. Cascading re-initialisation is
measured on the first 10 records afterwards. A repeated command continues.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import einthoven
from einthoven.explain import agreement, attribute, curves, methods_of, reinitialisation, shares_of
from einthoven.inference import predict_record

RECORDS, REINITIALISED = 100, 10


def examples(cohort: einthoven.Cohort, model: einthoven.Model) -> Iterator[tuple[str, Any, str]]:
    """Id, record and label of one record after the other."""
    frequency = dict(zip(cohort.labels, cohort.targets("train").sum(axis=0).tolist(), strict=True))
    ids, paths, targets = cohort.ids("test"), cohort.paths("test"), cohort.targets("test")
    for place in np.random.default_rng(0).permutation(len(paths)):
        record = einthoven.read_record(paths[place])
        true = {x for x, y in zip(cohort.labels, targets[place], strict=True) if y}
        called = [x for x in predict_record(model, record).above_threshold or () if x in true]
        if called:
            yield str(ids[place]), record, min(called, key=frequency.__getitem__)


def measured(model: einthoven.Model, record: Any, label: str) -> dict[str, Any]:
    """Areas, time and completeness of every method, and their agreement."""
    made: dict[str, Any] = {}
    rows: dict[str, Any] = {}
    random: dict[str, float] = {}
    for method in methods_of(model, record):
        began = time.process_time()
        made[method] = attribute(model, record, label, method)
        seconds = time.process_time() - began
        areas = curves(model, record, made[method], orders=0 if random else 1).areas
        random = random or areas
        rows[method] = random | {key: areas[key] for key in ("deletion", "insertion")}
        rows[method]["seconds"] = seconds
        rows[method]["change"] = made[method].output - made[method].baseline_output
        rows[method]["completeness_error"] = made[method].completeness_error
        rows[method]["words"] = shares_of(made[method], record).in_words()
    pairs = {f"{a} {b}": agreement(made[a], made[b]) for a in made for b in made if a < b}
    return {"methods": rows, "agreement": pairs}


def main(ptbxl: str, out: str) -> None:
    """Measure, and write what is there after each record."""
    torch.set_num_threads(1)
    cohort, model = einthoven.open_cohort(ptbxl), einthoven.load_model("einthoven-small")
    file = Path(out)
    rows: list[dict[str, Any]] = json.loads(file.read_text()) if file.is_file() else []
    seen = []
    for place, (name, record, label) in zip(range(RECORDS), examples(cohort, model), strict=False):
        seen.append((record, label))
        if place >= len(rows):
            rows.append({"record": name, "label": label} | measured(model, record, label))
            file.write_text(json.dumps(rows, indent=1) + "\n")
    for row, (record, label) in zip(rows, seen[:REINITIALISED], strict=False):
        for method in ("integrated-gradients", "smoothgrad"):
            entry = row["methods"][method]
            if "reinitialisation" not in entry:
                made = attribute(model, record, label, method)
                entry["reinitialisation"] = reinitialisation(model, record, made)
                file.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
