"""Ten folds of whole patients in which every statement is spread evenly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FOLDS = tuple(range(1, 11))
_HELD_OUT = (9, 10)
_FEWEST = 2  # patients of every statement that validation and test each want
_SHARED = 3 * _FEWEST  # patients of a statement from which on they get them


def assign_folds(
    histories: Sequence[Sequence[tuple[str, ...]]], rng: np.random.Generator
) -> list[int]:
    """Give every patient a fold.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas, ECML PKDD 2011) over patients:
    the rarest statement first, each of its patients to the fold that misses it most. Folds 9 and
    10 ask for at least two patients of every statement.

    Parameters
    ----------
    histories : sequence of sequences of tuple of str
        Statements of each recording of each patient.
    rng : numpy.random.Generator
        The order in which patients of one statement are taken.

    Returns
    -------
    list of int
        1..10, one a patient.
    """
    labels = [frozenset(code for codes in history for code in codes) for history in histories]
    counts = Counter(code for codes in labels for code in codes)
    wanted = {code: _wanted(count) for code, count in counts.items()}
    room = np.full(len(FOLDS), sum(map(len, histories)) / len(FOLDS))
    folds = [0] * len(histories)
    order = rng.permutation(len(histories))
    for rarest in sorted(counts, key=lambda code: (counts[code], code)):
        for patient in order:
            if folds[patient] or rarest not in labels[patient]:
                continue
            choice = int(np.lexsort((-room, -wanted[rarest].round(9)))[0])
            folds[patient] = FOLDS[choice]
            room[choice] -= len(histories[patient])
            for code in labels[patient]:
                wanted[code][choice] -= 1
    return _repaired(folds, labels, order)


def _repaired(
    folds: list[int], labels: Sequence[frozenset[str]], order: npt.NDArray[np.int64]
) -> list[int]:
    """Move training patients to a held-out fold that still misses a statement of theirs."""
    for code in sorted(set().union(*labels)):
        having = [int(patient) for patient in order if code in labels[patient]]
        if len(having) < _SHARED:
            continue  # too few to share
        for fold in _HELD_OUT:
            missing = _FEWEST - sum(folds[patient] == fold for patient in having)
            train = [patient for patient in having if folds[patient] not in _HELD_OUT]
            for patient in train[: max(0, missing)]:
                folds[patient] = fold
    return folds


def _wanted(count: int) -> npt.NDArray[np.float64]:
    """How many patients of a statement each fold would like."""
    wanted = np.full(len(FOLDS), count / len(FOLDS))
    held = [FOLDS.index(fold) for fold in _HELD_OUT]
    wanted[held] = np.maximum(wanted[held], _FEWEST)
    train = np.setdiff1d(np.arange(len(FOLDS)), held)
    wanted[train] = max(0.0, count - wanted[held].sum()) / len(train)
    return wanted
