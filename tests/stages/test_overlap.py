"""Test folds are protected: by signal, by record, by patient; what is allowed is remembered."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from einthoven.cohorts import open_cohort
from einthoven.errors import CohortError
from einthoven.files import read_json, read_metadata, write_tensors
from einthoven.signals.pack import pack
from einthoven.stages.memory import Memory
from einthoven.stages.overlap import (
    OverlapWarning,
    check_encoder,
    check_scored,
    guarded,
    overlap_metadata,
)
from einthoven.stages.pretraining_data import Member
from einthoven.stages.seen import SEEN, Overlap, Seen

LEADS = ("I", "II", "V5")


@pytest.fixture(scope="module")
def folder(renamed: Callable[[Path], int], tmp_path_factory: pytest.TempPathFactory) -> Member:
    """The same files, copied elsewhere and renamed: nothing but the signals is the same."""
    root = tmp_path_factory.mktemp("copied") / "exports"
    renamed(root)
    cohort = open_cohort(root)
    return cohort, pack(cohort, root.parent / "store", workers=1)


def part(member: Member, ids: Sequence[str] | set[str], *, split: str) -> Member:
    """Some records of a cohort, all in one split."""
    cohort, store = member
    kept = cohort.select(np.isin(cohort.ids(), list(ids)))
    return replace(kept, table=kept.table.assign(split=split)), store


@pytest.fixture
def encoder(tmp_path: Path) -> Any:
    """Writes an encoder that has seen members: `encoder(members, allow=...)`."""

    def write(members: Sequence[Member], *, place: str = "run", **asked: Any) -> Path:
        seen, allowed = guarded(members, **asked)
        file = tmp_path / place / "model"
        write_tensors(file, {"x": torch.zeros(1)}, overlap_metadata(seen, allowed))
        seen.write(file.parent)
        return file

    return write


def test_a_cohort_s_own_training_split_touches_nothing(labelled: Member) -> None:
    seen, found = guarded([labelled])
    assert found == []
    assert len(seen.signals) == 58
    assert len(seen.own_patients) == len(set(labelled[0].patients("train")))


def test_a_renamed_copy_is_known_by_its_signals(labelled: Member, folder: Member) -> None:
    """The folder holds the test records of the labelled cohort, under other names."""
    with pytest.raises(CohortError) as caught:
        guarded([labelled, folder])
    tested = len(labelled[0].ids("test"))
    first = sorted(labelled[0].ids("test"))[0]
    said = str(caught.value)
    assert f"{tested} of the {tested} test records of {labelled[0].name} ({tested} by sig" in said
    assert f"such as '{first}'" in said
    assert f"--allow-overlap {labelled[0].name}" in said


def test_a_fold_is_protected_only_where_there_is_one(folder: Member) -> None:
    assert guarded([folder])[1] == []
    with pytest.raises(CohortError, match="exports has no test split"):
        guarded([folder], protect=[folder])


def test_another_cohort_is_protected_when_asked(labelled: Member, folder: Member) -> None:
    with pytest.raises(CohortError, match="by signal"):
        guarded([folder], protect=[labelled])


def test_what_is_allowed_goes_through_and_is_reported(labelled: Member, folder: Member) -> None:
    name = labelled[0].name
    _, found = guarded([labelled, folder], allow=[name])
    assert [overlap.cohort for overlap in found] == [name]
    assert found[0].ids == sorted(labelled[0].ids("test"))
    with pytest.raises(CohortError, match="overlap with nobody is allowed"):
        guarded([labelled], allow=["nobody"])


def test_other_records_of_a_test_patient_are_found_by_patient(labelled: Member) -> None:
    """A table without labels in the same folder names the same people."""
    cohort, store = labelled
    patient = cohort.patients("test")[0]
    of_theirs = cohort.ids("test")[cohort.patients("test") == patient]
    assert len(of_theirs) >= 1
    training = part(labelled, set(cohort.ids("train")[:5]), split="train")
    stranger = replace(training[0], name="more", table=training[0].table.assign(patient=patient))
    with pytest.raises(CohortError) as caught:
        guarded([(stranger, store)], protect=[labelled])
    assert f"({len(of_theirs)} by patient)" in str(caught.value)
    # The same number in another folder is another person.
    elsewhere = replace(stranger, root=Path("/elsewhere"))
    assert guarded([(elsewhere, store)], protect=[labelled])[1] == []


def test_a_known_data_set_is_known_by_its_ids_at_any_rate(labelled: Member) -> None:
    """Two copies of PTB-XL in different folders: another recording, the same id."""
    cohort, store = labelled
    tested = cohort.ids("test")[0]
    public = replace(cohort, name="ptb-xl", version="1.0.3")
    training = part((public, store), {cohort.ids("train")[0]}, split="train")[0]
    renamed = training.table.copy()
    renamed.index = [tested]
    moved = replace(training, root=Path("/elsewhere"), table=renamed)
    fake = replace(store, index=store.index.rename(index={training.ids()[0]: tested, tested: "_"}))
    with pytest.raises(CohortError, match="1 by record id"):
        guarded([(moved, fake)], protect=[(public, store)])


def test_an_encoder_remembers_in_few_bytes(labelled: Member, encoder: Any) -> None:
    file = encoder([labelled])
    text = read_metadata(file)["seen"]
    table = json.loads(text)
    assert len(table["signals"]) == 58 * 8
    assert table["patients"] == ""  # people of own tables stay in the run folder
    memory = Memory.by(file)
    fresh = Seen.of([labelled], sorted(labelled[1].leads))
    assert memory is not None
    (part,) = memory.parts
    assert part.uses == ("pretraining",)
    assert np.array_equal(part.seen.signals, fresh.signals)
    assert np.array_equal(part.seen.own_patients, fresh.own_patients)
    assert "records" not in read_json(file.parent / SEEN)


def test_patients_of_public_data_travel_with_the_encoder(
    labelled: Member, encoder: Any, tmp_path: Path
) -> None:
    public = replace(labelled[0], name="ptb-xl", version="1.0.3"), labelled[1]
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(encoder([public]).read_bytes())
    memory = Memory.by(moved)
    assert memory is not None
    assert len(memory.parts[0].seen.patients) == len(set(public[0].patients("train")))
    assert len(memory.parts[0].seen.own_patients) == 0


def test_an_encoder_that_has_seen_test_records_is_refused(
    labelled: Member, folder: Member, encoder: Any
) -> None:
    cohort = labelled[0]
    file = encoder([folder])
    with pytest.raises(CohortError, match=r"model was pretrained on \d+ of the"):
        check_encoder(file, labelled)
    with pytest.warns(OverlapWarning, match="too good"):
        found = check_encoder(file, labelled, allow=True)
    assert found is not None
    assert found["seen"] == found["test records"] == len(cohort.ids("test"))


def test_an_encoder_is_as_good_as_ever_on_records_that_it_has_not_seen(
    labelled: Member, folder: Member, encoder: Any
) -> None:
    file = encoder([part(folder, set(folder[0].ids()[:20]), split="train")])
    memory = Memory.by(file)
    touched = memory.meets(labelled) if memory else None
    assert touched is not None
    assert 0 < len(touched.ids) < touched.records
    untouched = set(labelled[0].ids("test")) - set(touched.ids)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_encoder(file, part(labelled, untouched, split="test")) is None


def test_what_was_allowed_in_pretraining_is_repeated_as_a_warning(
    labelled: Member, folder: Member, encoder: Any
) -> None:
    file = encoder([labelled, folder], allow=[labelled[0].name])
    said = json.loads(read_metadata(file)["allowed_overlap"])
    assert said[0]["cohort"] == labelled[0].name
    with pytest.warns(OverlapWarning, match="as was allowed then"):
        assert check_encoder(file, labelled) is not None
    other = replace(labelled[0], name="another"), labelled[1]
    with pytest.raises(CohortError, match="test records of another"):
        check_encoder(file, other)


def test_other_people_s_checkpoints_say_nothing(tmp_path: Path, labelled: Member) -> None:
    torch.save({"model": {"x": torch.zeros(1)}}, tmp_path / "public.pth")
    write_tensors(tmp_path / "plain.safetensors", {"x": torch.zeros(1)}, {})
    for file in (tmp_path / "public.pth", tmp_path / "plain.safetensors", None):
        assert check_encoder(file, labelled) is None


def test_stores_with_other_leads_are_compared_by_what_they_share(
    labelled: Member, folder: Member, tmp_path: Path
) -> None:
    few = folder[0], pack(folder[0], tmp_path / "few", leads=LEADS, workers=1)
    with pytest.raises(CohortError, match="by signal"):
        guarded([few], protect=[labelled])
    seen = Seen.of([few], LEADS)
    assert seen.meets(labelled) is not None
    # The other way round nothing can be said of the signals.
    narrow = labelled[0], few[1]
    whole = Seen.of([folder], sorted(folder[1].leads))
    assert not whole._known_signals(narrow[1], np.array(folder[0].ids()[:3])).any()


def test_what_is_scored_may_be_any_split_of_any_cohort(
    labelled: Member, folder: Member, encoder: Any
) -> None:
    """The folder's records, all of them training records, are those of the labelled cohort."""
    cohort = labelled[0]
    trained = part(folder, set(folder[0].ids()), split="train")
    file = encoder([part(labelled, set(cohort.ids("train")), split="train")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_scored(file, labelled) is None
    with pytest.warns(OverlapWarning, match=r"run has seen 58 of the 58 train records of"):
        found = check_scored(file, labelled, "train")
    assert found is not None
    assert (found["seen"], found["train records"]) == (58, 58)
    with pytest.warns(OverlapWarning, match=r"58 by signal.*: its scores there are too good"):
        found = check_scored(file, trained, "train")
    assert found is not None
    assert (found["by signal"], found["by patient"]) == (58, 0)


def test_an_overlap_says_how_much_and_what() -> None:
    found = Overlap(
        "ptb-xl", 2198, {"signal": ("38", "77"), "record id": (), "patient": ("77", "9")}
    )
    assert str(found) == (
        "3 of the 2,198 test records of ptb-xl (2 by signal, 2 by patient), such as '38', '77', '9'"
    )
    assert "of the 2,198 validation records of" in str(replace(found, split="validation"))
