"""Agreement of labels from PTB-XL's reports with its statements, as a table in Markdown."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from scipy.stats import binomtest

from einthoven.cohorts.ptbxl import REMOVED_IN_1_0_3
from einthoven.cohorts.report_labels import label_reports, read_reports
from einthoven.cohorts.report_patterns import load_patterns
from einthoven.report.format import with_interval


def agreement(database: Path, folds: Sequence[int], records: int | None = None) -> pd.DataFrame:
    """Numbers of records by statement; the first row is that of all statements.

    The records are those of version 1.0.3: older ones have some of them twice.

    Parameters
    ----------
    database : Path
        `ptbxl_database.csv`.
    folds : sequence of int
    records : int, optional
        Use only the records up to this number.

    Returns
    -------
    DataFrame
        `coded` in `scp_codes`, `found` in the report, and `both`; `attrs["reports"]` is the number
        of reports.
    """
    table = read_reports(database)
    number = table["record"].astype(int)
    used = table["report"].notna() & table["fold"].isin(list(folds))
    used &= (number <= (records or number.max())) & ~number.isin(REMOVED_IN_1_0_3)
    table = table[used].reset_index(drop=True)
    labels = label_reports(table, load_patterns("ptb-xl"))
    names = list(labels.counts.index)
    found = labels.table[names].fillna(0).astype(bool)
    codes = [set(ast.literal_eval(text)) for text in table["scp_codes"]]
    coded = pd.DataFrame([[name in row for name in names] for row in codes], columns=names)
    result = pd.DataFrame(
        {"coded": coded.sum(), "found": found.sum(), "both": (coded & found).sum()}
    )
    result = result[result[["coded", "found"]].any(axis=1)]
    result = result.sort_values(["coded", "found"], ascending=False, kind="stable")
    result = pd.concat([result.sum().to_frame("all").T, result])
    result.attrs["reports"] = int(labels.texts)
    return result


def share(part: int, whole: int) -> str:
    """A share with its exact 95 % interval."""
    if not whole:
        return with_interval(None, None)
    limits = binomtest(part, whole).proportion_ci(0.95, method="exact")
    return with_interval(part / whole, (limits.low, limits.high), places=2)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("database", type=Path)
    parser.add_argument("--folds", type=int, nargs="+", default=[9, 10])
    parser.add_argument("--records", type=int)
    options = parser.parse_args()
    table = agreement(options.database, options.folds, options.records)
    print(f"{table.attrs['reports']} reports\n")
    print("| statement | coded | found | both | precision (95 % CI) | recall (95 % CI) |")
    print("|---|---|---|---|---|---|")
    for name, (coded, found, both) in table.iterrows():
        cells = (name, coded, found, both, share(both, found), share(both, coded))
        print(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    main()
