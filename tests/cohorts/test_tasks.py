"""Tasks: what is read from a table, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from einthoven import Task, open_cohort
from einthoven.cohorts.cohort import CohortWarning, far_values
from einthoven.errors import CohortError, RecipeError
from einthoven.tasks import Criterion, kind_names, kind_of

FRAME = pd.DataFrame(
    {
        "path": [f"{i}.hea" for i in range(8)],
        "patient": [str(i) for i in range(8)],
        "split": ["train"] * 4 + ["validation"] * 2 + ["test"] * 2,
        "AF": [1, 0, None, 1, 0, 1, 0, 1],
        "MI": [0, 0, None, 1, None, 1, 0, 1],
        "rhythm": ["SR", "AF", None, "SR", "PACE", "SR", "AF", ""],
        "lvef": [60.0, 35, None, 40, 41, 55, 20, 30],
        "urgent": ["Yes", "no", "", "no", "yes", "no", "no", "yes"],
        "sex": ["m", "f", "m", "f", None, "m", "f", "m"],
    }
)


def matrix(**task: object) -> list[list[float]]:
    cohort = open_cohort(FRAME, task=Task(**task))  # type: ignore[arg-type]
    return np.where(np.isnan(cohort.matrix), -1, cohort.matrix).tolist()


def test_an_empty_cell_is_not_known_and_a_record_without_any_is_left_out() -> None:
    cohort = open_cohort(FRAME, labels=["AF", "MI"])
    assert matrix(target=("AF", "MI")) == [
        [1, 0], [0, 0], [1, 1], [0, -1], [1, 1], [0, 0], [1, 1],
    ]  # fmt: skip
    assert cohort.left_out == {"without a known target": 1}
    assert cohort.counts().loc["MI"].tolist() == [1, 1, 1]
    assert cohort.with_labels(["MI"]).left_out == {"without a known target": 2}


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ({"target": "lvef <= 40"}, [0, 1, 1, 0, 0, 1, 1]),
        ({"kind": "threshold", "target": "lvef<41"}, [0, 1, 1, 0, 0, 1, 1]),
        ({"kind": "binary", "target": "urgent"}, [1, 0, 0, 1, 0, 0, 1]),
        ({"kind": "binary", "target": "sex = f"}, [0, 1, 0, 1, 0, 1, 0]),
        ({"kind": "binary", "target": "AF"}, [1, 0, 1, 0, 1, 0, 1]),
    ],
)
def test_one_label(task: dict[str, str], expected: list[int]) -> None:
    assert [row[0] for row in matrix(**task)] == expected


def test_classes_are_one_hot_in_the_order_of_their_names() -> None:
    cohort = open_cohort(FRAME, task=Task(kind="multiclass", target="rhythm"))
    assert cohort.labels == ("AF", "PACE", "SR")
    assert cohort.target.classes == cohort.labels
    assert cohort.matrix.sum(axis=1).tolist() == [1] * 6
    chosen = open_cohort(FRAME, task=Task(kind="multiclass", target="rhythm", classes=("SR", "AF")))
    assert (chosen.labels, len(chosen)) == (("SR", "AF"), 5)


def test_a_cell_that_names_no_class_is_refused() -> None:
    frame = people(rhythm=["AF", "SR", "n/a?", "SR"] * 9)
    with pytest.raises(CohortError, match=r"'n/a\?' in 9 rows\b.*\brow 3\b"):
        open_cohort(frame, task=Task(kind="multiclass", target="rhythm"))
    stated = Task(kind="multiclass", target="rhythm", classes=("AF", "SR"))
    assert open_cohort(frame, task=stated).left_out


@pytest.mark.parametrize("other", ["af", "A F", "Af.", "a_f", "a-f"])
def test_classes_that_differ_by_spelling_are_refused(other: str) -> None:
    """Unless both are named; a condition accepts other capitals, and refuses the others."""
    frame = people(x=["AF"] * 12 + [other] * 6 + ["SR"] * 18)
    for classes in ((), ("AF", "SR")):
        with pytest.raises(CohortError) as error:
            open_cohort(frame, task=Task(kind="multiclass", target="x", classes=classes))
        assert f"{other!r} in 6 rows" in error.value.problem
    named = Task(kind="multiclass", target="x", classes=("AF", other, "SR"))
    assert open_cohort(frame, task=named).matrix.sum(axis=0).tolist() == [12, 6, 18]
    if other == "af":
        assert open_cohort(frame, task=Task(target="x = AF")).matrix.sum() == 18
    else:
        with pytest.raises(CohortError, match=repr(other)):
            open_cohort(frame, task=Task(target="x = AF"))


def test_classes_that_differ_in_a_sign_or_a_digit_are_different() -> None:
    names = ["+1", "-1", "1-1", "11", "1.1", "O+", "O-", "ST", "ST-T", "V1", "V-11"]
    cohort = open_cohort(people(x=names * 3), task=Task(kind="multiclass", target="x"))
    assert set(cohort.labels) == set(names)


@pytest.mark.parametrize("form", ["AF\u200b", "\ufeffAF", "\uff21F", "A\u00adF\u00a0"])
def test_invisible_characters_make_no_other_value(form: str) -> None:
    frame = people(x=["AF"] * 12 + [form] * 6 + ["SR"] * 15 + ["\u200b"] * 3)
    cohort = open_cohort(frame, task=Task(kind="multiclass", target="x"))
    assert (cohort.labels, cohort.matrix.sum(axis=0).tolist()) == (("AF", "SR"), [18, 15])
    for target in ("x = AF", f"x = {form}"):
        assert open_cohort(frame, task=Task(target=target)).matrix.sum() == 18
    label = people(x=["1", "1\u200b", "0", "\u200b"] * 9)
    assert open_cohort(label).matrix.tolist() == [[1], [1], [0]] * 9


@pytest.mark.parametrize("gap", [[], [None]])
def test_codes_of_classes_keep_their_digits(gap: list[None]) -> None:
    codes = [164889003, 164889004, 1200002, 1200001]
    frame = people(code=[*codes, *gap] * 9)
    cohort = open_cohort(frame, task=Task(kind="multiclass", target="code"))
    assert cohort.labels == tuple(sorted(map(str, codes)))
    label = open_cohort(frame, task=Task(kind="binary", target="code = 164889003"))
    assert (label.matrix == 1).sum() == 9
    halves = open_cohort(people(x=[0.5, 1.0, 2.5] * 9), task=Task(kind="multiclass", target="x"))
    assert halves.labels == ("0.5", "1", "2.5")


def test_numbers_keep_their_unit() -> None:
    cohort = open_cohort(FRAME, task=Task(kind="regression", target="lvef", unit="%"))
    assert cohort.matrix[:, 0].tolist() == [60, 35, 40, 41, 55, 20, 30]
    assert cohort.target.units(1) == ("%",)
    fitted = cohort.target.fitted(cohort.targets("train"))
    assert (fitted.mean, fitted.scale) == ((45.0,), (pytest.approx(10.801, abs=1e-3),))


@pytest.mark.parametrize("offset", [1e9, -1e9, 1e300])
def test_numbers_whose_differences_32_bits_lose_are_refused(offset: float) -> None:
    draw = np.random.default_rng(0).normal(size=30)
    task = Task(kind="regression", target="x")
    with pytest.raises(CohortError, match="'x'"):
        open_cohort(people(x=list(draw * max(1, abs(offset) / 1e10) + offset)), task=task)
    assert len(np.unique(open_cohort(people(x=list(draw + 1e4)), task=task).matrix)) == 30


@pytest.mark.parametrize("kind", ["float16", "float32", "Float32", "object", "category"])
def test_a_limit_is_compared_with_numbers_of_fewer_bits_as_with_text(kind: str) -> None:
    numbers = pd.Series([5.6, 0.4, None, 5.59] * 9)
    narrow = numbers.astype("float16" if kind == "float16" else "float32")
    cells = pd.Series(list(narrow.to_numpy()), dtype=object) if kind == "object" else narrow
    frame = people(x=cells.astype(kind))
    for target, positives in {"x >= 5.6": 9, "x <= 0.4": 9, "x > 5.6": 0, "x < 0.4": 0}.items():
        task = Task(kind="threshold", target=target)
        expected = open_cohort(people(x=numbers), task=task)
        assert open_cohort(frame, task=task).digest == expected.digest
        assert (expected.matrix == 1).sum() == positives


@pytest.mark.parametrize("unit", ["s", "ns"])
@pytest.mark.parametrize("read", [pd.to_datetime, pd.to_timedelta])
def test_dates_and_durations_are_no_numbers(
    tmp_path: Path, unit: str, read: Callable[..., Any]
) -> None:
    """Their nanoseconds since 1970 are above every limit."""
    cells = read(pd.Series([1, 2, None] * 9), unit=unit)
    people(x=cells).to_parquet(tmp_path / "own.parquet")
    for task in (Task(target="x >= 2020"), Task(kind="regression", target="x")):
        for source in (tmp_path / "own.parquet", people(x=cells), people(x=cells.astype(object))):
            with pytest.raises(CohortError, match="'x'"):
                open_cohort(source, task=task)


@pytest.mark.parametrize("cell", [True, np.True_, 1 + 2j])
def test_truth_values_and_complex_numbers_are_no_numbers(cell: object) -> None:
    for cells in ([cell] * 30, [cell, None, *[cell] * 28], [1.5, cell, *[2.5] * 28]):
        for task in (Task(target="x <= 40"), Task(kind="regression", target="x")):
            with pytest.raises(CohortError, match="'x'"):
                open_cohort(people(x=cells), task=task)


def test_values_that_mostly_occur_once_are_no_classes() -> None:
    values = np.linspace(20, 80, 30)
    with pytest.raises(CohortError, match="30 of the 30"):
        open_cohort(people(x=values), task=Task(kind="multiclass", target="x"))
    cohort = open_cohort(people(x=np.arange(30) // 2 + 1), task=Task(kind="multiclass", target="x"))
    assert len(cohort.labels) == 15


def test_a_file_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "task.toml").write_text('kind = "regression"\ntarget = "lvef"\nunit = "%"\n')
    assert Task.load(tmp_path / "task.toml") == Task(kind="regression", target="lvef", unit="%")
    (tmp_path / "task.toml").write_text('kind = "regression"\ntarget = "lvef"\nunits = "%"\n')
    with pytest.raises(CohortError, match=r"task\.toml.*'units'"):
        Task.load(tmp_path / "task.toml")


@pytest.mark.parametrize(
    "task",
    [
        {"kind": "regresion", "target": "lvef"},
        {"kind": "regression"},
        {"kind": "regression", "target": "rhythm"},
        {"kind": "regression", "target": "nope"},
        {"kind": "multiclass", "target": ("rhythm", "sex")},
        {"kind": "multiclass", "target": "rhythm", "classes": ("SR",)},
        {"kind": "multiclass", "target": "rhythm", "unit": "%"},
        {"kind": "binary", "target": "rhythm"},
        {"kind": "binary", "target": "sex = w"},
        {"kind": "threshold", "target": "lvef"},
        {"target": "lvef"},
        {"target": "lvef <= low"},
        {"target": "lvef", "unit": "%"},
    ],
)
def test_what_makes_no_task_is_refused(task: dict[str, object]) -> None:
    with pytest.raises(CohortError):
        open_cohort(FRAME, task=Task(**task))  # type: ignore[arg-type]


def test_a_cell_that_is_no_number_is_named(tmp_path: Path) -> None:
    FRAME.assign(lvef=["60", "35", "", "n/a?", "41", "55", "20", "30"]).to_csv(
        tmp_path / "own.csv", index=False
    )
    with pytest.raises(CohortError, match=r"'lvef'.*'n/a\?'.*\b4\b"):
        open_cohort(tmp_path / "own.csv", task=Task(kind="regression", target="lvef"))


def people(**columns: list[object]) -> pd.DataFrame:
    count = len(next(iter(columns.values())))
    names = [f"{i}" for i in range(count)]
    return pd.DataFrame({"path": names, "patient": names, **columns})


@pytest.mark.parametrize(
    ("cells", "target", "odd"),
    [
        (["yes", "no"] * 15 + ["n/a?"], "x = yes", "n/a?"),
        (["yes", "no"] * 15 + ["n/a?"], "x = n/a?", "n/a?"),
        (["Yes", "NO"] * 15 + ["maybe"] * 3, "x = yes", "maybe"),
        (["female", "male"] * 15 + ["fem."], "x = female", "fem."),
        (["true", "false"] * 15 + ["?"], "x = false", "?"),
        (["AF"] * 6 + ["SR"] * 30 + ["SRR"], "x = AF", "SRR"),
        ([1] * 6 + [0] * 90 + [9] * 2, "x = 1", "9"),
        (["AF"] * 6 + ["SR", "PACE", "WPW"] * 10 + ["unknown"], "x = AF", "unknown"),
    ],
)
def test_an_odd_cell_of_a_condition_is_refused(cells: list[str], target: str, odd: str) -> None:
    with pytest.raises(CohortError) as error:
        open_cohort(people(x=cells), task=Task(kind="binary", target=target))
    assert f"'{odd}'" in error.value.problem
    assert str(cells.index(type(cells[0])(odd)) + 1) in error.value.problem
    assert odd not in error.value.remedy
    with pytest.raises(CohortError) as error:
        open_cohort(people(x=cells), task=Task(kind="binary", target="x"))
    assert odd not in error.value.remedy


@pytest.mark.parametrize(
    ("cells", "target", "positives"),
    [
        (["AF"] * 6 + ["SR"] * 30 + ["PACE"] * 2, "x = AF", 6),
        (["af"] * 6 + ["AF"] * 3 + ["SR"] * 30, "x = AF", 9),
        (["WPW"] * 2 + ["SR"] * 30 + ["AF"] * 9, "x = WPW", 2),
        ([0, 1, 2, 3] * 9, "x = 1", 9),
        (["+", "-"] * 9, "x = +", 9),
    ],
)
def test_other_values_of_a_condition_are_negatives(
    cells: list[str], target: str, positives: int
) -> None:
    cohort = open_cohort(people(x=cells), task=Task(target=target))
    assert (len(cohort), cohort.matrix.sum()) == (len(cells), positives)


@pytest.mark.parametrize(
    ("cells", "named"),
    [
        (["yes", "no"] * 9, "kind='binary'"),
        (["ill", "well", "well"] * 9, "x = ill"),
        (["AF", "SR", "SR", "PACE"] * 9, "kind='multiclass'"),
        ([40, 50, 60] * 9, "kind='regression'"),
        ([0, 1] * 9 + [9], "0 or 1"),
    ],
)
def test_the_remedy_for_other_cells_than_0_and_1_fits_the_column(
    cells: list[object], named: str
) -> None:
    with pytest.raises(CohortError) as error:
        open_cohort(people(x=cells))
    assert named in error.value.remedy


def test_far_values_are_named() -> None:
    draw = np.random.default_rng(0)
    ages = draw.normal(60, 15, 300).clip(18, 95).round()
    ages[[7, 90]] = 300
    with pytest.warns(CohortWarning, match=r"2 of 300.*300.*'7'"):
        open_cohort(people(years=list(ages)), task=Task(kind="regression", target="years"))


@pytest.mark.parametrize("code", [-1, 0.57, 999])
def test_codes_and_fractions_behind_a_condition_are_named(code: float) -> None:
    percents = np.random.default_rng(0).normal(55, 10, 200).round()
    percents[[7, 90]] = code
    targets = ("lvef <= 40", "lvef <= 50")
    for kind in ("threshold", "multilabel"):
        with pytest.warns(CohortWarning, match=rf"2 of 200.* lvef .*{code} of .*'7'") as caught:
            open_cohort(people(lvef=list(percents)), task=Task(kind=kind, target=targets))
        assert len(caught) == 1


@pytest.mark.parametrize(
    "values",
    [
        lambda draw: draw.normal(400, 30, 300) + draw.exponential(30, 300),  # QT
        lambda draw: np.where(draw.random(300) < 0.2, 30, 60) + draw.normal(0, 8, 300),  # LVEF
        lambda draw: draw.normal(62, 18, 300).clip(0, 95),  # ages
        lambda draw: np.exp(draw.normal(6, 1.2, 300)),  # NT-proBNP
    ],
)
def test_tails_are_not_far(values: Callable[[np.random.Generator], Any]) -> None:
    drawn = values(np.random.default_rng(0))
    assert not far_values(drawn).any()
    drawn[3], drawn[5], drawn[6] = np.nan, 99999999, -9999
    assert np.flatnonzero(far_values(drawn)).tolist() == [5, 6]


def test_the_reason_that_a_split_cannot_be_scored() -> None:
    labels = kind_of("multilabel")
    assert labels.unscorable(np.array([[1], [0]])) == ""
    assert "negatives" in labels.unscorable(np.array([[1], [1]]))
    assert "positives" not in labels.unscorable(np.array([[1], [1]]))
    assert labels.unscorable(np.zeros((3, 2)))


def test_numbers_are_stratified_by_fifths() -> None:
    values = np.arange(500, dtype=np.float32)[:, None]
    strata = kind_of("regression").strata(values)
    assert strata.shape == (500, 5)
    assert strata.sum(axis=0).tolist() == [100] * 5
    assert strata[:100, 0].all()


def test_weights() -> None:
    labels = np.array([[1, 0], [0, np.nan], [0, 0], [0, 1]], dtype=np.float32)
    assert Criterion.of(Task(), labels, pos_weight="balanced").weights == (3.0, 2.0)
    classes = np.eye(2, dtype=np.uint8)[[0, 0, 0, 1]]
    task = Task(kind="multiclass", target="x")
    assert Criterion.of(task, classes, pos_weight="balanced").weights == (
        pytest.approx(2 / 3),
        2.0,
    )
    with pytest.raises(RecipeError):
        Criterion.of(Task(), labels, pos_weight=(2.0,))
    with pytest.raises(RecipeError):
        Criterion.of(Task(kind="regression", target="x"), labels, pos_weight=(2.0, 1.0))
    number = Criterion.of(Task(kind="regression", target="x"), labels[:, :1], pos_weight="balanced")
    assert number.weights == ()


def test_an_age_is_in_years_also_as_a_target() -> None:
    frame = FRAME.assign(age=["88 y", "40", "300", "", "41.5", "50", "60", "70"])
    with pytest.warns(CohortWarning):
        cohort = open_cohort(frame, task=Task(kind="regression", target="age", unit="years"))
    assert cohort.matrix[:, 0].tolist() == [88, 40, 41.5, 50, 60, 70]


def test_every_kind_has_a_name_and_metrics_of_its_form() -> None:
    assert kind_names()[:5] == ["multilabel", "binary", "threshold", "multiclass", "regression"]
    for name in kind_names():
        assert bool(kind_of(name).columns) == (kind_of(name).form != "labels")
