"""Labels of 0 and 1, any number of which apply to a record."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from einthoven.errors import CohortError
from einthoven.records.record import visible_text
from einthoven.tasks.kind import Criterion, Floats, Form, Kind
from einthoven.tasks.task import Matrix, Task, compact, condition_of, negatives, positives

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

_RELATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_PAIRS = {
    "yes": "no",
    "y": "n",
    "true": "false",
    "positive": "negative",
    "present": "absent",
    "+": "-",
    "1": "0",
}
"""Positive and negative values of a binary column, in lower case."""
_WORDS = [*({*pair} for pair in _PAIRS.items() if "1" not in pair), {"female", "male"}, {"f", "m"}]
"""Pairs of values that leave no room for a third one."""
_UNKNOWN = ("", "na", "nan", "unk", "unknown", "missing", "notknown", "notavailable")
"""Letters and digits of cells that name no value, such as `n/a?`."""
_FREQUENT = 5  # cells of a value that is no slip of the pen
_ODD_SHARE = 0.05  # of a column of two values, for the others to be slips
_MOST_SHOWN = 5
_ITEMSIZE = np.dtype(np.float64).itemsize


class Multilabel(Kind):
    """One sigmoid and one binary cross-entropy a label."""

    name: ClassVar[str] = "multilabel"
    form: ClassVar[Form] = "labels"
    summary: ClassVar[str] = "columns of 0 and 1"

    def read(self, task: Task, frame: pd.DataFrame, file: Path) -> tuple[tuple[str, ...], Matrix]:
        """Columns of 0 and 1, or conditions on a column."""
        columns = [self._column(target, frame, file) for target in task.targets]
        shape = (len(frame), len(columns))
        return task.targets, compact(np.column_stack(columns) if columns else np.zeros(shape))

    def numbers(self, task: Task, frame: pd.DataFrame, file: Path) -> dict[str, Floats]:
        """Columns with conditions on a number."""
        conditions = [condition_of(target) for target in task.targets if target not in frame]
        names = [x.column for x in conditions if x is not None and x.relation != "="]
        return {name: numbers(column_of(name, frame, file), file) for name in names}

    def _column(self, target: str, frame: pd.DataFrame, file: Path) -> Floats:
        import pandas as pd

        condition = None if target in frame else condition_of(target)
        if condition is None:
            return self._labels(column_of(target, frame, file), file)
        column = column_of(condition.column, frame, file)
        if condition.relation == "=":
            return _equal(column, condition.value, file)
        values = numbers(column, file)
        limit = pd.to_numeric(condition.value, errors="coerce")
        if not np.isfinite(limit):
            raise CohortError(
                f"target {target!r}: {condition.value!r} is not a number",
                remedy=f"write a number, such as {condition.column!r} {condition.relation} 40",
            )
        holds = _RELATIONS[condition.relation](values, float(limit))
        return np.where(np.isnan(values), np.nan, holds)

    def _labels(self, column: pd.Series[Any], file: Path) -> Floats:
        import pandas as pd

        texts = names_of(column).str.lower().replace({"true": "1", "false": "0"})
        values = pd.to_numeric(texts, errors="coerce").to_numpy(np.float64)
        bad = column.notna().to_numpy() & ~np.isin(values, (0, 1))
        if bad.any():
            name = column.name
            raise CohortError(
                f"{file}: label {name!r} holds {_shown(column, bad)}",
                remedy=_remedy(column, is_slip=bad.sum() < np.isin(values, (0, 1)).sum()),
            )
        return values

    def strata(self, targets: Matrix) -> NDArray[np.uint8]:
        """The labels themselves."""
        return np.asarray(targets == 1, dtype=np.uint8)

    def unscorable(self, targets: Matrix) -> str:
        """No label has both positives and negatives."""
        if ((positives(targets) > 0) & (negatives(targets) > 0)).any():
            return ""
        if targets.shape[1] > 1:
            return "no label has both positives and negatives"
        absent = [("positives", positives(targets)), ("negatives", negatives(targets))]
        return f"the label has no {' and no '.join(name for name, n in absent if not n.any())}"

    def balance(self, targets: Matrix) -> tuple[float, ...]:
        """Negatives over positives; 1 for a label without either."""
        yes, no = positives(targets), negatives(targets)
        return tuple(np.where((yes > 0) & (no > 0), no / np.maximum(yes, 1), 1.0).tolist())

    def losses(self, outputs: Tensor, targets: Tensor, criterion: Criterion) -> Tensor:
        """Binary cross-entropy of every label."""
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits

        has_target = ~targets.isnan()
        weights = outputs.new_tensor(criterion.weights) if criterion.weights else None
        losses = binary_cross_entropy_with_logits(
            outputs, targets.nan_to_num(), reduction="none", pos_weight=weights
        )
        return losses if bool(has_target.all()) else torch.where(has_target, losses, torch.nan)

    def activate(self, outputs: Tensor, task: Task) -> Tensor:
        """Sigmoid."""
        return outputs.sigmoid()

    def start(self, targets: Floats, weights: Floats, task: Task) -> tuple[Floats, Floats]:
        """Log odds of the shares; half a record for a label without positives, or negatives."""
        has_target = ~np.isnan(targets)
        total = (
            weights.sum()
            if has_target.all()
            else np.maximum((weights * has_target).sum(axis=0), 1e-12)
        )
        share = weights[:, 0] @ np.nan_to_num(targets) / total
        is_defined = (share > 0) & (share < 1)
        half = np.minimum(0.5 / total, 0.5)
        share = np.clip(share, half, 1 - half)
        return np.log(share / (1 - share)), is_defined * share * (1 - share)

    def objective(
        self, outputs: Floats, targets: Floats, criterion: Criterion
    ) -> tuple[Floats, Floats]:
        """In closed form."""
        has_target, true = ~np.isnan(targets), np.nan_to_num(targets)
        scale = has_target * np.ones_like(true)
        if criterion.weights:
            scale = scale * np.where(true == 1, np.array(criterion.weights), 1.0)
        return (
            scale * (np.logaddexp(0, outputs) - true * outputs),
            scale * (expit(outputs) - true),
        )


class Binary(Multilabel):
    """One label, also from a column of two values."""

    name: ClassVar[str] = "binary"
    summary: ClassVar[str] = "a column of 0 and 1, or of two values such as yes and no"

    def check(self, task: Task) -> None:
        """More than one target."""
        super().check(task)
        refuse_several(task)

    def _labels(self, column: pd.Series[Any], file: Path) -> Floats:
        texts = names_of(column)
        cells = texts.str.casefold()
        values = set(cells[cells != ""])
        for positive, negative in _PAIRS.items():
            if values <= {positive, negative}:
                return np.where(cells == "", np.nan, cells == positive)
        _refuse_odd(column, texts, file)
        raise CohortError(
            f"{file}: column {column.name!r} holds {', '.join(_usual(texts)[:_MOST_SHOWN])}",
            remedy=_remedy(column),
        )


class Threshold(Multilabel):
    """Labels from conditions on numbers."""

    name: ClassVar[str] = "threshold"
    summary: ClassVar[str] = "a condition on a number, such as lvef <= 40"

    def check(self, task: Task) -> None:
        """A target without a condition on a number."""
        super().check(task)
        for target in task.targets:
            condition = condition_of(target)
            if condition is None or condition.relation == "=":
                raise CohortError(
                    f"task: target {target!r} of a threshold has no limit",
                    remedy=f"write a condition, such as '{target} <= 40'",
                )


def column_of(name: str, frame: pd.DataFrame, file: Path) -> pd.Series[Any]:
    """A column, its empty cells missing; CohortError if there is none."""
    import pandas as pd

    if name not in frame:
        alike = [str(x) for x in frame.columns if str(x).casefold() == name.casefold()]
        raise CohortError(
            f"{file}: no column {[name]}; it has {list(frame.columns[:8])}",
            remedy=f"rename the column {alike[0]!r} to {name!r}"
            if alike
            else "name a column of the table as the target, or rename one",
        )
    column = frame[name]
    if column.dtype == object or isinstance(column.dtype, pd.StringDtype):
        texts = column.astype(str).map(visible_text, na_action="ignore")
        column = column.where(column.notna() & (texts != ""))
    return column


def numbers(column: pd.Series[Any], file: Path) -> Floats:
    """Finite numbers, NaN where the cell is empty; CohortError names a cell that is no number.

    5.6 of 32 bits is 5.6, not 5.599999904: numbers are those that a table of text would hold.
    """
    import pandas as pd

    cells = column
    if isinstance(column.dtype, pd.CategoricalDtype):
        kind = column.cat.categories.dtype
        cells = column.astype(kind if pd.api.types.is_float_dtype(kind) else object)
    if cells.dtype == object:
        cells = cells.map(lambda cell: str(cell) if isinstance(cell, np.floating) else cell)
        cells = cells.infer_objects()
    others = cells[cells.notna()].map(type).isin((bool, np.bool_, complex, np.complex128))
    if others.any():
        example = cells[others.index[others]].iloc[0]
        raise CohortError(
            f"{file}: column {column.name!r} holds {example!r}, which is no number",
            remedy="choose a column of numbers; true and false are a label of their own",
        )
    if cells.dtype.kind in "mM" or isinstance(cells.dtype, pd.PeriodDtype):
        raise CohortError(
            f"{file}: column {column.name!r} holds dates or durations, not numbers",
            remedy="add a column of numbers, such as the year, or the days since another date",
        )
    if pd.api.types.is_float_dtype(cells):
        bits: Any = cells.dtype  # of numpy, pandas or Arrow, all of which have a size
        floats = cells.to_numpy(f"f{bits.itemsize}", na_value=np.nan)
        values = (floats.astype(str) if bits.itemsize < _ITEMSIZE else floats).astype(np.float64)
    else:
        values = pd.to_numeric(cells, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    bad = column.notna().to_numpy() & ~np.isfinite(values)
    if bad.any():
        raise CohortError(
            f"{file}: column {column.name!r} holds {_shown(column, bad)}",
            remedy="write numbers with a decimal point and no unit, and leave unknown cells empty",
        )
    return values


def names_of(column: pd.Series[Any]) -> pd.Series[str]:
    """Names in a column, the empty string where the cell is empty; 1.0 is called 1.

    They have neither invisible characters nor several blanks in a row. Numbers keep all their
    digits: classes may be codes, such as 164889003 of SNOMED CT.
    """
    import pandas as pd

    texts = column.astype(str).map(name_of, na_action="ignore").where(column.notna(), "")
    if pd.api.types.is_float_dtype(column):  # also whole numbers in a column with empty cells
        whole = (column % 1 == 0).fillna(False).astype(bool)
        return texts.where(~whole, column.where(whole, 0).map(int).astype(str))
    return texts


def name_of(text: str) -> str:
    """A value or class without invisible characters and several blanks in a row."""
    return " ".join(visible_text(text).split())


def refuse_spellings(
    column: pd.Series[Any], texts: pd.Series[str], file: Path, names: Sequence[str] = ()
) -> None:
    """Refuse values that differ from a name in case, blanks, hyphens or final punctuation only.

    `names` are the classes or values that were named, two of which may differ in this way; default:
    the most frequent spelling of each value.
    """
    counts = texts[texts != ""].value_counts()
    spellings = {_letters(name): name for name in names or reversed(counts.index)}
    for other, count in counts.items():
        name = spellings.get(_letters(str(other)), other)
        if other != name and other not in names:
            raise CohortError(
                f"{file}: column {column.name!r}: {other!r} in {count} row{'s' * (count > 1)} "
                f"differs from {name!r} only in case, blanks or punctuation",
                remedy="write each value in one way, or, if they are different classes, name all "
                "of them: classes in a task.toml",
            )


def _letters(name: str) -> str:
    """What tells a name from others: `AF-RVR.` and `af rvr` are one, `O+` and `O-`, 1.1 and 11 not.

    A hyphen remains between digits and at the ends.
    """
    text = re.sub(r"(?<=\d)[\s_-]+(?=\d)", "-", name.casefold().rstrip(".,;:"))
    return re.sub(r"[\s_]+|(?<=[^\W\d])-(?=\w)|(?<=\w)-(?=[^\W\d])", "", text)


def _shown(column: pd.Series[Any], bad: NDArray[np.bool_]) -> str:
    """The first of some cells, with its rows, and how many cells of other values follow."""
    texts = column[bad].astype(str)
    same = int((texts == texts.iloc[0]).sum())
    rows = "1 row" if same == 1 else f"{same} rows, the first"
    others = len(texts) - same
    more = f", and {others} more cell{'s' * (others > 1)} like it" if others else ""
    return f"{texts.iloc[0]!r} in {rows} (row {int(bad.argmax()) + 1} below the header){more}"


def _equal(column: pd.Series[Any], value: str, file: Path) -> Floats:
    """Cells of one value, however it is capitalised; the others are negatives."""
    texts = names_of(column)
    holds = texts.str.casefold() == name_of(value).casefold()
    if not holds.any():
        raise CohortError(
            f"{file}: no cell of column {column.name!r} is {value!r}",
            remedy=f"choose one of its values: {', '.join(_usual(texts)[:_MOST_SHOWN])}",
        )
    _refuse_odd(column, texts, file)
    refuse_spellings(column, texts, file, sorted(set(texts[holds])))
    return np.where(texts == "", np.nan, holds)


def _nameless(texts: pd.Series[str]) -> pd.Series[bool]:
    """Cells that name no value, such as `n/a?` or `unknown`."""
    cells = texts.str.casefold()
    bare = cells.str.replace(r"[\W_]+", "", regex=True)
    is_sign = cells.isin(("+", "-")) & bool((cells == "+").any())
    return (cells != "") & bare.isin(_UNKNOWN) & ~is_sign


def _odd(texts: pd.Series[str]) -> pd.Series[bool]:
    """Cells that are no value of their column, such as `n/a?` among yes and no.

    They name no value; or all but a few cells are one of two values, and they are neither.
    """
    cells = texts.str.casefold().mask(_nameless(texts), "")
    counts = cells[cells != ""].value_counts()
    pair = next((words for words in _WORDS if words <= set(counts.index)), None)
    if pair is None and len(counts) > 2 and counts.iloc[1] >= _FREQUENT > counts.iloc[2]:
        are_slips = counts.iloc[2:].max() == 1 or set(counts.index[:2]) == {"0", "1"}
        if are_slips and counts.iloc[2:].sum() <= _ODD_SHARE * counts.sum():
            pair = set(counts.index[:2])
    return (texts != "") & ~cells.isin(pair or set(counts.index))


def refuse_nameless(column: pd.Series[Any], texts: pd.Series[str], file: Path) -> None:
    """Refuse cells that name no class."""
    if (nameless := _nameless(texts).to_numpy()).any():
        raise CohortError(
            f"{file}: column {column.name!r} holds {_shown(column, nameless)}",
            remedy="leave the cell empty if it is not known, or name all classes: classes in a "
            "task.toml",
        )


def _refuse_odd(column: pd.Series[Any], texts: pd.Series[str], file: Path) -> None:
    odd = _odd(texts).to_numpy()
    if odd.any():
        usual = _usual(texts)
        raise CohortError(
            f"{file}: column {column.name!r} holds {_shown(column, odd)}",
            remedy=f"write {' or '.join(usual)}, or leave the cell empty if it is not known"
            if len(usual) == 2
            else "leave the cell empty if it is not known",
        )


def _usual(texts: pd.Series[str]) -> list[str]:
    """Values of a column, the most frequent first, without the odd ones."""
    values = texts[(texts != "") & ~_odd(texts)].value_counts()
    return list(dict(zip(values.index.str.casefold(), values.index, strict=True)).values())


def _remedy(column: pd.Series[Any], *, is_slip: bool = False) -> str:
    """How a column that holds other values than 0 and 1 can be predicted.

    `is_slip` says that most of its cells are 0 or 1.
    """
    import pandas as pd

    name, usual = column.name, _usual(names_of(column))
    if is_slip:
        return "write 0 or 1, or leave the cell empty if it is not known"
    others = "or name other columns: `task=Task(target=COLUMN)`"
    if {value.casefold() for value in usual} in [{*pair} for pair in _PAIRS.items()]:
        return f"predict it: `task=Task(kind='binary', target={name!r})`, {others}"
    if not pd.to_numeric(pd.Series(usual), errors="coerce").isna().any():
        return (
            f"predict it: `task=Task(kind='regression', target={name!r})`, or a limit such as "
            f"`task=Task(target={f'{name} <= 40'!r})`; {others}"
        )
    if len(usual) == 2:  # the rarer one
        value = f"{name} = {usual[1]}"
        return f"name the positive value: `task=Task(target={value!r})`, {others}"
    if len(usual) > 2 and len(column) > _FREQUENT * len(usual):
        return (
            f"predict it: `task=Task(kind='multiclass', target={name!r})`, or one value against "
            f"the others, such as `task=Task(target={f'{name} = {usual[1]}'!r})`; {others}"
        )
    return "name the columns that are predicted: `task=Task(target=COLUMN)`"


def refuse_several(task: Task) -> None:
    if len(task.targets) > 1:
        raise CohortError(
            f"task: {task.kind} has one target, not {len(task.targets)}",
            remedy="name one column, or choose multilabel",
        )
