"""A plain folder of ECG files without labels, for pretraining or prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from einthoven.cohorts.cohort import UNLABELLED, Cohort, checked
from einthoven.records.formats import find_records


def open_folder(path: str | Path) -> Cohort:
    """Open every ECG file below a folder, all in `train`, each as a patient of its own."""
    root = Path(path)
    paths = [str(file.relative_to(root)) for file in find_records(root)]
    table = pd.DataFrame({"path": paths, "patient": paths, "split": "train"})
    table.index = pd.Index(paths, name="record")
    return checked(
        Cohort(
            name=root.resolve().name,
            version="unversioned",
            task=UNLABELLED,
            labels=(),
            root=root,
            table=table,
            matrix=np.zeros((len(paths), 0), dtype=np.uint8),
        )
    )
