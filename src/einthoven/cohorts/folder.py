"""A plain folder of WFDB records, without labels: something to pretrain on or to predict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from einthoven.cohorts.cohort import UNLABELLED, Cohort, checked


def has_records(path: Path) -> bool:
    """Whether any WFDB header lies below the folder."""
    return next(path.rglob("*.hea"), None) is not None


def open_folder(path: str | Path) -> Cohort:
    """Every WFDB record below a folder, all in `train`, each its own patient, without labels."""
    root = Path(path)
    paths = sorted(str(file.relative_to(root).with_suffix("")) for file in root.rglob("*.hea"))
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
