"""Description of the records behind a model: the numbers of a study's Table 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from einthoven.cohorts.cohort import ABOVE_89, SPLITS, Cohort
from einthoven.evaluate.subgroups import sexes
from einthoven.files import Json
from einthoven.signals.store import Store
from einthoven.tasks import positives

ALL = "all"
QUARANTINED = "quarantined: missing, unreadable, damaged or flat"
_OLDEST_CODED = 90  # stands for PTB-XL's code in medians and quartiles


def population(cohort: Cohort, store: Store) -> Json:
    """Describe the records of a cohort that a store holds, all together and by split.

    Returns
    -------
    dict
        `found` records in the source, `left_out` (their number by reason), `used`; `descriptions`
        of the labels, where known; `parts`, by split and under `all`: `records`, `patients`,
        `without_label`, `positives` (by label or class), `numbers` (median and quartiles), `age`
        (years), `sex`, `date`, `device`, `rate` (by Hz) and `seconds`. Counts are `records` and
        their `share`; those of the empty name have
        no value. What the source does not have is None.
    """
    usable = cohort.select(store.without_quarantined(cohort.ids()), reason=QUARANTINED)
    present = [split for split in SPLITS if len(usable.ids(split))]
    splits: list[str | None] = [*present, None] if len(present) > 1 else [None]
    return {
        "found": len(usable) + sum(usable.left_out.values()),
        "left_out": usable.left_out,
        "used": len(usable),
        "kind": cohort.target.kind,
        "descriptions": {k: v for k, v in usable.descriptions.items() if k in usable.labels},
        "parts": {split or ALL: _part(usable, store, split) for split in splits},
    }


def _part(cohort: Cohort, store: Store, split: str | None) -> Json:
    targets, metadata = cohort.targets(split), cohort.metadata(split)
    index = store.index.iloc[store.rows(cohort.ids(split))]
    records, counts = len(targets), positives(targets).tolist()
    form = cohort.target.behaviour.form
    target_counts = (~np.isnan(targets)).sum(axis=0).tolist()
    columns = pd.DataFrame(targets, columns=list(cohort.labels))
    return {
        "records": records,
        "patients": len(np.unique(cohort.patients(split))),
        "without_label": _share(int((targets != 1).all(axis=1).sum()), records),
        "positives": {
            label: _share(number, max(of, 1))
            for label, number, of in zip(cohort.labels, counts, target_counts, strict=True)
            if form != "values"
        },
        "numbers": {
            label: _spread(values.dropna()) | {"missing": _share(int(values.isna().sum()), records)}
            for label, values in columns.items()
            if form == "values"
        },
        "age": _age(metadata["age"]) if "age" in metadata else None,
        "sex": _counts(sexes(metadata["sex"].to_numpy())) if "sex" in metadata else None,
        "date": _dates(metadata["date"]) if "date" in metadata else None,
        "device": _counts(metadata["device"]) if "device" in metadata else None,
        "rate": _counts(index["rate"].map("{:g}".format)),
        "seconds": _spread(index["samples"] / index["rate"]),
    }


def _age(column: pd.Series[Any]) -> Json:
    years = pd.to_numeric(column, errors="coerce")
    ages = years.mask(years == ABOVE_89, _OLDEST_CODED).dropna()
    return _spread(ages) | {"missing": _share(len(years) - len(ages), len(years))}


def _spread(values: pd.Series[Any]) -> Json:
    """Median and quartiles; None without values."""
    shares = {"median": 0.5, "lower_quartile": 0.25, "upper_quartile": 0.75}
    return {k: float(values.quantile(q)) if len(values) else None for k, q in shares.items()}


def _counts(values: Any) -> Json:
    """Records by value, the most frequent first, the missing ones (the empty name) last."""
    texts = pd.Series(values).fillna("").astype(str).str.strip()
    counts = {str(name): int(number) for name, number in texts.value_counts().items()}
    names = sorted(counts, key=lambda name: (name == "", -counts[name], name))
    return {name: _share(counts[name], len(texts)) for name in names}


def _dates(column: pd.Series[Any]) -> Json:
    """First and last month."""
    parsed = pd.to_datetime(column.where(column != ""), format="ISO8601", errors="coerce")
    dates = parsed.dropna()
    limits = {"first": dates.min(), "last": dates.max()}
    months = {k: f"{date:%Y-%m}" if len(dates) else None for k, date in limits.items()}
    return months | {"missing": _share(len(parsed) - len(dates), len(parsed))}


def _share(records: int, of: int) -> Json:
    return {"records": records, "share": records / of}
