"""From a table or figure to the runs that it needs, in the order in which they are best run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

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
)

TABLE_1, GRID, OBJECTIVES = "table-1", "grid", "objectives"
TARGETS = {
    TABLE_1: "macro AUROC and AUPRC of every row on every task, beside the published peers",
    "table-2": "plain fine-tuning against post-training on four tasks, and other table_variants",
    "figure-2": "paired differences of every label",
    "figure-3": "validation metrics by epoch",
    "figure-4": "from a tenth of the training records to all of them",
    "figure-5": "ablation: without stochastic depth, without the probe, from random weights",
    GRID: "everything above, and every other variant on the main task",
    OBJECTIVES: "pretrainings x encoders x variants, and what each axis changes",
}
PAIR = (PLAIN, POST)
ABLATION = (POST, NO_DEPTH, NO_PROBE, PLAIN, SCRATCH, SCRATCH_POST)
WHOLE = 1.0
Pairs = Mapping[str, Sequence[tuple[str, str]]]


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seed.

    `fraction` is the share of training records, `pretraining` the name of one of several.
    """

    backbone: str
    variant: str
    task: str
    fraction: float = WHOLE
    pretraining: str = field(default="", kw_only=True)

    def run(self, seed: int) -> Run:
        """The run of a seed."""
        return Run(**vars(self), seed=seed)


@dataclass(frozen=True)
class Run(Group):
    """One training."""

    seed: int = 0

    @property
    def key(self) -> str:
        """Name of the run and of its folder."""
        share, seed = f"{100 * self.fraction:g}pct", f"seed{self.seed}"
        parts = self.backbone, self.pretraining, self.variant, self.task, share, seed
        return "--".join(filter(None, parts))


def targets_of(experiment: Experiment) -> tuple[str, ...]:
    """Tables and figures of an experiment, `grid` included."""
    if experiment.compares_pretraining:
        return (OBJECTIVES,)
    if experiment.table_1_only:
        return (TABLE_1, GRID)
    return tuple(name for name in TARGETS if name != OBJECTIVES)


def runs_of(target: str, experiment: Experiment, backbone: str) -> list[Run]:
    """The runs of a table or figure, in the order in which they are best run.

    A grid that is stopped anywhere has the most informative runs: the main task's pair, its
    baselines, its other seeds, the ablation, smaller fractions, other tasks, peers. Pretrainings
    are in the order of the experiment: on the main task by the first variant, then by the others,
    then on the other tasks; all seeds of one before the next.

    Raises ReproduceError if the target is unknown, or the experiment does not make it.
    """
    if target not in TARGETS:
        raise ReproduceError(f"no target {target!r}", remedy=f"choose {', '.join(TARGETS)}")
    if target not in targets_of(experiment):
        raise ReproduceError(
            f"experiment {experiment.name} has no {target}",
            remedy="choose another --experiment: `einthoven reproduce list`",
        )
    targets = targets_of(experiment) if target == GRID else [target]
    groups = [group for name in targets for group in target_groups(name, experiment, backbone)]
    if target == OBJECTIVES:
        return [
            group.run(seed)
            for group in groups
            for seed in experiment.seeds_of(group.variant, group.task, group.fraction)
        ]
    priorities = {
        group.run(seed): _priority(experiment, backbone, group, turn)
        for group in dict.fromkeys(groups)
        for turn, seed in enumerate(experiment.seeds_of(group.variant, group.task, group.fraction))
    }
    return sorted(priorities, key=lambda run: priorities[run])


def target_groups(target: str, experiment: Experiment, backbone: str) -> Iterator[Group]:
    """What a table or figure shows, in its order; `grid` for the table of every variant."""
    main = experiment.main_task
    if target == OBJECTIVES:
        tasks = sorted(experiment.tasks, key=lambda task: task != main)
        every = tuple(experiment.variants)
        for task, name, source in product(tasks, every, experiment.pretrainings):
            if name in (source.variants or every):
                yield Group(source.backbone or backbone, name, task, pretraining=source.name)
    elif target == TABLE_1:
        for pairs in experiment.pairs(backbone).values():
            yield from (Group(*pair, task) for pair in pairs for task in experiment.tasks)
    elif target == "table-2":
        for task in experiment.tasks:
            yield from (Group(backbone, v, task) for v in experiment.table_variants_of(task))
    elif target in ("figure-2", "figure-3"):
        yield from (Group(backbone, variant, main) for variant in PAIR)
    elif target == "figure-4":
        equal = [name for name, v in experiment.variants.items() if v.equal_steps]
        rows = {row.name: (row.backbone or backbone, row.variant) for row in experiment.rows}
        others = [rows[name] for name in experiment.fraction_rows]
        for share in sorted({*experiment.fractions, WHOLE}):
            yield from (Group(backbone, variant, main, share) for variant in PAIR)
            if share < WHOLE:  # all records are trained on for as many steps in either case
                yield from (Group(backbone, variant, main, share) for variant in equal)
            yield from (Group(*pair, main, share) for pair in others)
    elif target == "figure-5":
        yield from (Group(backbone, v, main) for v in ABLATION if v in experiment.variants)
    elif not experiment.table_1_only:
        for name, variant in experiment.variants.items():
            if not variant.equal_steps:
                yield Group(backbone, name, main)


def _priority(experiment: Experiment, backbone: str, group: Group, turn: int) -> tuple[Any, ...]:
    """Sort key of a group's run with the seed number `turn`.

    Within a rank first seeds come first, small fractions before large ones, and the variants of a
    comparison side by side.
    """
    baselines = (PROBE, SCRATCH, *experiment.table_variants)
    if group.task != experiment.main_task:
        rank = 7 if turn else 5 if group.variant in PAIR else 6
    elif group.fraction != WHOLE:
        rank = 4
    elif group.variant in PAIR:
        rank = 2 if turn else 0
    else:
        rank = 1 if group.variant in baselines and not turn else 3
    backbones = [row.backbone for row in experiment.rows]
    row = backbones.index(group.backbone) if group.backbone in backbones else -1
    variant = [POST, PLAIN, *experiment.variants].index(group.variant)
    position = experiment.tasks.index(group.task), row, variant
    return group.backbone != backbone, rank, turn, group.fraction, *position


def only(runs: Sequence[Run], filters: Sequence[str], pairs: Pairs | None = None) -> list[Run]:
    """Runs that pass every filter: `variant=post-training,scratch`, `seed=0`, ...

    A key is a field of a run, or `row`, which needs `pairs` (`Experiment.pairs`). Raises
    ReproduceError if a filter has another form, or a value that no run has.
    """
    keys = [*Run.__dataclass_fields__, *(["row"] if pairs else [])]
    selected = list(runs)
    for text in filters:
        key, equals, values = text.partition("=")
        if not equals or key not in keys:
            raise ReproduceError(
                f"--only {text!r} is not a filter",
                remedy=f"write KEY=VALUE,... with a key of {', '.join(keys)}",
            )
        names = {run: _names(run, key, pairs or {}) for run in runs}
        present = {name for run in runs for name in names[run]}
        allowed = {value.strip() for value in values.split(",")}
        if allowed - present:
            raise ReproduceError(
                f"--only {text}: no run has {key} {', '.join(sorted(allowed - present))}",
                remedy=f"choose among {', '.join(sorted(present))}",
            )
        selected = [run for run in selected if names[run] & allowed]
    return selected


def _names(run: Run, key: str, pairs: Pairs) -> set[str]:
    """Values of a run for a key; it may be part of several rows."""
    if key == "row":
        return {row for row, members in pairs.items() if (run.backbone, run.variant) in members}
    value = getattr(run, key)
    return {value if isinstance(value, str) else f"{value:g}"}


def shard(runs: Sequence[Run], part: str | None) -> list[Run]:
    """Part I of N, written `I/N`: every N-th run; all of them if `part` is None.

    Runs that start from one of several pretrainings stay together.

    Raises ReproduceError if the part is not one of N.
    """
    if part is None:
        return list(runs)
    index, _, count = part.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise ReproduceError(f"--shard {part!r} is not I/N", remedy="write 1/2, or 2/2")
    units = [(run.backbone, run.pretraining) if run.pretraining else run for run in runs]
    selected = set(list(dict.fromkeys(units))[int(index) - 1 :: int(count)])
    return [run for run, unit in zip(runs, units, strict=True) if unit in selected]
