"""The statement map: codes of several vocabularies that mean the same finding.

`statements.csv` has one row for each statement, and one column for each vocabulary:

* `scp`: the SCP-ECG statements of PTB-XL;
* `snomed`: SNOMED CT, as in the headers of the PhysioNet/CinC Challenges;
* `aha`: the AHA codes of Mason et al. 2007, as in the data set of Shandong (SPH);
* `challenge`: abbreviations of the classes that the Challenges score;
* `code15`: the labels of CODE-15 %;
* `text`: sentences of MIMIC-IV-ECG and LUDB, in lower case.

Codes with `;` between them mean the statement, each by itself. With `&` between them they are its
parts: the statement holds if one of them does, and it cannot be derived without all of them.
The column `source` states on what a row rests: the AHA code in PTB-XL's `scp_statements.csv`; the
number of PTB-XL's records that the Challenge gave this code, if PTB-XL 1.0.1 has as many with the
statement; or that the descriptions agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from itertools import chain

import numpy as np
import pandas as pd

from einthoven.cohorts.cohort import Cohort, checked
from einthoven.errors import CohortError
from einthoven.tasks import Task
from einthoven.tasks.task import Matrix

STATEMENTS = "statements"
"""Name of the task of statements, which every data set of a known vocabulary has."""
VOCABULARIES = ("scp", "snomed", "aha", "challenge", "code15", "text")


@dataclass(frozen=True)
class Statement:
    """A finding, and its codes.

    Attributes
    ----------
    name, description, source : str
        As in `statements.csv`.
    codes : dict
        By vocabulary, the parts of the statement, each a set of codes with the same meaning.
    """

    name: str
    description: str
    source: str
    codes: dict[str, tuple[frozenset[str], ...]]

    def parts(self, labels: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """Places of the labels of each part of the statement; empty if a part has none.

        Of several vocabularies that express it, the one with the fewest parts.
        """
        names = [(place, form) for place, label in enumerate(labels) for form in _forms(label)]
        places = (
            tuple(tuple(i for i, form in names if form in part) for part in parts)
            for parts in self.codes.values()
        )
        return min((parts for parts in places if parts and all(parts)), key=len, default=())


def _forms(label: str) -> set[str]:
    """The label, and as a sentence in lower case."""
    return {label, label.lower()} if " " in label else {label}


@cache
def statements() -> tuple[Statement, ...]:
    """All statements of the map."""
    file = files("einthoven.cohorts").joinpath("statements.csv")
    with file.open(encoding="utf-8") as lines:
        table = pd.read_csv(lines, dtype=str, keep_default_na=False)
    return tuple(
        Statement(
            row["statement"],
            row["description"],
            row["source"],
            {
                "statement": (frozenset([row["statement"]]),),
                **{name: _parts(row[name]) for name in VOCABULARIES if row[name]},
            },
        )
        for _, row in table.iterrows()
    )


def known_codes(vocabulary: str) -> frozenset[str]:
    """Codes of a vocabulary in the map."""
    parts = (part for statement in statements() for part in statement.codes.get(vocabulary, ()))
    return frozenset(chain.from_iterable(parts))


def shared_statements(
    *sides: Sequence[str], common: bool = True
) -> dict[str, list[tuple[int, ...]]]:
    """Statements that lists of labels express.

    A statement that is made up of parts on every side is left out: its parts are there instead.

    Parameters
    ----------
    *sides : sequence of str
        Labels of a model or of a cohort, in one or several vocabularies.
    common : bool
        Only statements that all lists express; otherwise those of any list.

    Returns
    -------
    dict
        Name of the statement to the places of its labels in each list; none if the list does not
        express it. The statement holds if one of these labels does. Labels that are no code of the
        map are statements if all lists have them.
    """
    enough = all if common else any
    shared: dict[str, list[tuple[int, ...]]] = {}
    for statement in statements():
        parts = [statement.parts(labels) for labels in sides]
        if enough(parts) and any(len(of_side) == 1 for of_side in parts):
            shared[statement.name] = [tuple(sorted(set(chain(*of_side)))) for of_side in parts]
    used = {place for places in shared.values() for place in places[0]}
    others = [label for place, label in enumerate(sides[0]) if place not in used]
    for label in others if len(sides) > 1 else ():
        if label not in shared and all(label in side for side in sides):
            shared[label] = [(list(side).index(label),) for side in sides]
    return shared


def codes_in(labels: Sequence[str]) -> list[str]:
    """Labels that are codes of the map."""
    codes = set().union(
        *(part for s in statements() for parts in s.codes.values() for part in parts)
    )
    return [label for label in labels if _forms(label) & codes]


def with_statements(cohort: Cohort) -> Cohort:
    """The cohort with the statements that its labels express, as the task `statements`.

    Raises
    ------
    CohortError
        If none of its labels is a code of the map.
    """
    places = {name: sides[0] for name, sides in shared_statements(cohort.labels).items()}
    if not places:
        raise CohortError(
            f"{cohort.name}: none of the labels {', '.join(cohort.labels[:5])} is a code of the "
            "statement map",
            remedy="use the codes in einthoven/cohorts/statements.csv as labels",
        )
    return checked(
        replace(
            cohort,
            task=STATEMENTS,
            labels=tuple(places),
            matrix=any_of(cohort.matrix, list(places.values())),
            target=Task(),
            descriptions={s.name: s.description for s in statements() if s.name in places},
        )
    )


def with_labels_of(
    cohort: Cohort, labels: Sequence[str], shared: Mapping[str, Sequence[Sequence[int]]]
) -> Cohort:
    """The cohort with the labels of a model that it expresses, in their order.

    Parameters
    ----------
    cohort : Cohort
    labels : sequence of str
        Labels of the model.
    shared : mapping
        `shared_statements` of `labels` and those of the cohort. A statement of several labels of
        the model is none of them, and left out.
    """
    places = {
        of_model[0]: of_cohort for of_model, of_cohort in shared.values() if len(of_model) == 1
    }
    places = {place: places[place] for place in sorted(places)}
    names = tuple(labels[place] for place in places)
    matrix = any_of(cohort.matrix, list(places.values()))
    return replace(cohort, task=STATEMENTS, labels=names, matrix=matrix, target=Task())


def any_of(matrix: Matrix, places: Sequence[Sequence[int]]) -> Matrix:
    """Targets of statements, (records, statements): 1 if one of the columns at their places is 1.

    Otherwise NaN if one of these is not known, or there is none.
    """
    parts = [matrix[:, list(columns)] for columns in places]
    holds = np.stack([(part == 1).any(axis=1) for part in parts], axis=1)
    gaps = [np.isnan(part).any(axis=1) | (part.shape[1] == 0) for part in parts]
    unknown = np.stack(gaps, axis=1) & ~holds
    if not unknown.any():
        return holds.astype(np.uint8)
    return np.where(unknown, np.float32(np.nan), holds.astype(np.float32))


def _parts(cell: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(part.split(";")) for part in cell.split("&"))
