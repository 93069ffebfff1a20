"""Binary tasks on folds 9 and 10 of PTB-XL, and cohorts of a given size for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from einthoven.cohorts import Cohort
from einthoven.cohorts.cohort import stratified_places

SIZES = (50, 100, 200, 500, 1000, 2000)
FEWEST_POSITIVES = 5
"""Fewest positive records of a cohort; smaller ones are left out."""
STATEMENTS = (
    "NORM", "AFIB", "STACH", "SBRAD", "PVC", "1AVB", "LAFB", "CLBBB", "CRBBB", "LVH", "IMI",
    "ASMI", "ISC_", "NDT",
)  # fmt: skip
GROUPS = {
    "any infarction": ("IMI", "ASMI", "AMI", "ALMI", "ILMI", "LMI", "IPLMI", "IPMI", "PMI"),
    "any bundle branch block": ("CLBBB", "CRBBB", "ILBBB", "IRBBB", "LAFB", "LPFB", "IVCD"),
}
ATTRIBUTES: dict[str, Callable[[Cohort], NDArray[np.bool_]]] = {
    "male sex": lambda cohort: (cohort.metadata()["sex"] == "male").to_numpy(),
    "age over 65": lambda cohort: (cohort.metadata()["age"] > 65).to_numpy(),
    "age over 80": lambda cohort: (cohort.metadata()["age"] > 80).to_numpy(),
    "age below 40": lambda cohort: (cohort.metadata()["age"] < 40).to_numpy(),
}
"""Tasks that einthoven-small has not been trained on, on any record."""
TASKS = (*STATEMENTS, *GROUPS, *ATTRIBUTES)


def task_cohort(source: Cohort, task: str) -> Cohort:
    """Folds 9 and 10 with the one label of a task; fold 10 is the test split."""
    if task in ATTRIBUTES:
        positive = ATTRIBUTES[task](source)
    else:
        members = GROUPS.get(task, (task,))
        positive = source.with_labels(members).targets().any(axis=1)
    matrix = positive.astype(np.uint8)[:, None]
    cohort = replace(source, labels=(task,), task=task, matrix=matrix, descriptions={})
    return cohort.select((cohort.table["split"] != "train").to_numpy())


def draw_cohort(cohort: Cohort, records: int, draw: int) -> Cohort | None:
    """Cohort with `records` records of fold 9 for training and validation; fold 10 stays.

    Patients are drawn at random, the same for all tasks, and a larger cohort contains a smaller one
    of the same draw. One ninth of the patients, stratified by the label, is for validation. None if
    the cohort has too few positives.
    """
    pool = (cohort.table["split"] == "validation").to_numpy()
    patients = cohort.table["patient"].to_numpy(dtype=str)
    order = np.random.default_rng([draw, 0x5A11]).permutation(np.unique(patients[pool]))
    rank = dict(zip(order.tolist(), range(len(order)), strict=True))
    places = np.array([rank.get(patient, len(rank)) for patient in patients.tolist()])
    drawn = np.flatnonzero(pool)[np.argsort(places[pool], kind="stable")[:records]]
    positives = int(cohort.matrix[drawn].sum())
    if min(positives, len(drawn) - positives) < FEWEST_POSITIVES:
        return None
    splits = cohort.table["split"].to_numpy(dtype=object, copy=True)
    parts = stratified_places(patients[drawn], cohort.matrix[drawn], count=9, seed=draw)
    part = parts[cohort.matrix[drawn, 0] == 1].min()  # with few positives, not all parts have one
    splits[drawn] = np.where(parts == part, "validation", "train")
    kept = ~pool
    kept[drawn] = True
    return cohort.with_splits(splits.astype(str)).select(kept)
