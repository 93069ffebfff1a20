from __future__ import annotations

import pytest

from einthoven.errors import ReproduceError
from einthoven.reproduce.experiments import OURS, PLAIN, Experiment, Row, load_experiment
from einthoven.reproduce.grid import WHAT, cells_of, only, shard

BACKBONE = "s4"


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return load_experiment("ptbxl-100hz-cpu")


@pytest.mark.parametrize(
    ("what", "count"),
    [
        ("table-1", 12),
        ("table-2", 12),
        ("figure-2", 6),
        ("figure-3", 6),
        ("figure-4", 10),
        ("figure-5", 10),
        ("grid", 21),
    ],
)
def test_the_cells_of_every_table_and_figure(experiment: Experiment, what: str, count: int) -> None:
    """Four tasks x two arms, two more seeds of both on all-71, two smaller fractions, ..."""
    cells = cells_of(what, experiment, BACKBONE)
    assert len({cell.key for cell in cells}) == len(cells) == count
    assert set(cells) <= set(cells_of("grid", experiment, BACKBONE))


def test_first_seeds_come_first_and_comparisons_side_by_side(experiment: Experiment) -> None:
    cells = cells_of("grid", experiment, BACKBONE)
    assert [(cell.arm, cell.task, cell.fraction, cell.seed) for cell in cells[:2]] == [
        (OURS, "all-71", 1.0, 0),
        (PLAIN, "all-71", 1.0, 0),
    ]
    seeds = [cell.seed for cell in cells]
    assert seeds == sorted(seeds)


def test_keys_are_folder_names_that_say_everything(experiment: Experiment) -> None:
    keys = {cell.key for cell in cells_of("figure-4", experiment, BACKBONE)}
    assert "s4--post-training--all-71--30pct--seed0" in keys
    assert "s4--fine-tuning--all-71--100pct--seed2" in keys


def test_rows_of_table_1_may_be_of_other_backbones(experiment: Experiment) -> None:
    peer = Row(name="resnet (ours)", backbone="resnet1d_wang", arm="scratch")
    with_peer = experiment.model_copy(update={"rows": (peer, Row(name="us", arm=OURS))})
    cells = cells_of("table-1", with_peer, BACKBONE)
    assert {(cell.backbone, cell.arm) for cell in cells} == {
        ("resnet1d_wang", "scratch"),
        (BACKBONE, OURS),
    }


def test_filters(experiment: Experiment) -> None:
    cells = cells_of("grid", experiment, BACKBONE)
    kept = only(cells, ["arm=post-training,fine-tuning", "task=all-71", "seed=0", "fraction=1"])
    assert [cell.key for cell in kept] == [cell.key for cell in cells[:2]]
    assert len(only(cells, ["fraction=0.1"])) == 2
    assert only(cells, []) == cells


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arm", "is no filter"),
        ("epoch=1", "is no filter"),
        ("arm=post-trainign", "no cell has arm post-trainign"),
        ("seed=7", "no cell has seed 7"),
    ],
)
def test_filters_that_match_nothing_are_refused(
    experiment: Experiment, text: str, message: str
) -> None:
    with pytest.raises(ReproduceError, match=message):
        only(cells_of("grid", experiment, BACKBONE), [text])


def test_shards_are_all_of_it_and_share_nothing(experiment: Experiment) -> None:
    cells = cells_of("grid", experiment, BACKBONE)
    parts = [shard(cells, f"{i}/4") for i in range(1, 5)]
    assert sorted(cell.key for part in parts for cell in part) == sorted(c.key for c in cells)
    assert shard(cells, None) == cells


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_parts_that_are_none_are_refused(part: str) -> None:
    with pytest.raises(ReproduceError, match="is no part"):
        shard([], part)


def test_unknown_tables_are_refused(experiment: Experiment) -> None:
    with pytest.raises(ReproduceError, match="choose table-1"):
        cells_of("table-3", experiment, BACKBONE)
    assert "grid" in WHAT
