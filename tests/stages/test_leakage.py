"""Leakage: fingerprints of what weights have seen; refusals and warnings about test records."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from einthoven import read_record
from einthoven.cohorts import SPLITS, Cohort, open_cohort
from einthoven.cohorts.cohort import CohortWarning
from einthoven.errors import CohortError
from einthoven.experiment.run import model_of
from einthoven.files import read_json, read_metadata, write_tensors
from einthoven.models import load_model, save_model
from einthoven.records.wfdb import write_wfdb
from einthoven.signals.pack import pack
from einthoven.signals.store import Store
from einthoven.stages.leakage import (
    ALLOWED,
    BITS,
    LEAKAGE,
    USES,
    Fingerprints,
    LeakageWarning,
    check_duplicates,
    check_evaluation_records,
    check_initial_weights,
    check_pretraining_records,
    compared_leads,
    compared_records,
    find_leakage,
    joined_duplicates,
    merge,
    read_fingerprints,
    signal_fingerprints,
    training_fingerprints,
    write_fingerprints,
)
from einthoven.stages.posttrain import PosttrainResult
from einthoven.stages.pretraining_data import PackedCohort
from einthoven.stages.recipe import Recipe

LEADS = ("I", "II", "V5")
Train = Callable[..., PosttrainResult]


@pytest.fixture(scope="module")
def folder(
    renamed: Callable[[Path], int], tmp_path_factory: pytest.TempPathFactory
) -> PackedCohort:
    """Renamed copies of the simulated recordings, without labels or patients."""
    root = tmp_path_factory.mktemp("copied") / "exports"
    renamed(root)
    cohort = open_cohort(root)
    return cohort, pack(cohort, root.parent / "store", workers=1)


@pytest.fixture(scope="module")
def ward(folder: PackedCohort) -> PackedCohort:
    """A user's own table of these copies."""
    root, names = folder[0].root, [f"ecg{number}" for number in range(len(folder[0].ids()))]
    rows = [f"{name},q{number},train,{number % 2}" for number, name in enumerate(names)]
    (root / "table.csv").write_text("\n".join(["path,patient,split,AFIB", *rows]))
    cohort = open_cohort(root / "table.csv")
    return cohort, pack(cohort, root.parent / "ward", workers=1)


@pytest.fixture(scope="module")
def model(
    finished: PosttrainResult, labelled: PackedCohort, recipe: Recipe, tmp_path_factory: Any
) -> Path:
    """Model folder of a post-training, away from its run folder."""
    path = tmp_path_factory.mktemp("moved") / "model"
    return save_model(model_of(finished, labelled[0], recipe), path)


@pytest.fixture
def pretrained(tmp_path: Path) -> Any:
    """Writes an encoder that has seen members: `pretrained(members, allow=...)`."""

    def write(members: Sequence[PackedCohort], **options: Any) -> Path:
        parts, leakages = check_pretraining_records(members, **options)
        metadata = write_fingerprints(
            tmp_path, [parts], [leakage.to_dict() for leakage in leakages]
        )
        write_tensors(tmp_path / "model", {"x": torch.zeros(1)}, metadata)
        return tmp_path / "model"

    return write


def part(member: PackedCohort, ids: Sequence[str] | set[str], *, split: str) -> PackedCohort:
    """Some records of a cohort, all in one split."""
    cohort, store = member
    selected = cohort.select(np.isin(cohort.ids(), list(ids)))
    return replace(selected, table=selected.table.assign(split=split)), store


def with_test_split(member: PackedCohort, other: PackedCohort, split: str) -> PackedCohort:
    """A table whose test split is the recordings of another cohort's split."""
    cohort, store = member
    whole = replace(cohort, table=cohort.table.assign(split="test"))
    leakage = find_leakage(
        [Fingerprints.of(other, sorted(other[1].leads), split=split)], (whole, store)
    )
    assert leakage is not None
    names = np.where(np.isin(cohort.ids(), leakage.ways["signal"]), "test", "train")
    return replace(cohort, table=cohort.table.assign(split=names)), store


def test_equal_recordings_of_different_patients_count_as_one_patient(
    synthetic: Cohort, synthetic_store: Store
) -> None:
    """With all other records of these patients, in one split, and only if it is not stated."""
    counts = synthetic.table["patient"].value_counts()
    several = synthetic.table["patient"].isin(counts.index[counts > 1])
    of = {split: synthetic.table[several & (synthetic.table["split"] == split)] for split in SPLITS}
    one, other = of["train"].index[0], of["test"].index[0]
    index = synthetic_store.index.copy()
    index.loc[one, ["shard", "offset"]] = index.loc[other, ["shard", "offset"]]
    store = replace(synthetic_store, index=index, _maps={})
    assert joined_duplicates((synthetic, store)) is synthetic
    cohort = replace(synthetic, has_splits=False)
    assert joined_duplicates((cohort, synthetic_store)) is cohort
    with pytest.warns(CohortWarning, match=f"'{one}'"):
        joined = joined_duplicates((cohort, store))
    pair = synthetic.table.loc[[one, other], "patient"].tolist()
    moved = joined.table[synthetic.table["patient"].isin(pair)]
    assert len(moved) > 2
    assert set(moved["split"]) == {"train"}
    assert moved["patient"].nunique() == 1
    others = ~synthetic.table["patient"].isin(pair)
    assert joined.table[others].equals(synthetic.table[others])
    check_duplicates((joined, store))


@pytest.mark.parametrize("limbs", [("I", "II"), ("II", "III"), ("I", "aVF"), ("aVR", "aVL")])
def test_a_copy_with_eight_leads_is_the_same_recording(
    limbs: tuple[str, str], synthetic: Cohort, tmp_path: Path
) -> None:
    """The limb leads that it leaves out are computed, and rounded otherwise."""
    path = synthetic.root / synthetic.table["path"].iloc[0]
    record = read_record(path)
    write_wfdb(tmp_path / "whole", record.signal, rate=record.rate, leads=record.leads)
    eight = record.select((*limbs, "V1", "V2", "V3", "V4", "V5", "V6"))
    write_wfdb(tmp_path / "eight", eight.signal, rate=eight.rate, leads=eight.leads)
    write_wfdb(tmp_path / "other", 2 * eight.signal, rate=eight.rate, leads=eight.leads)
    names = ["whole", "eight", "other"]
    frame = pd.DataFrame(
        {
            "path": [f"{name}.hea" for name in names],
            "record": names,
            "patient": names,
            "split": ["train", "test", "test"],
            "AF": [0, 1, 0],
        }
    )
    cohort = open_cohort(frame, root=tmp_path)
    member = cohort, pack(cohort, tmp_path / "store", workers=1)
    with pytest.raises(CohortError, match="'whole'"):
        check_duplicates(member)
    with pytest.warns(CohortWarning, match="'whole' and 'eight'"):
        joined = joined_duplicates((replace(cohort, has_splits=False), member[1]))
    assert joined.patients().tolist() == ["whole", "whole", "other"]
    narrow = pack(cohort, tmp_path / "narrow", leads=eight.leads, workers=1)
    leakage = find_leakage(training_fingerprints(member), (cohort, narrow))
    assert leakage is not None
    assert leakage.ways["signal"] == ("eight",)


# ---------------------------------------------------------------------- fingerprints


def test_signal_fingerprint_is_independent_of_name_and_lead_order(
    synthetic_store: Store, folder: PackedCohort, tmp_path: Path
) -> None:
    other = pack(folder[0], tmp_path / "few", leads=("V5", "II", "I"), workers=1)
    rows = np.arange(len(synthetic_store))
    ours = signal_fingerprints(synthetic_store, rows, LEADS)
    theirs = signal_fingerprints(other, np.arange(len(other)), LEADS)
    assert sorted(ours) == sorted(theirs)
    assert len(set(ours.tolist())) == len(ours)
    assert ours.max() < 2**BITS
    assert np.array_equal(signal_fingerprints(synthetic_store, rows[::-1], LEADS), ours[::-1])


def test_signal_fingerprint_depends_on_every_sample_and_the_rate(
    synthetic_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.array([3])
    before = signal_fingerprints(synthetic_store, rows, LEADS)
    chunk = synthetic_store.read(rows)[0]
    signals = chunk.signals.copy()
    signals[0, 1, 500] += 1
    flat = replace(chunk, signals=np.zeros_like(signals))
    for other in (replace(chunk, signals=signals), replace(chunk, rate=500.0), flat):
        monkeypatch.setattr(Store, "read", lambda self, rows, other=other: [other])
        number = signal_fingerprints(synthetic_store, rows, LEADS)
        assert number != before
        assert (number == 0) == (other is flat)  # a flat record cannot be identified


def test_merge_by_use_and_leads() -> None:
    def seen(use: str, signals: list[int], leads: tuple[str, ...] = ("I", "II")) -> Fingerprints:
        return Fingerprints(use, leads, np.array(signals, dtype=np.uint64))

    parts = [seen("pretraining", [1, 2]), seen("training", [2, 3]), seen("training", [3, 4])]
    parts.append(seen("training", [1], leads=("V1",)))
    assert [(part.use, part.leads, part.signals.tolist()) for part in merge(parts)] == [
        ("pretraining", ("I", "II"), [1, 2]),
        ("training", ("I", "II"), [2, 3, 4]),
        ("training", ("V1",), [1]),
    ]


def test_training_fingerprints_use_the_leads_of_the_initial_weights(
    labelled: PackedCohort, tmp_path: Path
) -> None:
    for part, split in zip(training_fingerprints(labelled), ("train", "validation"), strict=True):
        expected = Fingerprints.of(labelled, compared_leads(labelled[1].leads), split=split)
        assert np.array_equal(part.signals, expected.signals)
    file = tmp_path / "model"
    metadata = write_fingerprints(tmp_path, [Fingerprints.of(labelled, ("II", "V5"))])
    write_tensors(file, {"x": torch.zeros(1)}, metadata)
    parts = training_fingerprints(labelled, file)
    assert {part.leads for part in parts} == {("II", "V5")}
    assert [part.use for part in parts] == ["pretraining", "training", "validation"]


def test_model_keeps_fingerprints_of_its_training_records(
    model: Path, labelled: PackedCohort, tmp_path: Path
) -> None:
    parts = read_fingerprints(model)
    assert {part.use: len(part.signals) for part in parts} == {
        "training": len(labelled[0].ids("train")),
        "validation": len(labelled[0].ids("validation")),
    }
    # Patients of own tables stay in the run folder.
    assert not any(len(part.own_patients) for part in parts)
    assert check_initial_weights(model, labelled) is None
    assert compared_records(model, labelled) == len(labelled[0].ids("test"))
    again = save_model(load_model(model), tmp_path / "again")
    weights = [path / "model.safetensors" for path in (model, again)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_fingerprints_in_an_encoder_are_small_and_exact(
    labelled: PackedCohort, pretrained: Any
) -> None:
    file = pretrained([labelled])
    (table,) = json.loads(read_metadata(file)["seen"])
    assert len(table["signals"]) == 58 * 8
    assert table["patients"] == ""  # patients of own tables stay in the run folder
    (part,) = read_fingerprints(file)
    fresh = Fingerprints.of(labelled, compared_leads(labelled[1].leads))
    assert part.use == "pretraining"
    assert np.array_equal(part.signals, fresh.signals)
    assert np.array_equal(part.own_patients, fresh.own_patients)
    assert "records" not in read_json(file.parent / LEAKAGE, list)[0]


def test_patients_of_public_data_are_stored_with_the_encoder(
    labelled: PackedCohort, pretrained: Any, tmp_path: Path
) -> None:
    public = replace(labelled[0], name="ptb-xl", version="1.0.3"), labelled[1]
    moved = tmp_path / "elsewhere" / "moved.safetensors"
    moved.parent.mkdir()
    moved.write_bytes(pretrained([public]).read_bytes())
    (part,) = read_fingerprints(moved)
    assert len(part.patients) == len(set(public[0].patients("train")))
    assert len(part.own_patients) == 0


def test_allowed_leakage_accumulates(labelled: PackedCohort, tmp_path: Path) -> None:
    before = {"cohort": "x", "seen": 1}
    file = tmp_path / "model"
    write_tensors(file, {"weight": torch.zeros(1)}, {ALLOWED: json.dumps([before])})
    parts = training_fingerprints(labelled)
    for allowed, expected in (
        ([], [before]),
        ([before], [before]),
        ([{"seen": 2}], [before, {"seen": 2}]),
    ):
        metadata = write_fingerprints(tmp_path, parts, allowed, weights=file)
        assert json.loads(metadata[ALLOWED]) == expected
    assert ALLOWED not in write_fingerprints(tmp_path, parts)


# ---------------------------------------------------------------------- pretraining


def test_training_split_has_no_leakage_with_its_test_split(labelled: PackedCohort) -> None:
    parts, leakages = check_pretraining_records([labelled])
    assert leakages == []
    assert len(parts.signals) == 58
    assert len(parts.own_patients) == len(set(labelled[0].patients("train")))


def test_renamed_copies_are_found_by_signal(labelled: PackedCohort, folder: PackedCohort) -> None:
    """The folder holds the test records of the labelled cohort, under other names."""
    with pytest.raises(CohortError) as caught:
        check_pretraining_records([labelled, folder])
    cohort, message = labelled[0], str(caught.value)
    assert f"'{min(cohort.ids('test'))}'" in message
    assert f"allow_leakage=['{cohort.name}']" in message
    _, (leakage,) = check_pretraining_records([labelled, folder], allow=[cohort.name])
    assert leakage.cohort == cohort.name
    assert sorted(leakage.ways["signal"]) == leakage.ids == sorted(cohort.ids("test"))


def test_protected_cohorts_and_their_names(labelled: PackedCohort, folder: PackedCohort) -> None:
    assert check_pretraining_records([folder])[1] == []
    with pytest.raises(CohortError, match="signal"):
        check_pretraining_records([folder], protect=[labelled])
    with pytest.raises(CohortError, match=folder[0].name):
        check_pretraining_records([folder], protect=[folder])
    with pytest.raises(CohortError, match="another"):
        check_pretraining_records([labelled], allow=["another"])


def test_records_of_a_test_patient_are_found_by_patient(labelled: PackedCohort) -> None:
    """Patients are compared between tables of the same folder only."""
    cohort, store = labelled
    patient = cohort.patients("test")[0]
    count = (cohort.patients("test") == patient).sum()
    training = part(labelled, set(cohort.ids("train")[:5]), split="train")[0]
    other = replace(training, name="more", table=training.table.assign(patient=patient))
    with pytest.raises(CohortError) as caught:
        check_pretraining_records([(other, store)], protect=[labelled])
    assert f"({count} by patient)" in str(caught.value)
    elsewhere = replace(other, root=Path("/elsewhere"))
    assert check_pretraining_records([(elsewhere, store)], protect=[labelled])[1] == []


def test_copies_of_a_known_data_set_are_found_by_record_id(labelled: PackedCohort) -> None:
    """Two copies of PTB-XL in different folders: another recording, the same id."""
    cohort, store = labelled
    tested = cohort.ids("test")[0]
    public = replace(cohort, name="ptb-xl", version="1.0.3")
    training = part((public, store), {cohort.ids("train")[0]}, split="train")[0]
    table = training.table.copy()
    table.index = [tested]
    moved = replace(training, root=Path("/elsewhere"), table=table)
    fake = replace(store, index=store.index.rename(index={training.ids()[0]: tested, tested: "_"}))
    with pytest.raises(CohortError, match="1 by record"):
        check_pretraining_records([(moved, fake)], protect=[(public, store)])


def test_stores_are_compared_by_common_leads(
    labelled: PackedCohort, folder: PackedCohort, tmp_path: Path
) -> None:
    few = folder[0], pack(folder[0], tmp_path / "few", leads=LEADS, workers=1)
    with pytest.raises(CohortError, match="signal"):
        check_pretraining_records([few], protect=[labelled])
    assert find_leakage([Fingerprints.of(few, LEADS)], labelled) is not None
    # A store without a lead of the fingerprints cannot be compared by signal.
    narrow = part(few, set(few[0].ids()), split="test")
    whole = Fingerprints.of(labelled, sorted(labelled[1].leads))
    assert find_leakage([whole], narrow) is None


# ---------------------------------------------------------------------- initial weights


@pytest.mark.parametrize(
    ("split", "use"),
    [("train", "training"), ("validation", "validation")],
)
def test_initial_weights_that_saw_the_test_split_are_refused(
    model: Path, labelled: PackedCohort, ward: PackedCohort, split: str, use: str
) -> None:
    cohort, store = with_test_split(ward, labelled, split)
    count = len(cohort.ids("test"))
    assert count == len(labelled[0].ids(split))
    with pytest.raises(CohortError) as caught:
        check_initial_weights(model, (cohort, store))
    message = str(caught.value)
    assert f"'{min(cohort.ids('test'))}'" in message
    assert f": {count} {USES[use]}\n" in message
    assert "allow_leakage=True" in message
    with pytest.warns(LeakageWarning, match=cohort.name):
        result = check_initial_weights(model, (cohort, store), allow=True)
    assert result is not None
    assert result["uses"][use] == result["seen"] == result["ways"]["signal"] == count


def test_encoder_that_saw_test_records_is_refused(
    labelled: PackedCohort, folder: PackedCohort, pretrained: Any
) -> None:
    file = pretrained([folder])
    with pytest.raises(CohortError, match=r"pretrained on \d+"):
        check_initial_weights(file, labelled)
    with pytest.warns(LeakageWarning, match=labelled[0].name):
        result = check_initial_weights(file, labelled, allow=True)
    assert result is not None
    assert result["seen"] == result["records"] == len(labelled[0].ids("test"))


def test_unseen_records_are_accepted_without_a_warning(
    labelled: PackedCohort, folder: PackedCohort, pretrained: Any
) -> None:
    file = pretrained([part(folder, set(folder[0].ids()[:20]), split="train")])
    leakage = find_leakage(read_fingerprints(file), labelled)
    assert leakage is not None
    assert 0 < len(leakage.ids) < leakage.records
    untouched = set(labelled[0].ids("test")) - set(leakage.ids)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_initial_weights(file, part(labelled, untouched, split="test")) is None


def test_leakage_allowed_in_pretraining_warns_later(
    labelled: PackedCohort, folder: PackedCohort, pretrained: Any
) -> None:
    file = pretrained([labelled, folder], allow=[labelled[0].name])
    assert json.loads(read_metadata(file)[ALLOWED])[0]["cohort"] == labelled[0].name
    with pytest.warns(LeakageWarning, match=r"\(allowed"):
        assert check_initial_weights(file, labelled) is not None
    other = replace(labelled[0], name="another"), labelled[1]
    with pytest.raises(CohortError, match="another"):
        check_initial_weights(file, other)


def test_checkpoints_without_fingerprints_are_accepted(
    tmp_path: Path, labelled: PackedCohort
) -> None:
    torch.save({"model": {"x": torch.zeros(1)}}, tmp_path / "public.pth")
    write_tensors(tmp_path / "plain.safetensors", {"x": torch.zeros(1)}, {})
    for file in (tmp_path / "public.pth", tmp_path / "plain.safetensors", None):
        assert check_initial_weights(file, labelled) is None
        assert compared_records(file, labelled) == 0


def test_posttrain_refuses_leakage_and_records_permission(
    model: Path, train: Train, labelled: PackedCohort, tmp_path: Path, recipe: Recipe
) -> None:
    """The same cohort with another split: its test records were trained on."""
    names = {"train": "test", "test": "train"}
    table = labelled[0].table.assign(split=labelled[0].table["split"].replace(names))
    swapped = replace(labelled[0], table=table)
    quick: dict[str, Any] = {"stage1": None, "stage2": {"epochs": 1}, "weights": model}
    with pytest.raises(CohortError, match=USES["training"]):
        train(tmp_path / "refused", cohort=swapped, **quick)
    assert not (tmp_path / "refused").exists()
    with pytest.warns(LeakageWarning, match=swapped.name):
        run = train(tmp_path / "allowed", cohort=swapped, allow_leakage=True, **quick)
    tested = len(swapped.ids("test"))
    assert run.run.request["leakage"]["uses"]["training"] == tested
    assert json.loads(run.fingerprints[ALLOWED])[0]["seen"] == tested
    again = save_model(model_of(run, swapped, recipe), tmp_path / "again")
    assert {part.use for part in read_fingerprints(again)} == {"training", "validation"}


# ---------------------------------------------------------------------- evaluation


def test_check_scored_for_any_split_of_any_cohort(
    labelled: PackedCohort, folder: PackedCohort, pretrained: Any
) -> None:
    cohort = labelled[0]
    file = pretrained([part(labelled, set(cohort.ids("train")), split="train")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_evaluation_records(file, labelled) is None
    copies = part(folder, set(folder[0].ids()), split="train")
    for member, by_patient in ((labelled, 58), (copies, 0)):
        with pytest.warns(LeakageWarning, match="58 .* train "):
            result = check_evaluation_records(file, member, "train")
        assert result is not None
        assert (result["seen"], result["ways"]["signal"]) == (58, 58)
        assert result["ways"]["patient"] == by_patient
