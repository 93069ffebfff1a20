from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from einthoven.backbones.registry import backbone_names, entry
from einthoven.cohorts.ptbxl import TASKS
from einthoven.errors import RecipeError, ReproduceError
from einthoven.reproduce import published
from einthoven.reproduce.experiment import (
    GENERAL,
    NO_DEPTH,
    NO_PROBE,
    PLAIN,
    POST,
    SCRATCH,
    SCRATCH_POST,
    BackboneChange,
    Experiment,
    PretrainingSource,
    Row,
    Seeds,
    Variant,
    experiment_for,
    experiment_names,
    load_experiment,
)
from einthoven.reproduce.run import Reproduction
from einthoven.stages.pretrain import check_pretraining
from einthoven.stages.recipe import load_recipe

SMALL = """
name = "small"
[pretraining]
recipe = "demo"
[variants.post-training]
recipe = "st-mem/post-training"
[variants.fine-tuning]
recipe = "st-mem/fine-tuning"
"""


ROWS_ALONE = """
name = "rows"
table_1_only = true
tasks = ["all-71", "form-19"]
[variants.scratch]
recipe = "st-mem/scratch"
[variants.start]
recipe = "ptbxl-100hz-cpu/scratch"
[[rows]]
name = "one"
backbone = "s4_tiny"
variant = "scratch"
[[rows]]
name = "two"
backbone = "s4_small"
variant = "start"
published = "MULTIRESNET"
[[rows]]
name = "both"
members = ["two", "one"]
"""
WITH_ABLATION = [name for name in experiment_names() if NO_DEPTH in load_experiment(name).variants]


def written(folder: Path, text: str) -> Experiment:
    file = folder / "small.toml"
    file.write_text(text)
    return load_experiment(file)


@pytest.mark.parametrize("name", experiment_names())
def test_every_experiment_reads_and_so_do_its_recipes(name: str) -> None:
    experiment = load_experiment(name)
    assert experiment.name == name
    for variant in experiment.variants:
        assert experiment.recipe(variant, "st_mem_tiny", seed=3, fraction=0.3).seed == 3
    if experiment.pretraining and not experiment.has_backbones:
        assert experiment.pretraining_of("st_mem_tiny")[0].seed == 0


def test_variants_that_change_nothing_are_their_presets() -> None:
    """So that a run of `einthoven posttrain` by the preset is a run of the experiment."""
    experiment = load_experiment("ptbxl-100hz-cpu")
    for variant in (POST, PLAIN, SCRATCH, "linear-probe"):
        steps = ["stage1.solver=adamw"] if variant in (POST, "linear-probe") else []
        assert experiment.recipe(variant, "x") == load_recipe(f"ptbxl-100hz-cpu/{variant}", steps)


@pytest.mark.parametrize("name", WITH_ABLATION)
def test_the_ablation_takes_away_one_piece_each(name: str) -> None:
    experiment = load_experiment(name)
    backbone = next(iter(experiment.made_for), "st_mem_tiny")
    whole = experiment.recipe(POST, backbone)
    assert whole.stage2 is not None
    assert whole.stage2.drop_path > 0

    def changed(variant: str) -> set[str]:
        other = experiment.recipe(variant, backbone)
        ours, theirs = whole.model_dump(), other.model_dump()
        return {key for key in ours if ours[key] != theirs[key]} - {"name", "description"}

    assert changed(NO_PROBE) == {"stage1"}
    assert changed(NO_DEPTH) == {"stage2"}
    without = experiment.recipe(NO_DEPTH, backbone).stage2
    # A key of stage 2 that is set decides `keep = auto`, with the same outcome from 500 records on.
    assert without == whole.stage2.model_copy(update={"drop_path": 0.0, "keep": "better"})
    assert changed(SCRATCH_POST) == set()  # its random weights come as a file
    assert experiment.variants[SCRATCH_POST].start == "random"
    assert experiment.recipe(SCRATCH, backbone).initialise == "random"


def test_equal_steps_at_every_share() -> None:
    experiment = load_experiment("ptbxl-100hz-cpu")
    whole = experiment.recipe(PLAIN, "x").stage2
    tenth = experiment.recipe(f"{PLAIN}-equal-steps", "x", fraction=0.1).stage2
    assert whole is not None
    assert tenth is not None
    assert (tenth.epochs, tenth.warmup_epochs) == (10 * whole.epochs, 10 * whole.warmup_epochs)
    assert experiment.recipe(f"{PLAIN}-equal-steps", "x").stage2 == whole


def test_the_thresholds_of_an_ejection_fraction(tmp_path: Path) -> None:
    experiment = load_experiment("ejection-fraction")
    task = experiment.targets[experiment.main_task]
    assert task.targets == ("lvef <= 30", "lvef <= 40", "lvef <= 50")
    rows = [f"ecg{n}.hea,p{n},{20 + n}\n" for n in range(40)]
    table = tmp_path / "ecgs.csv"
    table.write_text("path,patient,lvef\n" + "".join(rows))
    reproduction = Reproduction(experiment, "ecg_fm", table, tmp_path / "store", tmp_path / "out")
    cohort = reproduction.open_cohort(experiment.main_task)
    assert cohort.task == "lvef-thresholds"
    assert cohort.matrix.sum(axis=0).tolist() == [11, 21, 31]
    low = experiment.recipe("low-rate", "ecg_fm")
    assert low.stage2 is not None
    assert (low.stage2.base_lr, low.stage2.freeze_extractor, low.pos_weight) == (
        1e-6, True, "balanced"
    )  # fmt: skip


def test_a_general_recipe_is_that_of_the_backbone() -> None:
    experiment = load_experiment("foundation-models")
    rates = {
        backbone: experiment.recipe(PLAIN, backbone).stage2
        for backbone in ("ecg_fm", "ecgfounder_12lead", "s4_small")
    }
    assert {name: stage.base_lr for name, stage in rates.items() if stage} == {
        "ecg_fm": 5e-5, "ecgfounder_12lead": 1e-4, "s4_small": 8e-3
    }  # fmt: skip
    assert experiment.recipe("query-attention", "ecg_fm").head == "query-attention"


def test_a_schedule_brings_no_stage_into_a_recipe(tmp_path: Path) -> None:
    experiment = written(
        tmp_path, SMALL.replace("[pre", 'schedule = ["stage1.epochs=7", "stage2.epochs=8"]\n[pre')
    )
    plain, ours = experiment.recipe(PLAIN, "x"), experiment.recipe(POST, "x")
    assert plain.stage1 is None
    assert ours.stage1 is not None
    assert plain.stage2 is not None
    assert (ours.stage1.epochs, plain.stage2.epochs) == (7, 8)


def test_changes_apply_in_order_and_for_one_backbone_only(tmp_path: Path) -> None:
    experiment = written(
        tmp_path,
        SMALL.replace("[pre", 'schedule = ["stage2.epochs=8", "stage2.base_lr=1e-4"]\n[pre')
        + 'set = ["stage2.base_lr=2e-4"]\n'
        + '[backbones.one]\nset = ["stage2.epochs=9", "stage1.epochs=5"]\n'
        + '[backbones.two.pretraining]\nrecipe = "mae"\n',
    )

    def stage2(backbone: str) -> tuple[int, float]:
        stage = experiment.recipe(PLAIN, backbone).stage2
        assert stage is not None
        return stage.epochs, stage.base_lr

    assert stage2("other") == stage2("two") == (8, 2e-4)
    assert stage2("one") == (9, 2e-4)
    assert experiment.pretraining_of("two")[0].epochs == 800
    assert experiment.pretraining_of("one")[0].name == "demo"


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("s4_tiny", "s4-100hz-cpu"),
        ("s4_small", "s4-100hz-cpu"),
        ("s4", "s4-240hz-gpu"),
        ("st_mem_base", "published"),
        ("ecgfounder_12lead", "foundation-models"),
        ("hubert_ecg_base", "foundation-models"),
        ("ecg_fm", "foundation-models"),
        ("mtecg_tiny_100hz", GENERAL),
        ("xresnet1d101", GENERAL),
        ("", GENERAL),
    ],
)
def test_the_experiment_that_is_made_for_a_backbone(backbone: str, expected: str) -> None:
    assert experiment_for(backbone) == expected


def test_a_backbone_is_named_once_and_its_experiment_can_pretrain_it() -> None:
    made = {name: load_experiment(name).made_for for name in experiment_names()}
    backbones = [backbone for names in made.values() for backbone in names]
    assert len(set(backbones)) == len(backbones)
    assert set(backbones) <= set(backbone_names())
    for backbone in (*backbones, "mtecg_tiny", "mtecg_tiny_100hz"):
        experiment = load_experiment(experiment_for(backbone))
        if not experiment.pretraining:
            with pytest.raises(ReproduceError, match="--weights"):
                experiment.pretraining_of(backbone)
            continue
        recipe, options = experiment.pretraining_of(backbone)
        check_pretraining(recipe, backbone, options)


def test_the_last_entry_of_seeds_that_matches_decides(tiny: Experiment) -> None:
    assert tiny.seeds_of(POST, "all-71", 1.0) == (0, 1)
    assert tiny.seeds_of(POST, "all-71", 0.5) == (0,)
    assert tiny.seeds_of(POST, "superclass-5", 1.0) == (0,)
    assert tiny.seeds_of(SCRATCH, "all-71", 1.0) == (0,)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("epochs = 3", "epochs"),
        ('main_task = "form-19"', "form-19"),
        ("fractions = [0.0]", "fractions"),
        ('[[rows]]\nname = "x"\nvariant = "y"', "variant y"),
        ('table_variants = ["fine-tuning"]', "table_variants.*post-training"),
        ('table_variants = ["fine-tuning", "post-training", "x"]', "variant x"),
        ('table_variants_on = ["form-19"]', "form-19"),
        ("[variants", "TOML"),
    ],
)
def test_wrong_lines_are_refused(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ReproduceError, match=message):
        written(tmp_path, SMALL.replace("[pre", f"{line}\n[pre"))


@pytest.mark.parametrize(
    ("text", "old", "new", "message"),
    [
        (SMALL, "[variants.fine-tuning]", "[variants.plain]", "variant fine-tuning"),
        (SMALL, '"small"', '"a b"', "toml: name"),
        (ROWS_ALONE, "table_1_only = true\n", "", "variant fine-tuning"),
        (SMALL, "[pre", 'fraction_rows = ["peer"]\n[pre', "fraction_rows.*row peer"),
        (ROWS_ALONE, ROWS_ALONE[ROWS_ALONE.index("[[rows]]") :], "", "table_1_only.*backbones"),
        (ROWS_ALONE, 'backbone = "s4_tiny"\n', "", "table_1_only.*backbones"),
        (ROWS_ALONE, '["two", "one"]', '["two", "three"]', "row three"),
        (ROWS_ALONE, '["two", "one"]', '["both"]', "row both"),
        (ROWS_ALONE, 'members = ["two", "one"]', "", "both.*variant.*members"),
        (ROWS_ALONE, "members", 'variant = "start"\nmembers', "both.*variant.*members"),
        (ROWS_ALONE, 'name = "two"', 'name = "one"', "one, one"),
        (ROWS_ALONE, "MULTIRESNET", "MULTIRESNETT", "MULTIRESNETT"),
        (ROWS_ALONE, "table_1_only", 'main_task = "rhythm-12"\ntable_1_only', "rhythm-12"),
    ],
)
def test_contradictions_are_refused(
    tmp_path: Path, text: str, old: str, new: str, message: str
) -> None:
    assert old in text
    with pytest.raises(ReproduceError, match=message):
        written(tmp_path, text.replace(old, new))


def test_files_that_are_not_text_and_experiments_of_no_rows_are_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b'description = "\xe9"')
    with pytest.raises(ReproduceError, match=r"latin\.toml"):
        load_experiment(tmp_path / "latin.toml")
    text = "rows = []\n" + ROWS_ALONE.split("[[rows]]")[0]
    with pytest.raises(ReproduceError, match=r"table_1_only.*backbones"):
        written(tmp_path, text)


def test_a_shorter_schedule_is_noticed(tmp_path: Path) -> None:
    experiment = written(
        tmp_path, ROWS_ALONE + '[backbones]\ns4_tiny = { set = ["stage2.epochs=20"] }\n'
    )
    assert re.findall(r"\d+", experiment.changes("scratch", "s4_tiny")[0]) == ["20", "50"]
    assert experiment.changes("scratch", "s4")[0] == ""
    longer = written(tmp_path, ROWS_ALONE + '[backbones.s4_tiny]\nset = ["stage2.epochs=60"]\n')
    assert longer.changes("scratch", "s4_tiny")[0] == ""


def test_an_experiment_inherits_missing_keys(tmp_path: Path) -> None:
    (tmp_path / "rows.toml").write_text(ROWS_ALONE + 'our_reading = "all of it"\n')
    own = written(tmp_path, 'name = "own"\nextends = "rows.toml"\nseeds = [4]\n')
    base = load_experiment(tmp_path / "rows.toml")
    assert (own.name, own.seeds, base.seeds) == ("own", (4,), (0,))
    assert (own.rows, own.variants, own.tasks) == (base.rows, base.variants, base.tasks)
    (tmp_path / "rows.toml").write_text('made_for = ["s4"]\n' + ROWS_ALONE)
    own = written(tmp_path, 'name = "own"\nextends = "rows.toml"\n')
    assert (load_experiment(tmp_path / "rows.toml").made_for, own.made_for) == (("s4",), ())
    with pytest.raises(ReproduceError, match="toml: name"):
        written(tmp_path, 'extends = "rows.toml"\n')
    (tmp_path / "third.toml").write_text('name = "third"\nextends = "small.toml"\n')
    written(tmp_path, 'name = "own"\nextends = "rows.toml"\n')
    with pytest.raises(ReproduceError, match=r"third\.toml.*small\.toml"):
        load_experiment(tmp_path / "third.toml")
    with pytest.raises(ReproduceError, match="'nowhere'"):
        written(tmp_path, 'name = "own"\nextends = "nowhere"\n')


@pytest.mark.parametrize("name", ["peers", "peers-cpu"])
def test_the_peers_are_those_of_the_table(name: str) -> None:
    """Every network that can be made has a row, on six tasks, from random weights."""
    experiment = load_experiment(name)
    assert experiment.tasks == tuple(TASKS)
    rows = {row.published: row for row in experiment.rows if row.published}
    foundation_models = {"HuBERT-ECG-BASE", "Transformer-FM", "Transformer-FM-PT"}
    assert rows.keys() == published.ROWS.keys() - foundation_models
    assert len(rows) == len(experiment.rows) - 1
    assert [row.name for row in experiment.rows if not row.published] == ["xresnet1d50"]
    supervised = {name for name in backbone_names() if entry(name).is_supervised}
    assert {row.name for row in experiment.rows if row.variant} == supervised
    assert experiment.backbones.keys() <= supervised
    for row in experiment.rows:
        assert row.members or row.backbone == row.name
        if row.variant:
            assert experiment.variants[row.variant].recipe == entry(row.name).recipe
            assert experiment.recipe(row.variant, row.name).initialise == "random"
            assert experiment.recipe(row.variant, row.name).stage1 is None
    assert set(rows["ensemble of 7"].members) == {
        "xresnet1d101", "resnet1d_wang", "lstm", "lstm_bidir", "fcn_wang", "inception1d",
        "wavelet_nn",
    }  # fmt: skip
    readings = {row.name for row in experiment.rows if row.our_reading}
    assert readings == {"spacetime", "msw_transformer", "chimera"}


def test_unknown_experiments_and_recipes(tmp_path: Path) -> None:
    with pytest.raises(ReproduceError, match=r"(?s)'publishd'.*published"):
        load_experiment("publishd")
    with pytest.raises(ReproduceError, match=r"absent\.toml"):
        load_experiment(tmp_path / "absent.toml")
    experiment = written(tmp_path, SMALL + 'set = ["stage2.drop=1"]\n')
    with pytest.raises(RecipeError, match=r"stage2\.drop"):
        experiment.recipe(PLAIN, "x")


def test_docs_describe_every_key() -> None:
    """docs/reproduce.md and the experiment's own descriptions say the same."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "reproduce.md").read_text()
    tables: list[tuple[type[BaseModel], str]] = [
        (Experiment, ""),
        (PretrainingSource, "pretraining."),
        (Variant, "variants.NAME."),
        (Seeds, "more_seeds."),
        (BackboneChange, "backbones.NAME."),
        (Row, "rows."),
    ]
    for table, prefix in tables:
        for key, field in table.model_fields.items():
            if key != "folder":  # set when the file is read
                assert f"| `{prefix}{key}` |" in page
                assert " ".join((field.description or "no description").split()) in page
