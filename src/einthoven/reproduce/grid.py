"""From a table or figure to the runs that it needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from einthoven.errors import ReproduceError
from einthoven.reproduce.experiments import (
    NO_DEPTH,
    NO_PROBE,
    OURS,
    PLAIN,
    PROBE,
    SCRATCH,
    SCRATCH_OURS,
    TABLE_1,
    Experiment,
    Row,
)

WHAT = {
    TABLE_1: "macro AUROC and AUPRC of every row on every task, beside the published peers",
    "table-2": "plain fine-tuning against post-training on four tasks, and the other table_arms",
    "figure-2": "paired differences of every label",
    "figure-3": "validation metrics by epoch",
    "figure-4": "from a tenth of the training records to all of them",
    "figure-5": "ablation: without stochastic depth, without the probe, from random weights",
    "grid": "everything above, and every other arm on the main task",
}
ABLATION = (OURS, NO_DEPTH, NO_PROBE, PLAIN, SCRATCH, SCRATCH_OURS)
WHOLE = 1.0
T = TypeVar("T")


@dataclass(frozen=True)
class Cell:
    """One run: what is trained, how, on what, and from which seed.

    Attributes
    ----------
    backbone, arm, task : str
    fraction : float
        Share of the training records.
    seed : int
    """

    backbone: str
    arm: str
    task: str
    fraction: float
    seed: int

    @property
    def key(self) -> str:
        """Name of the cell and of its folder."""
        share = f"{100 * self.fraction:g}pct"
        return f"{self.backbone}--{self.arm}--{self.task}--{share}--seed{self.seed}"


def rows_of(experiment: Experiment) -> tuple[Row, ...]:
    """Rows of table 1."""
    return experiment.rows or (
        Row(name="plain fine-tuning", arm=PLAIN, published="Transformer-FM"),
        Row(name="post-training", arm=OURS, published="Transformer-FM-PT"),
    )


def made_by(experiment: Experiment) -> tuple[str, ...]:
    """Tables and figures that an experiment makes, the whole grid included."""
    return (TABLE_1, "grid") if experiment.table_1_only else tuple(WHAT)


def whole_grid(experiment: Experiment) -> list[str]:
    """The same one by one."""
    return [what for what in made_by(experiment) if what != "grid"]


def arms_of_row(experiment: Experiment, row: Row, backbone: str) -> list[tuple[str, str]]:
    """Backbone and arm of a row of table 1, or those of its members."""
    if row.arm:
        return [(row.backbone or backbone, row.arm)]
    by_name = {each.name: each for each in rows_of(experiment)}
    members = (by_name[name] for name in row.members)
    return [pair for each in members for pair in arms_of_row(experiment, each, backbone)]


def cells_of(what: str, experiment: Experiment, backbone: str) -> list[Cell]:
    """The cells of a table or figure, in the order in which they are best run.

    A grid that is stopped anywhere has the cells that say most: the main task's pair, what it is
    measured against, its other seeds, the ablation, smaller fractions, other tasks, peers.

    Raises
    ------
    ReproduceError
        For an unknown table or figure, or one that the experiment does not make.
    """
    if what not in WHAT:
        raise ReproduceError(f"no table or figure {what!r}", remedy=f"choose {', '.join(WHAT)}")
    if what not in made_by(experiment):
        raise ReproduceError(
            f"experiment {experiment.name} makes {TABLE_1} alone, and no {what}",
            remedy="name another --experiment; `einthoven reproduce list` shows what each makes",
        )
    names = whole_grid(experiment) if what == "grid" else [what]
    groups = [group for each in names for group in _groups(each, experiment, backbone)]
    if what == "grid" and not experiment.table_1_only:
        groups += [(backbone, arm, experiment.main_task, WHOLE) for arm in experiment.arms]
    places = {
        Cell(*group, seed): _place(experiment, backbone, group, turn)
        for group in dict.fromkeys(groups)
        for turn, seed in enumerate(experiment.seeds_of(*group[1:]))
    }
    return sorted(places, key=lambda cell: places[cell])


Group = tuple[str, str, str, float]


def _groups(what: str, experiment: Experiment, backbone: str) -> Iterator[Group]:
    main = experiment.main_task
    if what == TABLE_1:
        for row in rows_of(experiment):
            for pair in arms_of_row(experiment, row, backbone):
                yield from ((*pair, task, WHOLE) for task in experiment.tasks)
    elif what == "table-2":
        for task in experiment.tasks:
            yield from ((backbone, arm, task, WHOLE) for arm in experiment.table_arms_of(task))
    elif what in ("figure-2", "figure-3"):
        yield from ((backbone, arm, main, WHOLE) for arm in _PAIR)
    elif what == "figure-4":
        shares = sorted({*experiment.fractions, WHOLE})
        yield from ((backbone, arm, main, share) for share in shares for arm in _PAIR)
    else:
        arms = [arm for arm in ABLATION if arm in experiment.arms]
        yield from ((backbone, arm, main, WHOLE) for arm in arms)


_PAIR = (PLAIN, OURS)


def _place(experiment: Experiment, backbone: str, group: Group, turn: int) -> tuple[Any, ...]:
    # Within a rung first seeds come first, cheap fractions before dear ones, and the arms of a
    # comparison side by side.
    whose, arm, task, fraction = group
    rung = _rung(experiment, arm, task, fraction, first=turn == 0)
    named = [row.backbone for row in experiment.rows]
    row = named.index(whose) if whose in named else -1
    at = experiment.tasks.index(task), row, [OURS, PLAIN, *experiment.arms].index(arm)
    return whose != backbone, rung, turn, fraction, *at


def _rung(experiment: Experiment, arm: str, task: str, fraction: float, *, first: bool) -> int:
    pair = arm in _PAIR
    if task != experiment.main_task:
        return (5 if pair else 6) if first else 7
    if fraction != WHOLE:
        return 4
    if pair:
        return 0 if first else 2
    return 1 if first and arm in (PROBE, SCRATCH, *experiment.table_arms) else 3


Rows = Mapping[str, Sequence[tuple[str, str]]]


def row_names(experiment: Experiment, backbone: str) -> Rows:
    """Backbones and arms by the names of table 1's rows, for `only`."""
    rows = rows_of(experiment)
    return {row.name: arms_of_row(experiment, row, backbone) for row in rows}


def only(cells: Sequence[Cell], filters: Sequence[str], rows: Rows | None = None) -> list[Cell]:
    """Cells that every filter lets through: `arm=post-training,scratch`, `seed=0`, ...

    Parameters
    ----------
    cells : sequence of Cell
    filters : sequence of str
        `KEY=VALUE,...`; a key is a field of a cell, or `row`.
    rows : mapping, optional
        What the rows of table 1 are made of, by name (see `row_names`).

    Raises
    ------
    ReproduceError
        For a filter of another form, or a value that no cell has.
    """
    keys = [*Cell.__dataclass_fields__, *(["row"] if rows else [])]
    kept = list(cells)
    for text in filters:
        key, equals, values = text.partition("=")
        if not equals or key not in keys:
            raise ReproduceError(
                f"--only {text!r} is no filter",
                remedy=f"write KEY=VALUE,... with a key of {', '.join(keys)}",
            )
        names = {cell: _names(cell, key, rows or {}) for cell in cells}
        present = {name for each in names.values() for name in each}
        wanted = {_text(_number(value)) for value in values.split(",")}
        if wanted - present:
            raise ReproduceError(
                f"--only {text}: no cell has {key} {', '.join(sorted(wanted - present))}",
                remedy=f"choose among {', '.join(sorted(present))}",
            )
        kept = [cell for cell in kept if names[cell] & wanted]
    return kept


def _names(cell: Cell, key: str, rows: Rows) -> set[str]:
    """What a cell's value of a key is called; it may be part of several rows."""
    if key == "row":
        return {name for name, pairs in rows.items() if (cell.backbone, cell.arm) in pairs}
    return {_text(getattr(cell, key))}


def shard(cells: Sequence[T], part: str | None) -> list[T]:
    """Every N-th cell: the I-th part of N, written `I/N`; all of them without a part.

    Raises
    ------
    ReproduceError
        For a part that is not one of N.
    """
    if part is None:
        return list(cells)
    index, _, count = part.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise ReproduceError(f"--shard {part!r} is no part", remedy="write 1/2, or 2/2")
    return list(cells[int(index) - 1 :: int(count)])


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text.strip()


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"
