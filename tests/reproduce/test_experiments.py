from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from einthoven.errors import RecipeError, ReproduceError
from einthoven.reproduce.experiments import (
    NO_DEPTH,
    NO_PROBE,
    OURS,
    PLAIN,
    SCRATCH,
    SCRATCH_OURS,
    Arm,
    ArmChange,
    Experiment,
    ForBackbone,
    Row,
    Seeds,
    Source,
    experiment_names,
    load_experiment,
)
from einthoven.stages.recipe import Recipe, load_recipe

SMALL = """
name = "small"
[pretraining]
recipe = "demo"
[arms.post-training]
recipe = "post-training"
[arms.fine-tuning]
recipe = "fine-tuning"
"""


def written(folder: Path, text: str) -> Experiment:
    file = folder / "small.toml"
    file.write_text(text)
    return load_experiment(file)


@pytest.mark.parametrize("name", experiment_names())
def test_every_experiment_reads_and_so_do_its_recipes(name: str) -> None:
    experiment = load_experiment(name)
    assert experiment.name == name
    for arm in experiment.arms:
        assert experiment.recipe(arm, "st_mem_tiny", seed=3, fraction=0.3).seed == 3
    assert experiment.pretraining_recipe("st_mem_tiny", 5).seed == 5


def test_arms_that_change_nothing_are_their_presets() -> None:
    """So that a run of `einthoven posttrain` by the preset is a cell of the experiment."""
    experiment = load_experiment("ptbxl-100hz-cpu")
    for arm in (OURS, PLAIN, SCRATCH, "linear-probe"):
        assert experiment.recipe(arm, "x") == load_recipe(f"ptbxl-100hz-cpu/{arm}")


@pytest.mark.parametrize("name", experiment_names())
def test_the_ablation_takes_away_one_piece_each(name: str) -> None:
    experiment = load_experiment(name)
    whole = experiment.recipe(OURS, "x")
    assert whole.stage2 is not None
    assert whole.stage2.drop_path > 0

    def changed(arm: str) -> set[str]:
        other = experiment.recipe(arm, "x")
        ours, theirs = whole.model_dump(), other.model_dump()
        return {key for key in ours if ours[key] != theirs[key]} - {"name", "description"}

    assert changed(NO_PROBE) == {"stage1"}
    assert changed(NO_DEPTH) == {"stage2"}
    without = experiment.recipe(NO_DEPTH, "x").stage2
    assert without == whole.stage2.model_copy(update={"drop_path": 0.0})
    assert changed(SCRATCH_OURS) == set()  # its random weights come as a file
    assert experiment.starts_random(SCRATCH_OURS, "x")
    assert not experiment.starts_random(OURS, "x")
    assert experiment.recipe(SCRATCH, "x").initialise == "random"


def test_the_paper_s_schedule() -> None:
    recipe = load_experiment("published").recipe(OURS, "st_mem_base")
    assert recipe.stage1 is not None
    assert recipe.stage2 is not None
    assert (recipe.stage1.epochs, recipe.stage2.epochs) == (100, 50)


def test_a_schedule_brings_no_stage_into_a_recipe(tmp_path: Path) -> None:
    experiment = written(
        tmp_path, SMALL.replace("[pre", 'schedule = ["stage1.epochs=7", "stage2.epochs=8"]\n[pre')
    )
    plain, ours = experiment.recipe(PLAIN, "x"), experiment.recipe(OURS, "x")
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
        + '[backbones.one.arms.fine-tuning]\nset = ["stage2.warmup_epochs=1"]\n'
        + '[backbones.two.arms.fine-tuning]\nrecipe = "ptbxl-100hz-cpu/fine-tuning"\n'
        + '[backbones.two.pretraining]\nrecipe = "mae"\n',
    )

    def stage2(backbone: str) -> tuple[int, float, float]:
        found = experiment.recipe(PLAIN, backbone).stage2
        assert found is not None
        return found.epochs, found.base_lr, found.warmup_epochs

    assert stage2("other") == (8, 2e-4, 3)
    assert stage2("one") == (9, 2e-4, 1)
    assert stage2("two") == (8, 2e-4, 1)
    assert experiment.recipe(PLAIN, "two").precision == "bf16"
    assert experiment.pretraining_recipe("two", 0).epochs == 800
    assert experiment.pretraining_recipe("one", 0).name == "demo"


def test_recipes_beside_the_experiment_are_found(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('name = "own"\n[stage2]\nepochs = 3\n')
    experiment = written(tmp_path, SMALL.replace('"fine-tuning"', '"own.toml"'))
    found: Recipe = experiment.recipe(PLAIN, "x")
    assert found.stage2 is not None
    assert (found.name, found.stage2.epochs) == (PLAIN, 3)


def test_the_last_entry_of_seeds_that_matches_decides(tiny: Experiment) -> None:
    assert tiny.seeds_of(OURS, "all-71", 1.0) == (0, 1)
    assert tiny.seeds_of(OURS, "all-71", 0.5) == (0,)
    assert tiny.seeds_of(OURS, "superclass-5", 1.0) == (0,)
    assert tiny.seeds_of(SCRATCH, "all-71", 1.0) == (0,)


def test_the_arms_of_table_2(tiny: Experiment, tmp_path: Path) -> None:
    assert written(tmp_path, SMALL).table_arms_of("all-71") == (PLAIN, OURS)
    four = (SCRATCH, PLAIN, "linear-probe", OURS)
    assert tiny.table_arms_of("all-71") == tiny.table_arms_of("superclass-5") == four
    some = tiny.model_copy(update={"table_arms_on": ("superclass-5",)})
    assert some.table_arms_of("superclass-5") == four
    assert some.table_arms_of("all-71") == (PLAIN, OURS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[arms.fine-tuning]", "[arms.plain]"), "arm fine-tuning is missing"),
        (('name = "small"', 'name = "small"\nepochs = 3'), "epochs"),
        (('name = "small"', 'name = "a b"'), "no name for a folder"),
        (('name = "small"', 'name = "small"\nmain_task = "form-19"'), "none of the tasks"),
        (('name = "small"', 'name = "small"\nfractions = [0.0]'), "fractions"),
        (("[pre", '[[rows]]\nname = "x"\narm = "y"\n[pre'), "unknown arm y"),
        (("[pre", "[backbones.b.arms.z]\n[pre"), "unknown arm z"),
        (('name = "small"', 'name = "small"\ntable_arms = ["fine-tuning"]'), "out post-training"),
        (
            (
                'name = "small"',
                'name = "small"\ntable_arms = ["fine-tuning", "post-training", "scratch"]',
            ),
            "unknown arm scratch",
        ),
        (
            (
                'name = "small"',
                'name = "small"\ntable_arms = ["fine-tuning", "post-training", "fine-tuning"]',
            ),
            "an arm twice",
        ),
        (
            ('name = "small"', 'name = "small"\ntable_arms_on = ["form-19"]'),
            "table_arms_on names form-19",
        ),
        (("[pretraining]", "[pretraining"), "no TOML"),
    ],
)
def test_mistakes_are_refused(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(ReproduceError, match=message):
        written(tmp_path, SMALL.replace(*change))


def test_unknown_experiments_and_recipes(tmp_path: Path) -> None:
    with pytest.raises(ReproduceError, match=r"choose .*published"):
        load_experiment("publishd")
    with pytest.raises(ReproduceError, match="missing"):
        load_experiment(tmp_path / "absent.toml")
    experiment = written(tmp_path, SMALL + 'set = ["stage2.drop=1"]\n')
    with pytest.raises(RecipeError, match=r"stage2\.drop"):
        experiment.recipe(PLAIN, "x")


def test_docs_describe_every_key() -> None:
    """docs/reproduce.md and the experiment's own descriptions say the same."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "reproduce.md").read_text()
    tables: list[tuple[type[BaseModel], str]] = [
        (Experiment, ""),
        (Source, "pretraining."),
        (Arm, "arms.NAME."),
        (Seeds, "more_seeds."),
        (ForBackbone, "backbones.NAME."),
        (ArmChange, "backbones.NAME.arms.NAME."),
        (Row, "rows."),
    ]
    for table, prefix in tables:
        for key, field in table.model_fields.items():
            if key not in ("folder", "asked"):  # set when the file is read
                assert f"| `{prefix}{key}` |" in page
                assert " ".join((field.description or "no description").split()) in page
