"""Leakage: fingerprints of what weights have seen, refusals and warnings where it is the test."""

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

from einthoven.cohorts import Cohort, open_cohort
from einthoven.errors import CohortError
from einthoven.experiment.run import model_of
from einthoven.files import read_json, read_metadata, write_tensors
from einthoven.models import load_model, save_model
from einthoven.signals.pack import pack
from einthoven.stages.leakage import (
    SEEN,
    LeakageWarning,
    Seen,
    check_initial_weights,
    check_pretraining_records,
    check_scored,
    find_leakage,
    merge,
    read_seen,
    seen_in_training,
    seen_metadata,
    write_seen,
)
from einthoven.stages.posttrain import Posttrained
from einthoven.stages.pretraining_data import Member
from einthoven.stages.recipe import Recipe

LEADS = ("I", "II", "V5")
Train = Callable[..., Posttrained]


def seen(use: str, signals: list[int], *, leads: tuple[str, ...] = ("I", "II")) -> Seen:
    return Seen(use, leads, np.array(signals, dtype=np.uint64), np.zeros(0, dtype=np.uint64))


@pytest.fixture(scope="module")
def elsewhere(renamed: Callable[[Path], int], tmp_path_factory: pytest.TempPathFactory) -> Member:
    """Somebody's own table of the same recordings, under other names, nobody's split yet."""
    root = tmp_path_factory.mktemp("own") / "ward"
    rows = [f"ecg{number},q{number},train,{number % 2}" for number in range(renamed(root))]
    (root / "table.csv").write_text("\n".join(["path,patient,split,AFIB", *rows]))
    cohort = open_cohort(root / "table.csv")
    return cohort, pack(cohort, root.parent / "store", workers=1)


def with_test_split(member: Member, other: Member, split: str) -> Member:
    """A table whose test split is the recordings of another cohort's split."""
    cohort, store = member
    ids, known = cohort.ids(), Seen.of([other], sorted(other[1].leads), split=split)
    whole = replace(cohort, table=cohort.table.assign(split="test"))
    alike = find_leakage([known], (whole, store))
    assert alike is not None
    names = np.where(np.isin(ids, alike.found["signal"]), "test", "train")
    return replace(cohort, table=cohort.table.assign(split=names)), store


@pytest.fixture(scope="module")
def model(
    finished: Posttrained,
    synthetic: Cohort,
    recipe: Recipe,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The bundle of a post-training, away from its run folder."""
    folder = tmp_path_factory.mktemp("moved") / "bundle"
    return save_model(model_of(finished, synthetic, recipe), folder)


def test_merge_by_use_and_leads() -> None:
    parts = [seen("pretraining", [1, 2]), seen("training", [2, 3]), seen("training", [3, 4])]
    parts.append(seen("training", [1], leads=("V1",)))
    assert [(part.use, part.leads, part.signals.tolist()) for part in merge(parts)] == [
        ("pretraining", ("I", "II"), [1, 2]),
        ("training", ("I", "II"), [2, 3, 4]),
        ("training", ("V1",), [1]),
    ]


def test_seen_in_training_covers_training_and_validation(labelled: Member) -> None:
    for part, split in zip(seen_in_training(labelled), ("train", "validation"), strict=True):
        expected = Seen.of([labelled], sorted(labelled[1].leads), split=split)
        assert np.array_equal(part.signals, expected.signals)


def test_seen_in_training_uses_the_leads_of_the_initial_weights(
    labelled: Member, tmp_path: Path
) -> None:
    file = tmp_path / "model"
    before = Seen.of([labelled], ("II", "V5"))
    write_tensors(file, {"x": torch.zeros(1)}, seen_metadata([before]))
    parts = seen_in_training(labelled, file)
    assert {part.leads for part in parts} == {("II", "V5")}
    assert [part.use for part in parts] == ["pretraining", "training", "validation"]


def test_model_keeps_fingerprints_of_its_training_records(model: Path, labelled: Member) -> None:
    parts = read_seen(model)
    assert {part.use: len(part.signals) for part in parts} == {
        "training": len(labelled[0].ids("train")),
        "validation": len(labelled[0].ids("validation")),
    }
    # Patients of own tables stay in the run folder.
    assert not any(len(part.own_patients) for part in parts)
    assert check_initial_weights(model, labelled) is None


def test_saved_copy_keeps_fingerprints(model: Path, tmp_path: Path) -> None:
    again = save_model(load_model(model), tmp_path / "again")
    weights = [folder / "model.safetensors" for folder in (model, again)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert load_model(again).fingerprints.keys() == {"seen"}


@pytest.mark.parametrize(
    ("split", "use"),
    [("train", "in training with labels"), ("validation", "in validation, which chose the epoch")],
)
def test_initial_weights_that_saw_the_test_split_are_refused(
    model: Path, labelled: Member, elsewhere: Member, train: Train, tmp_path: Path, split: str,
    use: str,
) -> None:  # fmt: skip
    cohort, store = with_test_split(elsewhere, labelled, split)
    found = len(cohort.ids("test"))
    assert found == len(labelled[0].ids(split))
    with pytest.raises(CohortError) as caught:
        check_initial_weights(model, (cohort, store))
    said = str(caught.value)
    assert f"has seen {found} of the {found} test records of table ({found} by signal)" in said
    assert f"such as '{sorted(cohort.ids('test'))[0]}'" in said
    assert f": {found} {use}\n" in said
    assert "--allow-overlap" in said
    with pytest.warns(LeakageWarning, match="biased"):
        kept = check_initial_weights(model, (cohort, store), allow=True)
    assert kept is not None
    assert kept[use] == kept["seen"] == found


def test_posttrain_refuses_leakage_and_records_permission(
    model: Path, train: Train, synthetic: Cohort, tmp_path: Path, recipe: Recipe
) -> None:
    """The same cohort with another split: its test records were trained on."""
    names = {"train": "test", "test": "train"}
    table = synthetic.table.assign(split=synthetic.table["split"].replace(names))
    swapped = replace(synthetic, table=table)
    quick: dict[str, Any] = {"stage1": None, "stage2": {"epochs": 1}, "weights": model}
    with pytest.raises(CohortError, match="in training with labels"):
        train(tmp_path / "refused", cohort=swapped, **quick)
    assert not (tmp_path / "refused").exists()
    with pytest.warns(LeakageWarning, match="biased"):
        done = train(tmp_path / "allowed", cohort=swapped, allow_overlap=True, **quick)
    tested = len(swapped.ids("test"))
    assert done.run.request["overlap"]["in training with labels"] == tested
    assert json.loads(done.fingerprints["allowed_overlap"])[0]["seen"] == tested
    again = save_model(model_of(done, swapped, recipe), tmp_path / "b")
    assert {part.use for part in read_seen(again)} == {"training", "validation"}


def test_allowed_leakage_accumulates(labelled: Member, tmp_path: Path) -> None:
    before = {"cohort": "x", "seen": 1}
    file = tmp_path / "model"
    write_tensors(file, {"weight": torch.zeros(1)}, {"allowed_overlap": json.dumps([before])})
    parts = seen_in_training(labelled)
    for overlap, expected in (
        (None, [before]),
        (before, [before]),
        ({"seen": 2}, [before, {"seen": 2}]),
    ):
        metadata = seen_metadata(parts, [overlap] if overlap else [], weights=file)
        assert json.loads(metadata["allowed_overlap"]) == expected
    assert "allowed_overlap" not in seen_metadata(parts)
    assert read_metadata(file).keys() == {"allowed_overlap"}


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
def pretrained(tmp_path: Path) -> Any:
    """Writes an encoder that has seen members: `pretrained(members, allow=...)`."""

    def write(members: Sequence[Member], *, place: str = "run", **asked: Any) -> Path:
        seen, allowed = check_pretraining_records(members, **asked)
        file = tmp_path / place / "model"
        metadata = seen_metadata([seen], [leakage.to_dict() for leakage in allowed])
        write_tensors(file, {"x": torch.zeros(1)}, metadata)
        write_seen(file.parent, [seen])
        return file

    return write


def test_training_split_has_no_leakage_with_its_test_split(labelled: Member) -> None:
    seen, found = check_pretraining_records([labelled])
    assert found == []
    assert len(seen.signals) == 58
    assert len(seen.own_patients) == len(set(labelled[0].patients("train")))


def test_renamed_copies_are_found_by_signal(labelled: Member, folder: Member) -> None:
    """The folder holds the test records of the labelled cohort, under other names."""
    with pytest.raises(CohortError) as caught:
        check_pretraining_records([labelled, folder])
    tested = len(labelled[0].ids("test"))
    first = sorted(labelled[0].ids("test"))[0]
    said = str(caught.value)
    assert f"{tested} of the {tested} test records of {labelled[0].name} ({tested} by sig" in said
    assert f"such as '{first}'" in said
    assert f"--allow-overlap {labelled[0].name}" in said


def test_protected_cohort_needs_a_test_split(folder: Member) -> None:
    assert check_pretraining_records([folder])[1] == []
    with pytest.raises(CohortError, match="exports has no test split"):
        check_pretraining_records([folder], protect=[folder])


def test_other_cohorts_can_be_protected(labelled: Member, folder: Member) -> None:
    with pytest.raises(CohortError, match="by signal"):
        check_pretraining_records([folder], protect=[labelled])


def test_allowed_leakage_is_returned(labelled: Member, folder: Member) -> None:
    name = labelled[0].name
    _, found = check_pretraining_records([labelled, folder], allow=[name])
    assert [overlap.cohort for overlap in found] == [name]
    assert found[0].ids == sorted(labelled[0].ids("test"))
    with pytest.raises(CohortError, match="overlap with nobody is allowed"):
        check_pretraining_records([labelled], allow=["nobody"])


def test_records_of_a_test_patient_are_found_by_patient(labelled: Member) -> None:
    """A table without labels in the same folder names the same people."""
    cohort, store = labelled
    patient = cohort.patients("test")[0]
    of_theirs = cohort.ids("test")[cohort.patients("test") == patient]
    assert len(of_theirs) >= 1
    training = part(labelled, set(cohort.ids("train")[:5]), split="train")
    stranger = replace(training[0], name="more", table=training[0].table.assign(patient=patient))
    with pytest.raises(CohortError) as caught:
        check_pretraining_records([(stranger, store)], protect=[labelled])
    assert f"({len(of_theirs)} by patient)" in str(caught.value)
    # The same number in another folder is another person.
    elsewhere = replace(stranger, root=Path("/elsewhere"))
    assert check_pretraining_records([(elsewhere, store)], protect=[labelled])[1] == []


def test_copies_of_a_known_data_set_are_found_by_record_id(labelled: Member) -> None:
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
        check_pretraining_records([(moved, fake)], protect=[(public, store)])


def test_fingerprints_in_an_encoder_are_small_and_exact(labelled: Member, pretrained: Any) -> None:
    file = pretrained([labelled])
    (table,) = json.loads(read_metadata(file)["seen"])
    assert len(table["signals"]) == 58 * 8
    assert table["patients"] == ""  # people of own tables stay in the run folder
    (part,) = read_seen(file)
    fresh = Seen.of([labelled], sorted(labelled[1].leads))
    assert part.use == "pretraining"
    assert np.array_equal(part.signals, fresh.signals)
    assert np.array_equal(part.own_patients, fresh.own_patients)
    assert "records" not in read_json(file.parent / SEEN)[0]


def test_patients_of_public_data_are_stored_with_the_encoder(
    labelled: Member, pretrained: Any, tmp_path: Path
) -> None:
    public = replace(labelled[0], name="ptb-xl", version="1.0.3"), labelled[1]
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(pretrained([public]).read_bytes())
    (part,) = read_seen(moved)
    assert len(part.patients) == len(set(public[0].patients("train")))
    assert len(part.own_patients) == 0


def test_encoder_that_saw_test_records_is_refused(
    labelled: Member, folder: Member, pretrained: Any
) -> None:
    cohort = labelled[0]
    file = pretrained([folder])
    with pytest.raises(CohortError, match=r"model was pretrained on \d+ of the"):
        check_initial_weights(file, labelled)
    with pytest.warns(LeakageWarning, match="biased"):
        found = check_initial_weights(file, labelled, allow=True)
    assert found is not None
    assert found["seen"] == found["test records"] == len(cohort.ids("test"))


def test_unseen_records_are_accepted_without_a_warning(
    labelled: Member, folder: Member, pretrained: Any
) -> None:
    file = pretrained([part(folder, set(folder[0].ids()[:20]), split="train")])
    touched = find_leakage(read_seen(file), labelled)
    assert touched is not None
    assert 0 < len(touched.ids) < touched.records
    untouched = set(labelled[0].ids("test")) - set(touched.ids)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_initial_weights(file, part(labelled, untouched, split="test")) is None


def test_leakage_allowed_in_pretraining_warns_later(
    labelled: Member, folder: Member, pretrained: Any
) -> None:
    file = pretrained([labelled, folder], allow=[labelled[0].name])
    said = json.loads(read_metadata(file)["allowed_overlap"])
    assert said[0]["cohort"] == labelled[0].name
    with pytest.warns(LeakageWarning, match="allowed in pretraining"):
        assert check_initial_weights(file, labelled) is not None
    other = replace(labelled[0], name="another"), labelled[1]
    with pytest.raises(CohortError, match="test records of another"):
        check_initial_weights(file, other)


def test_checkpoints_without_fingerprints_are_accepted(tmp_path: Path, labelled: Member) -> None:
    torch.save({"model": {"x": torch.zeros(1)}}, tmp_path / "public.pth")
    write_tensors(tmp_path / "plain.safetensors", {"x": torch.zeros(1)}, {})
    for file in (tmp_path / "public.pth", tmp_path / "plain.safetensors", None):
        assert check_initial_weights(file, labelled) is None


def test_stores_are_compared_by_common_leads(
    labelled: Member, folder: Member, tmp_path: Path
) -> None:
    few = folder[0], pack(folder[0], tmp_path / "few", leads=LEADS, workers=1)
    with pytest.raises(CohortError, match="by signal"):
        check_pretraining_records([few], protect=[labelled])
    assert find_leakage([Seen.of([few], LEADS)], labelled) is not None
    # The other way round nothing can be said of the signals.
    narrow = part(few, set(few[0].ids()), split="test")
    whole = Seen.of([labelled], sorted(labelled[1].leads))
    assert find_leakage([whole], narrow) is None


def test_check_scored_for_any_split_of_any_cohort(
    labelled: Member, folder: Member, pretrained: Any
) -> None:
    """The folder's records, all of them training records, are those of the labelled cohort."""
    cohort = labelled[0]
    trained = part(folder, set(folder[0].ids()), split="train")
    file = pretrained([part(labelled, set(cohort.ids("train")), split="train")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_scored(file, labelled) is None
    with pytest.warns(LeakageWarning, match=r"has seen 58 of the 58 train records of"):
        found = check_scored(file, labelled, "train")
    assert found is not None
    assert (found["seen"], found["train records"]) == (58, 58)
    with pytest.warns(LeakageWarning, match=r"58 by signal.*biased"):
        found = check_scored(file, trained, "train")
    assert found is not None
    assert (found["by signal"], found["by patient"]) == (58, 0)
