"""Test folds that pretraining must not touch, and encoders that touched them all the same."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from einthoven.cohorts.cohort import UNLABELLED, Cohort
from einthoven.errors import CohortError
from einthoven.files import read_metadata
from einthoven.models import weights_file
from einthoven.stages.memory import KEY, Memory
from einthoven.stages.pretraining_data import Member
from einthoven.stages.seen import Overlap, Seen
from einthoven.weights.public import public_data

ALLOWED = "allowed_overlap"


class OverlapWarning(UserWarning):
    """Weights that have seen records of a split are tested there."""


def guarded(
    members: Sequence[Member], *, protect: Sequence[Member] = (), allow: Sequence[str] = ()
) -> tuple[Seen, list[Overlap]]:
    """Refuse to pretrain on records of test splits.

    Protected are the test splits of the members themselves, where they have labels, and of others.

    Parameters
    ----------
    members : sequence of (Cohort, Store)
        What will be trained on.
    protect : sequence of (Cohort, Store)
        Other cohorts whose test splits are protected.
    allow : sequence of str
        Names of cohorts whose test splits may be touched.

    Returns
    -------
    Seen
        What training will see.
    list of Overlap
        What was found and allowed.

    Raises
    ------
    CohortError
        When a protected split is touched and not allowed, or an allowed name is none of theirs.
    """
    protected = [member for member in members if member[0].task != UNLABELLED] + list(protect)
    names = {cohort.name for cohort, _ in [*members, *protect]}
    empty = [cohort.name for cohort, _ in protect if not len(cohort.ids("test"))]
    if empty:
        raise CohortError(
            f"{', '.join(empty)} has no test split that could be protected",
            remedy="mark its records with `split` = test in a table",
        )
    unknown = sorted(set(allow) - names)
    if unknown:
        raise CohortError(
            f"overlap with {', '.join(unknown)} is allowed, but no such test split is protected",
            remedy=f"the names are {', '.join(sorted(names))}",
        )
    seen = Seen.of(members, _leads(members, protected))
    found = [overlap for overlap in map(seen.meets, protected) if overlap is not None]
    refused = [overlap for overlap in found if overlap.cohort not in allow]
    if refused:
        raise CohortError(
            f"pretraining would see {'; and '.join(map(str, refused))}",
            remedy="leave these records and patients out, or, knowing that results on that test "
            "split will be worth less, "
            + " ".join(f"--allow-overlap {overlap.cohort}" for overlap in refused),
        )
    return seen, found


def overlap_metadata(seen: Seen, allowed: Sequence[Overlap]) -> dict[str, str]:
    """What an encoder's file says of the records it has seen."""
    said = {KEY: seen.to_text()}
    if allowed:
        said[ALLOWED] = json.dumps([overlap.to_dict() for overlap in allowed])
    return said


def memory_metadata(
    memory: Memory, weights: str | Path | None = None, overlap: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """What a bundle's file of weights says of the records it has seen.

    Parameters
    ----------
    memory : Memory
        See `einthoven.stages.memory.memory_of`.
    weights : path, optional
        What training began with; what was allowed then is said again.
    overlap : mapping, optional
        What `check_encoder` found and somebody allowed.
    """
    before = _allowed_before(weights) if weights is not None else []
    more = [dict(overlap)] if overlap and overlap not in before else []
    return {KEY: memory.to_text()} | ({ALLOWED: json.dumps(before + more)} if before + more else {})


def check_encoder(
    weights: str | Path | None, member: Member, *, allow: bool = False
) -> dict[str, Any] | None:
    """Hold what an encoder or a bundle has seen against the test split it is to be tested on.

    Records count that it was pretrained on, that it was trained on with labels, and that validated
    it. Warns when the overlap was allowed, in pretraining or now.

    Returns
    -------
    dict or None
        What was found, to be recorded with the run.

    Raises
    ------
    CohortError
        When test records were seen and nobody allowed it.
    """
    memory = Memory.by(Path(weights)) if weights is not None else None
    found = memory.meets(member) if memory is not None else None
    if weights is None or found is None:
        return None
    known = any(overlap["cohort"] == found.cohort for overlap in _allowed_before(weights))
    what = f"{weights} {'has seen' if found.uses else 'was pretrained on'} {found}"
    if not known and not allow:
        raise CohortError(
            what,
            remedy="use another encoder or other folds; with --allow-overlap it is used all the "
            "same, and the run says so",
        )
    warnings.warn(
        what
        + (", as was allowed then" if known else "")
        + ": its results on this test split are too good",
        OverlapWarning,
        stacklevel=2,
    )
    return found.to_dict()


def check_scored(weights: str | Path, member: Member, split: str = "test") -> dict[str, Any] | None:
    """Say so when a bundle has seen records of the split that it is to be scored on.

    It may be another cohort than its own, which holds the same recordings or patients, or its own
    training split. Nothing is refused: a score is no result yet.

    Parameters
    ----------
    weights : path
        The model.
    member : (Cohort, Store)
        What it is scored on.
    split : str

    Returns
    -------
    dict or None
        What was found, to be kept with the score.
    """
    memory = Memory.by(Path(weights))
    found = memory.meets(member, split) if memory is not None else None
    if found is None:
        return None
    warnings.warn(
        f"{weights} has seen {found}: its scores there are too good",
        OverlapWarning,
        stacklevel=2,
    )
    return found.to_dict()


def check_public_weights(
    backbone: str, weights: str | Path | None, cohort: Cohort
) -> dict[str, str] | None:
    """Say so when public weights were, or may have been, pretrained on the cohort to be tested on.

    Nobody can leave those records out any more, so this warns and refuses nothing; and it warns
    as well where nobody knows. It goes by what the file or the catalogue says
    (`einthoven.weights.public`); a file that was pretrained here, and says on what, is
    `check_encoder`'s.

    Returns
    -------
    dict or None
        `PublicData.record`, to be kept with the run; None where the weights are not public.
    """
    data = None if weights is None else public_data(backbone, weights)
    if data is None:
        return None
    if warning := data.warning(cohort.name):
        warnings.warn(warning, OverlapWarning, stacklevel=2)
    return data.record(cohort.name)


def _allowed_before(weights: str | Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        read_metadata(weights_file(weights)).get(ALLOWED, "[]")
    )
    return found


def _leads(members: Sequence[Member], protected: Sequence[Member]) -> list[str]:
    """Leads that the stores have in common; of the members alone where a fold has none of them."""
    common = set.intersection(*(set(store.leads) for _, store in members))
    for _, store in protected:
        common = common & set(store.leads) or common
    return sorted(common)
