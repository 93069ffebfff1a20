"""The page is well-formed and self-contained, and its numbers are those of its JSON."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from einthoven.errors import EvaluationError
from einthoven.files import Json, read_json, write_json
from einthoven.predictions import Predictions
from einthoven.records.record import Record
from einthoven.report.data import report_data
from einthoven.report.description import UNKNOWN
from einthoven.report.page import build_page, write_report
from einthoven.report.tables import (
    MEASURES,
    evaluation_tables,
    fitted_on,
    kind_of_intervals,
    macro_name,
)

VOID = {"meta", "br", "hr", "link", "img", "input"}
SECTIONS = {"summary", "results", "differences", "training", "labels", "examples", "provenance"}
PARTS = ("population", "curves", "calibration", "subgroups", "robustness")


class Page(HTMLParser):
    """The contents of a page; every tag must be balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.numbers: list[tuple[float, str]] = []
        self.words: list[str] = []
        self._number: float | None = None
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "data":
            self._number = float(dict(attrs)["value"] or "nan")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self._number is not None:
            self.numbers.append((self._number, data))
            self._number = None

    def values(self, name: str) -> list[str]:
        """The values of an attribute."""
        return [value for _, key, value in self.attributes if key == name]

    @property
    def shown(self) -> set[float]:
        """The numbers of `<data>` elements."""
        return {value for value, _ in self.numbers}

    @property
    def text(self) -> str:
        """The visible text, in one line."""
        return " ".join("".join(self.words).split())


def with_first(data: Json, **changes: Any) -> Json:
    """The report with changes of its first run, without examples."""
    first, *others = data["runs"]
    return data | {"runs": [first | changes, *others], "examples": [], "gallery": None}


def numbers_in(value: Any) -> Iterator[float]:
    """All numbers of nested dictionaries and lists."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from numbers_in(each)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)


@pytest.fixture(scope="module")
def data(
    report: Json,
    evaluation: Json,
    examples: tuple[list[Json], list[Record]],
    gallery: tuple[Json, list[Record]],
    labels: tuple[str, ...],
) -> Json:
    """A report with everything, and with text that must be escaped."""
    data = copy.deepcopy(report)
    data |= {"title": "A <title> & more", "examples": examples[0]}
    data["gallery"] = gallery[0]
    data["descriptions"] = {labels[0]: "normal <ECG>"}
    data["runs"][0]["evaluation"] = {part: evaluation[part] for part in PARTS}
    return data


@pytest.fixture(scope="module")
def text(
    data: Json, examples: tuple[list[Json], list[Record]], gallery: tuple[Json, list[Record]]
) -> str:
    return build_page(data, examples[1] + gallery[1])


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_ids_are_unique_and_every_reference_has_its_target(text: str, page: Page) -> None:
    ids = page.values("id")
    assert [each for each, times in Counter(ids).items() if times > 1] == []
    references = [value[1:] for value in page.values("href")] + page.values("aria-labelledby")
    references += re.findall(r"url\(#([^)]+)\)", text)
    assert set(references) <= set(ids)
    assert SECTIONS | {*PARTS, "limitations", "table-auroc", "figure-training"} <= set(ids)


def test_the_page_is_self_contained(text: str, page: Page) -> None:
    assert not page.tags.keys() & {"script", "link", "img", "iframe", "object", "base", "form"}
    loads = [v for _, key, v in page.attributes if key in ("href", "src", "srcset", "action")]
    assert all(value.startswith("#") for value in loads)
    assert not [key for _, key, _ in page.attributes if key.startswith("on")]
    assert set(re.findall(r"https?://[^\s\"<]+", text)) == {"http://www.w3.org/2000/svg"}
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert len(text) < 3e6


def test_every_number_on_the_page_is_in_the_json(data: Json, page: Page) -> None:
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert len(page.numbers) > 200
    assert page.shown <= set(numbers_in(data))
    for value, shown in page.numbers:
        if re.fullmatch(r"[+−]?\d\.\d{3}", shown):
            assert float(shown.replace("−", "-")) == pytest.approx(value, abs=5.01e-4)


def test_the_numbers_of_the_results_are_on_the_page(data: Json, page: Page) -> None:
    for run in data["runs"]:
        score = run["score"]
        for key in ("auroc", "auprc"):
            assert {score[f"macro_{key}"], *score[f"macro_{key}_interval"]} <= page.shown
            assert score[f"macro_{key}_bias"] in page.shown
    labels = data["runs"][0]["score"]["per_label"].values()
    assert {entry[key] for entry in labels for key in ("auroc", "auprc")} <= page.shown
    for pair in data["comparisons"]:
        assert {pair["auroc"]["macro"], pair["auprc"]["relative_gain"]} <= page.shown
    calibration = data["runs"][0]["evaluation"]["calibration"]
    for kind, name in (("macro", "log_loss"), ("micro", "ece_mass"), ("macro", "ece_width")):
        assert {calibration[when][kind][name] for when in ("before", "after")} <= page.shown
    assert calibration["change"]["brier"]["difference"] in page.shown
    assert calibration["decisions"]["NORM"]["threshold"] in page.shown
    assert {-0.0515, 0.3125, 0.845, 777, 47, 0.025} <= page.shown
    assert page.tags["caption"] == page.tags["table"] == 21


def test_hostile_names_are_text(text: str, page: Page, labels: tuple[str, ...]) -> None:
    assert "<script" not in text
    assert "<b>odd" not in text
    assert page.text.count(labels[2]) > 5
    for each in (
        "A <title> & more",
        "normal <ECG>",
        "<b>odd</b>",
        "LONG|PIPE",
        "patient p<3>",
        "<i>2",
    ):
        assert each in page.text


def test_calls_are_in_words_and_names_are_those_of_the_table(text: str, page: Page) -> None:
    assert "MRN-4711" not in text
    assert "Jane Doe" not in text
    assert "9f9f9f9f9f9f9f9f" in page.text
    assert {0.0625, 0.125, 0.96875, 0.53125, 0.375} <= page.shown
    rows = re.findall(r"<tr>(.*?)</tr>", text)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]
    assert ["absent", "present", "<strong>missed</strong>"] in [row[-3:] for row in cells]
    assert ["no threshold", "present", ""] in [row[-3:] for row in cells]
    assert sum(row[3:5] == ["false alarm", "absent"] for row in cells) == 3
    assert {row[-1] for row in cells if "false alarm" in row} == {
        "no warning", "not read", "I is flat &amp; loose",
    }  # fmt: skip
    # Two records are among the examples, and the third is drawn in the gallery.
    assert [v for v in page.values("href") if "ecg" in v] == ["#ecg-0", "#ecg-1", "#ecg-2"]


def test_provenance_is_complete(page: Page) -> None:
    for fact in ("cd" * 32, "ef" * 32, "ab" * 32, "stage2.drop_path", "2.13.0", "1 h 23 min"):
        assert fact in page.text
    assert "einthoven posttrain 'my data' --out post-training" in page.text


@pytest.mark.parametrize("part", [None, *PARTS])
def test_sections_follow_the_evaluation(data: Json, evaluation: Json, part: str | None) -> None:
    parts = {part: evaluation[part]} if part else {}
    page = Page(build_page(with_first(data, evaluation=parts)))
    assert set(page.values("id")) & set(PARTS) == set(parts)


def test_a_calibration_that_was_not_fitted_has_no_decisions(data: Json, evaluation: Json) -> None:
    bare = evaluation["calibration"] | {"after": None, "change": {}, "decisions": {}}
    assert "table-confusion" not in build_page(with_first(data, evaluation={"calibration": bare}))


def test_a_calibration_of_thresholds_only_has_calls_and_no_change(
    data: Json, evaluation: Json
) -> None:
    measured = evaluation["calibration"]
    bare = {**measured, "after": None, "change": {}, "fit": {"temperatures": False}}
    made = evaluation_tables({"calibration": bare}, 5)
    assert [len(row) for row in made["calibration_table"].rows] == [2] * len(MEASURES)
    assert len(made["decision_tables"]) == 2
    page = Page(build_page(with_first(data, evaluation={"calibration": bare})))
    assert {"table-confusion", "table-rates"} <= set(page.values("id"))
    assert measured["before"]["macro"]["brier"] in page.shown
    assert measured["after"]["macro"]["brier"] not in page.shown


@pytest.mark.parametrize(
    ("fit", "words"), [({"split": "out of fold", "records": 280}, "280"), (None, "validation")]
)
def test_the_records_of_a_calibration_are_those_of_its_fit(fit: Json | None, words: str) -> None:
    assert words in fitted_on({"cross_fitted": False, "fit": fit})


def test_a_single_label_has_no_macro_values_and_a_single_epoch_no_figure(data: Json) -> None:
    score = data["runs"][0]["score"]
    one = score | {"per_label": {"NORM": score["per_label"]["NORM"]}, "defined_labels": 1}
    training = data["runs"][0]["training"]
    short = training | {"history": training["history"][:1]}
    alone = with_first(data, score=one, training=short, evaluation={}) | {"comparisons": []}
    alone |= {"runs": alone["runs"][:1], "reference": None}
    page = Page(build_page(alone))
    assert not re.search("macro", page.text.partition("Reporting checklists")[0], re.IGNORECASE)
    assert page.tags["svg"] == 0
    assert "training" not in page.values("id")
    for labels, name in ((1, "AUROC"), (2, "Macro AUROC")):
        assert macro_name("auroc", labels) == name


def test_an_exact_interval_is_not_called_percentile(report: Json) -> None:
    score = report["runs"][0]["score"]
    entry = score["per_label"]["NORM"]
    values = {auroc: {"A": entry | {"auroc": auroc}} for auroc in (1.0, 0.9)}
    for auroc, per_label in values.items():
        kinds = kind_of_intervals(score | {"macro_auroc": auroc, "per_label": per_label})
        assert ("exact" in kinds, "percentile" in kinds) == (auroc == 1, auroc < 1)


def test_one_run_has_no_differences(runs: dict[str, Path]) -> None:
    data, _ = report_data({"One": runs["post-training"]}, "One", resamples=40)
    page = Page(build_page(data))
    assert not {"differences", "examples", "table-paired"} & set(page.values("id"))
    assert page.tags["svg"] == 1


def test_a_run_without_history_resamples_or_patients(runs: dict[str, Path], tmp_path: Path) -> None:
    """One label has no positives."""
    bare = shutil.copytree(runs["post-training"], tmp_path / "bare")
    shutil.rmtree(bare / "stage2")
    request = {"recipe": {"name": "bare"}, "labels": ["LAO/LAE"]}
    command = ["/usr/bin/einthoven", "--label", "LAO/LAE"]
    write_json(bare / "run.json", {"request": request, "command": command})
    table = Predictions.load(bare / "predictions" / "test.parquet")
    targets = table.require_targets() * np.array([0, 1, 1, 1, 1], dtype=np.uint8)
    changed = replace(table, targets=targets, patients=np.full(len(table), ""))
    changed.save(bare / "predictions" / "test.parquet")
    out = write_report([bare], tmp_path / "page.html", resamples=0)
    page, data = Page(out.read_text()), read_json(out.with_suffix(".json"))
    assert data["runs"][0]["training"]["best"] == {}
    assert data["runs"][0]["command"] == "einthoven --label LAO/LAE"  # a label is not a path
    assert data["runs"][0]["patients"] is None
    assert "training" not in page.values("id")
    assert UNKNOWN in page.text
    assert "None" not in page.text
    assert "nan" not in page.text.lower().split()


def test_simulated_ecgs_are_named_as_such(data: Json) -> None:
    pages = [build_page(with_first(data, synthetic=x)) for x in (False, True)]
    assert ["SIMULATED" in page for page in pages] == [False, True]
    assert Page(pages[1]).values("class").count("simulated") == 1


def pretraining(folder: Path, *, epochs: int = 3, **request: Any) -> Path:
    whole = {"stage": "pretrain", "backbone": "s4_tiny", "recipe": {"name": folder.name}}
    whole |= {"cohort": "ptb-xl", "version": "1.0.3", "records": 17418}
    write_json(folder / "run.json", {"request": whole | request, "command": ["einthoven"]})
    (folder / "pretrain").mkdir()
    lines = []
    for epoch in range(1, epochs + 1):
        loss = 3.0 / epoch + (epoch == 3)
        line = {"epoch": epoch, "train_loss": 3.0 / epoch, "seconds": 60.0, "validation_loss": loss}
        line |= {"validation_contrastive": loss, "validation_masked": 0.75}
        lines.append(line | {"validation_accuracy": epoch / 8, "validation_seconds": 1.0})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "pretrain" / "metrics.jsonl").write_text(text + '{"epoch": 9, "tra')
    return folder


def test_pages_of_pretraining_have_losses(tmp_path: Path) -> None:
    cohorts = [
        {"cohort": "ptb-xl", "version": "1.0.3", "records": 100, "draws": 75},
        {"cohort": "<b>", "version": "1", "records": 25, "draws": 50},
    ]
    runs = [pretraining(tmp_path / "a", cohorts=cohorts), pretraining(tmp_path / "b")]
    out = write_report(runs, tmp_path / "page.html")
    text, data = out.read_text(), read_json(out.with_suffix(".json"))
    page = Page(text)
    assert page.shown <= set(numbers_in(data))
    assert {1.5, 183.0} <= page.shown  # lowest validation loss; time of both
    assert "60.0 %" in page.text
    assert "40.0 %" in page.text
    assert "<b>" not in text.replace("<b>Table", "").replace("<b>Figure", "")
    titles = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    # A copy of the loss, a constant and a time are not drawn.
    assert "accuracy" in titles
    assert not re.search("contrastive|masked|seconds", titles)
    assert page.text.count("SIMULATED") == 0
    assert str(tmp_path) not in text
    with pytest.raises(EvaluationError, match=r"^c\b") as caught:
        write_report([*runs, pretraining(tmp_path / "c", epochs=0)], tmp_path / "page.html")
    assert "epoch" in caught.value.remedy


def test_a_run_is_named_once(tmp_path: Path) -> None:
    run = pretraining(tmp_path / "a")
    with pytest.raises(EvaluationError, match=rf"{run}\W+{run}"):
        write_report([run, tmp_path / "." / "a"], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_report_is_an_html_file(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"\.html") as caught:
        write_report([pretraining(tmp_path / "a")], tmp_path / "page.pdf")
    assert caught.value.remedy


def test_a_prevalence_does_not_apply_to_pretraining(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="prevalence"):
        write_report([pretraining(tmp_path / "a")], tmp_path / "page.html", prevalence={"A": 0.1})
