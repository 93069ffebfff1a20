"""Pretraining by axes: which runs it makes, and a whole table of them in seconds."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from einthoven.cohorts import open_cohort
from einthoven.errors import ReproduceError
from einthoven.files import METRICS_FILE, RUN_FILE, read_json
from einthoven.reproduce.experiment import Experiment, load_experiment
from einthoven.reproduce.grid import OBJECTIVES, only, runs_of, shard, targets_of
from einthoven.reproduce.objectives import objectives
from einthoven.reproduce.page import write
from einthoven.reproduce.results import Results
from einthoven.reproduce.run import Reproduction, State
from einthoven.signals.store import Store
from einthoven.stages.pretrain import check_pretraining, with_epochs
from einthoven.stages.recipe import load_pretraining
from einthoven.training.run import RunFolder

STUDY = """
name = "study"
tasks = ["all-71"]
resamples = 20
min_records = 8

[[more_seeds]]
variants = ["linear-probe"]
seeds = [0, 1]

[[pretraining]]
name = "right"
recipe = "s4-ptbxl-100hz-cpu"
backbone = "s4_tiny"
set = ["steps=2", "batch_size=16", "precision=fp32"]
variants = ["linear-probe"]
[pretraining.axes]
objective = ["jepa", "data2vec"]

[[pretraining]]
name = "wrong"
recipe = "s4-ptbxl-100hz-cpu"
backbone = "s4_tiny"
set = ["steps=2", "batch_size=16", "precision=fp32", "options.preset='as-published'"]
options = { scale = 1.0 }
[pretraining.axes]
objective = ["jepa"]

[[pretraining]]
name = "random"
backbone = "s4_tiny"
options = { causal = false }

[[pretraining]]
name = "right"
recipe = "s4-ptbxl-100hz-cpu"
backbone = "s4_tiny"
set = ["steps=2", "batch_size=16", "precision=fp32"]
variants = ["linear-probe"]
[pretraining.axes]
objective = ["jepa"]
fraction = [0.5]

[variants.linear-probe]
recipe = "s4-100hz-cpu/linear-probe"
set = [
    "stage1.solver=adamw", "stage1.epochs=2", "precision=fp32", "data.evaluation_crops=1",
    "refit=never",
]

[variants.fine-tuning]
recipe = "s4-100hz-cpu/fine-tuning"
set = [
    "stage2.epochs=1", "stage2.batch_size=16", "precision=fp32", "data.evaluation_crops=1",
    "refit=never",
]
"""
JEPA, DATA2VEC, WRONG, RANDOM, HALF = NAMES = [
    "right-jepa", "right-data2vec", "wrong-jepa", "random", "right-jepa-fraction=0.5"
]  # fmt: skip


def written(folder: Path, text: str) -> Experiment:
    file = folder / "study.toml"
    file.write_text(text)
    return load_experiment(file)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return written(tmp_path_factory.mktemp("study"), STUDY)


@pytest.fixture(scope="module")
def done(
    study: Experiment,
    synthetic_path: Path,
    synthetic_store: Store,
    tmp_path_factory: pytest.TempPathFactory,
) -> Reproduction:
    """Every run of the study, by two processes' shards one after the other."""
    out, store = tmp_path_factory.mktemp("out"), Path(synthetic_store.root)
    reproduction = Reproduction(study, "", synthetic_path, store, out, device="cpu", threads=1)
    for part in ("1/2", "2/2"):
        states = reproduction.run(shard(runs_of(OBJECTIVES, study, ""), part))
        assert set(states.values()) == {State.DONE}
    return reproduction


def test_axes_expand_to_runs(study: Experiment) -> None:
    """All seeds of one pretraining before the next, the first variant before the second."""
    runs = runs_of(OBJECTIVES, study, "")
    probes = [(run.pretraining, run.seed) for run in runs if run.variant == "linear-probe"]
    assert probes == [(name, seed) for name in NAMES for seed in (0, 1)]
    assert [run.pretraining for run in runs[len(probes) :]] == [WRONG, RANDOM]
    assert {run.backbone for run in runs} == {"s4_tiny"}
    assert runs[0].key == "s4_tiny--right-jepa--linear-probe--all-71--100pct--seed0"
    assert targets_of(study) == (OBJECTIVES,)
    assert study.has_backbones
    selected = only(runs, ["pretraining=random", "variant=fine-tuning"])
    assert [run.key for run in selected] == ["s4_tiny--random--fine-tuning--all-71--100pct--seed0"]


def test_axes_are_keys_of_the_recipe_and_of_the_encoder(tmp_path: Path) -> None:
    experiment = written(
        tmp_path,
        STUDY.replace(
            'objective = ["jepa"]',
            'backbone = ["s4_tiny", "s4_small"]\n"backbone.causal" = [false]\nseed = [3]\n'
            "options.blocks = [2, 3]\nsteps = [4]",
        ),
    )
    sources = [s for s in experiment.pretrainings if s.name.startswith("wrong")]
    name = "wrong-causal=false-seed=3-blocks={}-steps=4"
    assert [(s.backbone, s.name) for s in sources] == [
        (backbone, name.format(blocks)) for backbone in ("s4_tiny", "s4_small") for blocks in (2, 3)
    ]
    recipe, options = experiment.pretraining_of("s4_small", name.format(3))
    assert (recipe.seed, recipe.steps, recipe.options["blocks"]) == (3, 4, 3)
    assert recipe.options["preset"] == "as-published"
    assert options == {"scale": 1.0, "causal": False}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "wrong"\n', "", "pretraining"),
        ('name = "wrong"', 'name = "right"\nbackbone = ""', "TOML"),
        ('objective = ["jepa"]', 'objective = ["jepa", "jepa"]', "wrong-jepa"),
        ('objective = ["jepa"]', 'objective = ["je/pa"]', "je/pa"),
        ('variants = ["linear-probe"]\n[pre', 'variants = ["probe"]\n[pre', "variant probe"),
    ],
)
def test_entries_that_contradict_each_other(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in STUDY
    with pytest.raises(ReproduceError, match=message):
        written(tmp_path, STUDY.replace(old, new))


def test_an_objective_that_the_encoder_does_not_suit(
    tmp_path: Path, synthetic_path: Path, synthetic_store: Store
) -> None:
    """Before anything is written."""
    experiment = written(tmp_path, STUDY.replace('["jepa"]', '["mae"]'))
    reproduction = Reproduction(
        experiment, "", synthetic_path, Path(synthetic_store.root), tmp_path / "out"
    )
    with pytest.raises(ReproduceError, match="s4_tiny"):
        reproduction.run(runs_of(OBJECTIVES, experiment, ""))
    assert not (tmp_path / "out").exists()


def test_shards_keep_pretrainings_together(study: Experiment) -> None:
    runs = runs_of(OBJECTIVES, study, "")
    parts = [shard(runs, part) for part in ("1/2", "2/2")]
    assert sorted(run.key for part in parts for run in part) == sorted(run.key for run in runs)
    first, second = ({run.pretraining for run in part} for part in parts)
    assert first == {JEPA, WRONG, HALF}
    assert not first & second


def test_fractions_are_nested_and_of_whole_patients(synthetic_path: Path) -> None:
    """Whatever the labels are."""
    cohort = open_cohort(synthetic_path, empty_rows="keep")
    whole = set(cohort.patients("train").tolist())
    sizes, inner = [], set[str]()
    for share in (0.25, 0.5, 1.0):
        part = cohort.fraction(share, seed=0, labelled=False)
        patients, owner = set(part.patients("train").tolist()), cohort.patients("train")
        assert inner <= patients <= whole
        assert set(part.ids("train")) == {
            record
            for record, patient in zip(cohort.ids("train"), owner, strict=True)
            if patient in patients
        }
        assert np.array_equal(part.ids("validation"), cohort.ids("validation"))
        inner, sizes = patients, [*sizes, len(part.ids("train"))]
    assert sizes == pytest.approx(np.array([0.25, 0.5, 1.0]) * sizes[-1], abs=4)
    tasks = [open_cohort(synthetic_path, task, empty_rows="keep") for task in ("all-71", "form-19")]
    first, second = (task.fraction(0.25, seed=0, labelled=False).ids("train") for task in tasks)
    assert np.array_equal(first, second)
    assert not np.array_equal(*(task.fraction(0.25, seed=0).ids("train") for task in tasks))


@pytest.mark.parametrize(
    ("records", "epochs"), [(17_418, 4), (8_709, 8), (4_355, 16), (100, 544), (10**6, 1)]
)
def test_steps_are_equal_over_numbers_of_records(records: int, epochs: int) -> None:
    recipe = with_epochs(load_pretraining("jepa-100hz-cpu", ["steps=544"]), records=records)
    assert recipe.epochs == epochs
    assert recipe.warmup_epochs / epochs == pytest.approx(1 / 15)
    assert with_epochs(load_pretraining("jepa-100hz-cpu"), records=records).epochs == 15


def test_runs_start_from_their_own_pretraining(done: Reproduction) -> None:
    weights: dict[str, set[str]] = {}
    records: dict[str, int] = {}
    for run in runs_of(OBJECTIVES, done.experiment, ""):
        request = RunFolder(done.folder(run)).request
        weights.setdefault(run.pretraining, set()).add(request["weights"]["sha256"])
        if not request["weights"]["is_random"]:
            folder = done.pretraining(run.backbone, run.pretraining)
            records[run.pretraining] = RunFolder(folder).request["records"]
    counts = {name: len(files) for name, files in weights.items()}
    assert counts == dict.fromkeys(NAMES, 1) | {RANDOM: 2}
    assert len(set.union(*weights.values())) == len(NAMES) + 1
    assert records[HALF] < records[JEPA] == records[DATA2VEC]


def test_an_encoder_keeps_the_options_that_it_was_pretrained_with(done: Reproduction) -> None:
    options = {
        run.pretraining: read_json(done.folder(run) / "model" / "config.json")["backbone_options"]
        for run in runs_of(OBJECTIVES, done.experiment, "")
    }
    assert {name: values["scale"] for name, values in options.items()} == dict.fromkeys(
        NAMES, 0.25
    ) | {WRONG: 1.0}
    assert not any(values["causal"] for values in options.values())


def test_a_finished_table_is_not_run_again(done: Reproduction) -> None:
    runs = runs_of(OBJECTIVES, done.experiment, "")
    before = {file: file.stat().st_mtime_ns for file in done.out.rglob(METRICS_FILE)}
    lines: list[str] = []
    assert set(replace(done, log=lines.append).run(runs).values()) == {State.DONE}
    assert not lines
    assert {file: file.stat().st_mtime_ns for file in before} == before
    shared = {folder.name for folder in (done.out / "shared").iterdir()}
    assert {name for name in shared if name.startswith("pretraining--")} == {
        f"pretraining--s4_tiny--{name}" for name in NAMES if name != "random"
    }


def test_a_pretraining_that_was_begun_is_continued(done: Reproduction, tmp_path: Path) -> None:
    """Its folder has a request and no model; the encoder is the same, bit for bit."""
    run = runs_of(OBJECTIVES, done.experiment, "")[0]
    other, folder = replace(done, out=tmp_path), ("s4_tiny", run.pretraining)
    other.pretraining(*folder).mkdir(parents=True)
    shutil.copy(done.pretraining(*folder) / RUN_FILE, other.pretraining(*folder))
    assert other.run([run]) == {run: State.DONE}
    weights = [RunFolder(each.folder(run)).request["weights"] for each in (other, done)]
    assert weights[0]["sha256"] == weights[1]["sha256"]


def test_differences_are_along_one_axis(done: Reproduction) -> None:
    section = objectives(Results(done))
    assert section.has_results
    numbers = section.numbers
    pairs = {
        (e["axis"], e["variant"], e["pretraining"], e["reference"]["pretraining"])
        for e in numbers["differences"]
    }
    assert pairs == {
        ("fraction", "linear-probe", HALF, JEPA),
        ("objective", "linear-probe", DATA2VEC, JEPA),
        ("name", "linear-probe", WRONG, JEPA),
    }
    values = {(e["pretraining"], e["variant"]): e for e in numbers["groups"]}
    for entry in numbers["differences"]:
        a = values[entry["pretraining"], entry["variant"]]["auroc"]
        b = values[entry["reference"]["pretraining"], entry["variant"]]["auroc"]
        assert entry["auroc"]["mean"] == pytest.approx(a["mean"] - b["mean"])
        assert entry["auroc"]["seeds"] == a["seeds"] == [0, 1]
    random = values["random", "fine-tuning"]
    assert random["auroc_minus_random"] is None
    wrong = values["wrong-jepa", "fine-tuning"]
    assert wrong["auroc_minus_random"]["mean"] == pytest.approx(
        wrong["auroc"]["mean"] - random["auroc"]["mean"]
    )
    assert list(section.drawings) == ["objectives-fraction--study.svg"]


def test_the_page_names_what_has_not_run(done: Reproduction, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    write(done, OBJECTIVES, page)
    whole = page.read_text()
    assert whole.count("experiment=study begin") == 1
    assert "not run yet" not in whole
    assert (tmp_path / "figures" / "objectives-fraction--study.svg").is_file()
    numbers = read_json(tmp_path / "figures" / "objectives--study.json")
    assert [entry["pretraining"] for entry in numbers["pretrainings"]] == NAMES
    absent = replace(done, out=tmp_path / "absent")
    assert not objectives(Results(absent)).has_results
    assert objectives(Results(absent)).text.count("not run yet") > 10


@pytest.mark.parametrize("name", ["objectives-100hz-cpu", "objectives-240hz-gpu"])
def test_every_pretraining_of_a_comparison_suits_its_encoder(name: str) -> None:
    experiment = load_experiment(name)
    for source in experiment.pretrainings:
        if source.recipe:
            recipe, options = experiment.pretraining_of(source.backbone, source.name)
            check_pretraining(recipe, source.backbone, options)
