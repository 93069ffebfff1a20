from __future__ import annotations

import pytest

from einthoven.errors import ReproduceError
from einthoven.reproduce.experiment import (
    NO_DEPTH,
    NO_PROBE,
    PLAIN,
    POST,
    PROBE,
    SCRATCH,
    SCRATCH_POST,
    Experiment,
    load_experiment,
)
from einthoven.reproduce.grid import TARGETS, only, runs_of, shard, target_groups, targets_of

BACKBONE = "s4"


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return load_experiment("ptbxl-100hz-cpu")


@pytest.mark.parametrize(
    ("target", "count"),
    [
        ("table-1", 12),
        ("table-2", 14),
        ("figure-2", 6),
        ("figure-3", 6),
        ("figure-4", 14),
        ("figure-5", 10),
        ("grid", 25),
    ],
)
def test_the_runs_of_every_table_and_figure(
    experiment: Experiment, target: str, count: int
) -> None:
    """Four tasks x two variants, two more seeds of both and two more variants on all-71, ..."""
    runs = runs_of(target, experiment, BACKBONE)
    assert len({run.key for run in runs}) == len(runs) == count
    if target == "figure-4":
        assert "s4--post-training--all-71--30pct--seed0" in {run.key for run in runs}
    assert set(runs) <= set(runs_of("grid", experiment, BACKBONE))


def test_runs_are_in_the_order_of_their_importance() -> None:
    """All of it, in order; four recipes on four tasks are the last rungs."""
    runs = runs_of("grid", load_experiment("s4-100hz-cpu"), BACKBONE)
    main = [run for run in runs if run.task == "all-71"]
    assert runs[: len(main)] == main
    assert [(run.variant, run.fraction, run.seed) for run in main] == [
        (POST, 1.0, 0), (PLAIN, 1.0, 0),
        (PROBE, 1.0, 0), (SCRATCH, 1.0, 0),
        (POST, 1.0, 1), (PLAIN, 1.0, 1), (POST, 1.0, 2), (PLAIN, 1.0, 2),
        (NO_DEPTH, 1.0, 0), (NO_PROBE, 1.0, 0), (SCRATCH_POST, 1.0, 0), ("large-head", 1.0, 0),
        ("large-head", 1.0, 1), ("large-head", 1.0, 2),
        (POST, 0.1, 0), (PLAIN, 0.1, 0),
        (f"{PLAIN}-equal-steps", 0.1, 0), (f"{POST}-equal-steps", 0.1, 0),
        (POST, 0.3, 0), (PLAIN, 0.3, 0),
        (f"{PLAIN}-equal-steps", 0.3, 0), (f"{POST}-equal-steps", 0.3, 0),
    ]  # fmt: skip
    others = ("diagnostic-44", "subclass-23", "rhythm-12")
    assert [(run.task, run.variant) for run in runs[len(main) :]] == [
        (task, variant)
        for variants in ((POST, PLAIN), (PROBE, SCRATCH))
        for task in others
        for variant in variants
    ]


def test_the_arms_of_a_data_scaling_figure() -> None:
    experiment = load_experiment("data-scaling")
    groups = list(target_groups("figure-4", experiment, "ecg_fm"))
    arms = {(group.backbone, group.variant) for group in groups}
    assert arms == {("ecg_fm", name) for name in (POST, PLAIN, PROBE, SCRATCH)} | {
        ("xresnet1d101", "strodthoff")
    }
    assert len(groups) == len(set(groups)) == 5 * len(experiment.fractions)


@pytest.fixture(scope="module")
def peers() -> Experiment:
    return load_experiment("peers")


def test_the_runs_of_rows_alone(peers: Experiment) -> None:
    """Twelve networks, six tasks, three seeds; the ensemble has no runs of its own."""
    runs = runs_of("table-1", peers, "")
    assert len(set(runs)) == len(runs) == 12 * 6 * 3
    assert runs == runs_of("grid", peers, "")
    order = [row.name for row in peers.rows if row.variant]
    assert [(c.backbone, c.task, c.seed) for c in runs[:12]] == [
        (name, "all-71", 0) for name in order
    ]
    assert [run.seed for run in runs[12:36]] == [1] * 12 + [2] * 12
    assert {run.task for run in runs[:36]} == {"all-71"}
    assert targets_of(peers) == ("table-1", "grid")
    for target in ("table-3", *(set(TARGETS) - {"table-1", "grid"})):
        with pytest.raises(ReproduceError, match=target):
            runs_of(target, peers, "")


def test_one_row_alone(peers: Experiment) -> None:
    runs, rows = runs_of("table-1", peers, ""), peers.pairs("")
    one = only(runs, ["row=xresnet1d101", "task=form-19"], rows)
    assert [run.key for run in one] == [
        f"xresnet1d101--strodthoff--form-19--100pct--seed{seed}" for seed in (0, 1, 2)
    ]
    members = only(runs, ["row=ensemble", "seed=0", "task=all-71"], rows)
    assert [run.backbone for run in members] == [
        "inception1d", "xresnet1d101", "resnet1d_wang", "fcn_wang", "lstm", "lstm_bidir",
        "wavelet_nn",
    ]  # fmt: skip
    both = only(runs, ["row=lstm,multiresnet", "seed=0", "task=all-71"], rows)
    assert [run.backbone for run in both] == ["lstm", "multiresnet"]
    with pytest.raises(ReproduceError, match="row resnet1d101") as refused:
        only(runs, ["row=resnet1d101"], rows)
    assert "xresnet1d101" in refused.value.remedy
    with pytest.raises(ReproduceError, match="'row=lstm'"):
        only(runs, ["row=lstm"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arm", "'arm'"),
        ("epoch=1", "'epoch=1'"),
        ("variant=post-trainign", "variant post-trainign"),
        ("seed=7", "seed 7"),
    ],
)
def test_filters_that_match_nothing_are_refused(
    experiment: Experiment, text: str, message: str
) -> None:
    with pytest.raises(ReproduceError, match=message):
        only(runs_of("grid", experiment, BACKBONE), [text])


def test_shards_are_all_of_it_and_share_nothing(experiment: Experiment) -> None:
    runs = runs_of("grid", experiment, BACKBONE)
    parts = [shard(runs, f"{i}/4") for i in range(1, 5)]
    assert sorted(run.key for part in parts for run in part) == sorted(c.key for c in runs)
    assert shard(runs, None) == runs


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_parts_that_are_none_are_refused(part: str) -> None:
    with pytest.raises(ReproduceError, match="--shard"):
        shard([], part)
