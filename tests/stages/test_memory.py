"""What weights remember: pretraining, training with labels, validation; and who is told of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from einthoven.cohorts import Cohort, open_cohort
from einthoven.errors import CohortError, ModelError
from einthoven.experiment.run import model_of, pretraining_of, remembered
from einthoven.files import read_metadata, write_tensors
from einthoven.models import load_model, save_model
from einthoven.signals.pack import pack
from einthoven.signals.store import Store
from einthoven.stages.memory import Memory, Part, memory_of
from einthoven.stages.overlap import (
    OverlapWarning,
    check_encoder,
    memory_metadata,
    overlap_metadata,
)
from einthoven.stages.posttrain import Posttrained
from einthoven.stages.pretraining_data import Member
from einthoven.stages.recipe import Recipe
from einthoven.stages.seen import SEEN, Seen

BACKBONE = "mtecg_tiny_100hz"
Train = Callable[..., Posttrained]


def seen(signals: list[int], *, leads: tuple[str, ...] = ("I", "II"), **people: list[int]) -> Seen:
    return Seen(
        leads, *(np.array(each, dtype=np.uint64) for each in (signals, people.get("of", [])))
    )


def listed(memory: Memory) -> list[tuple[tuple[str, ...], list[int], list[int]]]:
    return [(p.uses, p.seen.signals.tolist(), p.seen.patients.tolist()) for p in memory.parts]


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
    ids, known = cohort.ids(), Seen.of([other], sorted(other[1].leads), split)
    whole = replace(cohort, table=cohort.table.assign(split="test"))
    alike = Memory((Part(("pretraining",), known),)).meets((whole, store))
    assert alike is not None
    names = np.where(np.isin(ids, alike.found["signal"]), "test", "train")
    return replace(cohort, table=cohort.table.assign(split=names)), store


@pytest.fixture(scope="module")
def bundle(
    finished: Posttrained,
    synthetic: Cohort,
    recipe: Recipe,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The bundle of a post-training, away from its run folder."""
    folder = tmp_path_factory.mktemp("moved") / "bundle"
    return save_model(model_of(finished, synthetic, recipe), folder)


# ---------------------------------------------------------------------- the value


def test_a_fingerprint_is_kept_once_with_all_its_uses() -> None:
    first = Memory((Part(("pretraining",), seen([1, 2, 3], of=[7])),))
    memory = first.joined(
        [Part(("training",), seen([2, 3, 4], of=[7, 8])), Part(("validation",), seen([4, 9]))]
    )
    assert sorted(listed(memory)) == [
        (("pretraining",), [1], []),
        (("pretraining", "training"), [2, 3], [7]),
        (("training",), [], [8]),
        (("training", "validation"), [4], []),
        (("validation",), [9], []),
    ]
    again = memory.joined([Part(("training",), seen([2, 3]))])
    assert sorted(listed(again)) == sorted(listed(memory))


def test_other_leads_are_other_fingerprints() -> None:
    memory = Memory(()).joined(
        [Part(("pretraining",), seen([1])), Part(("training",), seen([1], leads=("V1",)))]
    )
    assert listed(memory) == [(("pretraining",), [1], []), (("training",), [1], [])]


def test_it_is_the_union_of_what_every_use_has_seen(labelled: Member) -> None:
    memory = memory_of(labelled)
    for use, split in (("training", "train"), ("validation", "validation")):
        expected = Seen.of([labelled], sorted(labelled[1].leads), split)
        found = [part.seen.signals for part in memory.parts if use in part.uses]
        assert np.array_equal(np.unique(np.concatenate(found)), expected.signals)


def test_training_is_compared_by_the_leads_that_pretraining_was(
    labelled: Member, tmp_path: Path
) -> None:
    """Then what both have seen is there once."""
    file = tmp_path / "model"
    before = Seen.of([labelled], ("II", "V5"))
    write_tensors(file, {"x": torch.zeros(1)}, overlap_metadata(before, []))
    memory = memory_of(labelled, file)
    assert {part.seen.leads for part in memory.parts} == {("II", "V5")}
    found = {part.uses for part in memory.parts if len(part.seen.signals)}
    assert found == {("pretraining", "training"), ("validation",)}


# ---------------------------------------------------------------------- bundles


def test_a_bundle_remembers_what_it_was_trained_on(bundle: Path, labelled: Member) -> None:
    memory = Memory.by(bundle / "model.safetensors")
    assert memory is not None
    assert {part.uses: len(part.seen.signals) for part in memory.parts} == {
        ("training",): len(labelled[0].ids("train")),
        ("validation",): len(labelled[0].ids("validation")),
    }
    # People of own tables stay in the run folder.
    assert not any(len(part.seen.own_patients) for part in memory.parts)
    assert check_encoder(bundle / "model.safetensors", labelled) is None


def test_its_memory_outlives_a_copy(bundle: Path, tmp_path: Path) -> None:
    again = save_model(load_model(bundle), tmp_path / "again")
    weights = [folder / "model.safetensors" for folder in (bundle, again)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert load_model(again).memory.keys() == {"seen"}


@pytest.mark.parametrize(
    ("split", "use"),
    [("train", "in training with labels"), ("validation", "in validation, which chose the epoch")],
)
def test_post_training_from_it_is_refused_where_its_records_are_the_test(
    bundle: Path, labelled: Member, elsewhere: Member, train: Train, tmp_path: Path, split: str,
    use: str,
) -> None:  # fmt: skip
    cohort, store = with_test_split(elsewhere, labelled, split)
    found = len(cohort.ids("test"))
    assert found == len(labelled[0].ids(split))
    with pytest.raises(CohortError) as caught:
        check_encoder(bundle / "model.safetensors", (cohort, store))
    said = str(caught.value)
    assert f"has seen {found} of the {found} test records of table ({found} by signal)" in said
    assert f"such as '{sorted(cohort.ids('test'))[0]}'" in said
    assert f": {found} {use}\n" in said
    assert "--allow-overlap" in said
    with pytest.warns(OverlapWarning, match="too good"):
        kept = check_encoder(bundle / "model.safetensors", (cohort, store), allow=True)
    assert kept is not None
    assert kept[use] == kept["seen"] == found


def test_posttrain_refuses_warns_and_hands_on_what_was_allowed(
    bundle: Path, train: Train, synthetic: Cohort, tmp_path: Path, recipe: Recipe
) -> None:
    """The same cohort with another split: its test records were trained on."""
    names = {"train": "test", "test": "train"}
    table = synthetic.table.assign(split=synthetic.table["split"].replace(names))
    swapped = replace(synthetic, table=table)
    quick: dict[str, Any] = {"stage1": None, "stage2": {"epochs": 1}, "weights": bundle}
    with pytest.raises(CohortError, match="in training with labels"):
        train(tmp_path / "refused", cohort=swapped, **quick)
    assert not (tmp_path / "refused").exists()
    with pytest.warns(OverlapWarning, match="too good"):
        done = train(tmp_path / "allowed", cohort=swapped, allow_overlap=True, **quick)
    tested = len(swapped.ids("test"))
    assert done.run.request["overlap"]["in training with labels"] == tested
    assert json.loads(done.memory["allowed_overlap"])[0]["seen"] == tested
    again = save_model(model_of(done, swapped, recipe), tmp_path / "b")
    uses = {part.uses for part in Memory.by(again / "model.safetensors").parts}  # type: ignore[union-attr]
    assert uses == {("training",), ("validation",)}


def test_a_run_s_own_files_speak_by_its_folder(
    finished: Posttrained, labelled: Member, tmp_path: Path
) -> None:
    """A stage's checkpoint, and the bundle of a run that an earlier version finished."""
    run = shutil.copytree(finished.run.path, tmp_path / "run")
    (run / "model").mkdir()
    state = finished.classifier.state_dict()
    write_tensors(run / "model" / "model.safetensors", state, {"format": "einthoven-bundle-1"})
    people = len(set(labelled[0].patients("train")))
    for file in (run / "stage2" / "best.safetensors", run / "model" / "model.safetensors"):
        memory = Memory.by(file)
        assert memory is not None, file
        assert [len(p.seen.own_patients) for p in memory.parts if "training" in p.uses] == [people]
    (run / SEEN).unlink()
    assert Memory.by(run / "model" / "model.safetensors") is None


# ---------------------------------------------------------------------- earlier bundles


def test_an_earlier_bundle_is_given_its_memory(
    bundle: Path, synthetic: Cohort, synthetic_store: Store, encoder: Path, tmp_path: Path
) -> None:
    whole = load_model(bundle)
    bare = replace(whole, memory={})
    old = save_model(bare, tmp_path / "old")
    assert Memory.by(old / "model.safetensors") is None
    made = remembered(load_model(old), synthetic, synthetic_store, weights=encoder)
    assert made.memory == whole.memory
    new = save_model(made, tmp_path / "new")
    assert (new / "model.safetensors").read_bytes() == ((bundle / "model.safetensors").read_bytes())


def test_it_is_given_no_other_one_s(
    bundle: Path, synthetic: Cohort, synthetic_store: Store, encoder: Path
) -> None:
    whole = load_model(bundle)
    other = synthetic.select(synthetic.ids() != synthetic.ids("train")[0])
    with pytest.raises(ModelError, match="made from other cohort"):
        remembered(whole, other, synthetic_store, weights=encoder)
    with pytest.raises(ModelError, match="made from other initial weights"):
        remembered(whole, synthetic, synthetic_store)


def test_a_bundle_says_how_its_initial_weights_were_trained(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "model"
    write_tensors(file, {}, {"pretraining_data": "ptb-xl 1.0.3, 9 records", "recipe": "cpc"})
    assert pretraining_of(file) == {"pretraining": "ptb-xl 1.0.3, 9 records (recipe cpc)"}
    assert "with labels on cohort" in pretraining_of(bundle / "model.safetensors")["pretraining"]
    write_tensors(file, {}, {})
    assert pretraining_of(file) == {}


def test_what_was_allowed_before_is_said_again(labelled: Member, tmp_path: Path) -> None:
    before = {"cohort": "x", "seen": 1}
    file = tmp_path / "model"
    write_tensors(file, {}, {"allowed_overlap": json.dumps([before])})
    memory = memory_of(labelled)
    for overlap, expected in (
        (None, [before]),
        (before, [before]),
        ({"seen": 2}, [before, {"seen": 2}]),
    ):
        said = memory_metadata(memory, file, overlap)
        assert json.loads(said["allowed_overlap"]) == expected
    assert "allowed_overlap" not in memory_metadata(memory)
    assert read_metadata(file).keys() == {"allowed_overlap"}
