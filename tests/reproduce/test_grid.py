from __future__ import annotations

import pytest

from einthoven.errors import ReproduceError
from einthoven.reproduce.experiment_files import load_experiment
from einthoven.reproduce.experiments import (
    NO_DEPTH,
    NO_PROBE,
    OURS,
    PLAIN,
    PROBE,
    SCRATCH,
    SCRATCH_OURS,
    Experiment,
    Row,
)
from einthoven.reproduce.grid import WHAT, Cell, cells_of, made_by, only, row_names, shard

BACKBONE = "s4"


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return load_experiment("ptbxl-100hz-cpu")


@pytest.mark.parametrize(
    ("what", "count"),
    [
        ("table-1", 12),
        ("table-2", 14),
        ("figure-2", 6),
        ("figure-3", 6),
        ("figure-4", 10),
        ("figure-5", 10),
        ("grid", 21),
    ],
)
def test_the_cells_of_every_table_and_figure(experiment: Experiment, what: str, count: int) -> None:
    """Four tasks x two arms, two more seeds of both and two more arms on all-71, ..."""
    cells = cells_of(what, experiment, BACKBONE)
    assert len({cell.key for cell in cells}) == len(cells) == count
    assert set(cells) <= set(cells_of("grid", experiment, BACKBONE))


def test_a_grid_that_is_stopped_anywhere_has_what_says_most() -> None:
    """All of it, in order; four recipes on four tasks are the last rungs."""
    cells = cells_of("grid", load_experiment("s4-100hz-cpu"), BACKBONE)
    main = [cell for cell in cells if cell.task == "all-71"]
    assert cells[: len(main)] == main
    assert [(cell.arm, cell.fraction, cell.seed) for cell in main] == [
        (OURS, 1.0, 0), (PLAIN, 1.0, 0),
        (PROBE, 1.0, 0), (SCRATCH, 1.0, 0),
        (OURS, 1.0, 1), (PLAIN, 1.0, 1), (OURS, 1.0, 2), (PLAIN, 1.0, 2),
        (NO_DEPTH, 1.0, 0), (NO_PROBE, 1.0, 0), (SCRATCH_OURS, 1.0, 0), ("large-head", 1.0, 0),
        ("large-head", 1.0, 1), ("large-head", 1.0, 2),
        (OURS, 0.1, 0), (PLAIN, 0.1, 0), (OURS, 0.3, 0), (PLAIN, 0.3, 0),
    ]  # fmt: skip
    others = ("diagnostic-44", "subclass-23", "rhythm-12")
    assert [(cell.task, cell.arm) for cell in cells[len(main) :]] == [
        (task, arm) for arms in ((OURS, PLAIN), (PROBE, SCRATCH)) for task in others for arm in arms
    ]


def test_further_seeds_of_other_tasks_and_peers_come_last(experiment: Experiment) -> None:
    wider = experiment.model_copy(
        update={"more_seeds": (), "seeds": (4, 2), "rows": (Row(name="a", backbone="a", arm=OURS),)}
    )
    cells = cells_of("grid", wider, BACKBONE)
    assert [cell.backbone for cell in cells[-8:]] == ["a"] * 8
    own = cells[:-8]
    assert {cell.backbone for cell in own} == {BACKBONE}
    assert [cell.seed for cell in own[-6:]] == [2] * 6  # the order is the experiment's
    assert {cell.task for cell in own[-6:]} == set(experiment.tasks) - {"all-71"}
    assert [(cell.arm, cell.seed) for cell in own[:6]] == [
        (OURS, 4), (PLAIN, 4), (PROBE, 4), (SCRATCH, 4), (OURS, 2), (PLAIN, 2),
    ]  # fmt: skip


def test_table_2_has_further_arms_where_the_experiment_says() -> None:
    pair, four = {PLAIN, OURS}, {PLAIN, OURS, PROBE, SCRATCH}

    def arms(name: str) -> dict[str, set[str]]:
        by_task: dict[str, set[str]] = {}
        for cell in cells_of("table-2", load_experiment(name), BACKBONE):
            by_task.setdefault(cell.task, set()).add(cell.arm)
        return by_task

    tasks = load_experiment("published").tasks
    assert arms("s4-100hz-cpu") == dict.fromkeys(tasks, four)
    assert arms("ptbxl-100hz-cpu") == dict.fromkeys(tasks, pair) | {"all-71": four}
    assert arms("published") == dict.fromkeys(tasks, pair)


def test_table_arms_change_no_other_cell(experiment: Experiment) -> None:
    """They add some: what was run before they were asked for still counts."""
    alone = experiment.model_copy(update={"table_arms": (PLAIN, OURS), "table_arms_on": ()})
    wide = experiment.model_copy(update={"table_arms_on": ()})
    before, after = (set(cells_of("grid", each, BACKBONE)) for each in (alone, wide))
    assert before < after
    assert after - before == {
        Cell(BACKBONE, arm, task, 1.0, 0)
        for arm in (PROBE, SCRATCH)
        for task in ("diagnostic-44", "subclass-23", "rhythm-12")
    }
    for cell in before:
        assert wide.recipe(cell.arm, BACKBONE, seed=cell.seed, fraction=cell.fraction) == (
            alone.recipe(cell.arm, BACKBONE, seed=cell.seed, fraction=cell.fraction)
        )


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


@pytest.fixture(scope="module")
def peers() -> Experiment:
    return load_experiment("peers")


def test_the_cells_of_rows_alone(peers: Experiment) -> None:
    """Twelve networks, six tasks, three seeds; the ensemble has no runs of its own."""
    cells = cells_of("table-1", peers, "")
    assert len(set(cells)) == len(cells) == 12 * 6 * 3
    assert cells == cells_of("grid", peers, "")
    order = [row.name for row in peers.rows if row.arm]
    assert [(c.backbone, c.task, c.seed) for c in cells[:12]] == [
        (name, "all-71", 0) for name in order
    ]
    assert [cell.seed for cell in cells[12:36]] == [1] * 12 + [2] * 12
    assert {cell.task for cell in cells[:36]} == {"all-71"}
    assert made_by(peers) == ("table-1", "grid")
    for what in set(WHAT) - {"table-1", "grid"}:
        with pytest.raises(ReproduceError, match=f"makes table-1 alone, and no {what}"):
            cells_of(what, peers, "")


def test_one_row_alone(peers: Experiment) -> None:
    cells, rows = cells_of("table-1", peers, ""), row_names(peers, "")
    one = only(cells, ["row=xresnet1d101", "task=form-19"], rows)
    assert [cell.key for cell in one] == [
        f"xresnet1d101--strodthoff--form-19--100pct--seed{seed}" for seed in (0, 1, 2)
    ]
    members = only(cells, ["row=ensemble", "seed=0", "task=all-71"], rows)
    assert [cell.backbone for cell in members] == [
        "inception1d", "xresnet1d101", "resnet1d_wang", "fcn_wang", "lstm", "lstm_bidir",
        "wavelet_nn",
    ]  # fmt: skip
    both = only(cells, ["row=lstm,multiresnet", "seed=0", "task=all-71"], rows)
    assert [cell.backbone for cell in both] == ["lstm", "multiresnet"]
    with pytest.raises(ReproduceError, match=r"no cell has row resnet1d101") as refused:
        only(cells, ["row=resnet1d101"], rows)
    assert "xresnet1d101" in str(refused.value)
    with pytest.raises(ReproduceError, match="is no filter"):
        only(cells, ["row=lstm"])


def test_the_pair_s_rows_have_names_too(experiment: Experiment) -> None:
    cells, rows = cells_of("grid", experiment, BACKBONE), row_names(experiment, BACKBONE)
    kept = only(cells, ["row=plain fine-tuning"], rows)
    assert {cell.arm for cell in kept} == {PLAIN}


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
