"""The page: well-formed, whole in itself, and with the numbers of its JSON."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from einthoven.errors import EvaluationError
from einthoven.evaluate import score
from einthoven.records.record import Record
from einthoven.report import (
    Example,
    PairedRuns,
    ReportRun,
    build_page,
    report_json,
    write_report,
)

VOID = {"meta", "br", "hr", "link", "img", "input"}
SECTIONS = {"summary", "results", "differences", "training", "labels", "examples", "provenance"}


class Page(HTMLParser):
    """What a browser would find, with a complaint about every tag that is not balanced."""

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
        return [value for _, key, value in self.attributes if key == name]

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


@pytest.fixture(scope="module")
def arguments(
    runs: list[ReportRun], paired: list[PairedRuns], example: Example, labels: tuple[str, ...]
) -> dict[str, Any]:
    return {
        "title": "A <title> & more",
        "comparisons": paired,
        "examples": [example, replace(example, title="<script>second</script>", truth=())],
        "notes": ["A <b>note</b>."],
        "commands": ["einthoven report runs/a --against runs/b > 'x'"],
        "descriptions": {labels[0]: "normal <ECG>"},
    }


@pytest.fixture(scope="module")
def text(runs: list[ReportRun], arguments: dict[str, Any]) -> str:
    return build_page(runs, **arguments)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def numbers_in(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from numbers_in(each)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)


def test_ids_are_unique_and_every_reference_has_its_target(text: str, page: Page) -> None:
    ids = page.values("id")
    assert [each for each, times in Counter(ids).items() if times > 1] == []
    wanted = [value[1:] for value in page.values("href")] + page.values("aria-labelledby")
    wanted += re.findall(r"url\(#([^)]+)\)", text)
    assert set(wanted) <= set(ids)
    assert SECTIONS | {"caveats", "table-auroc", "table-auprc", "figure-training"} <= set(ids)


def test_the_page_needs_nothing_but_itself(text: str, page: Page) -> None:
    assert not page.tags.keys() & {"script", "link", "img", "iframe", "object", "base", "form"}
    loads = [v for _, key, v in page.attributes if key in ("href", "src", "srcset", "action")]
    assert all(value.startswith("#") for value in loads)
    assert not [key for _, key, _ in page.attributes if key.startswith("on")]
    assert set(re.findall(r"https?://[^\s\"<]+", text)) == {"http://www.w3.org/2000/svg"}
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert len(text) < 3e6


def test_every_number_on_the_page_is_in_the_json(
    runs: list[ReportRun], arguments: dict[str, Any], page: Page
) -> None:
    report = report_json(runs, **arguments)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    known = set(numbers_in(report))
    assert len(page.numbers) > 150
    assert [shown for shown in page.numbers if shown[0] not in known] == []
    for value, shown in page.numbers:
        if re.fullmatch(r"[+−]?\d\.\d{3}", shown):
            assert float(shown.replace("−", "-")) == pytest.approx(value, abs=5.01e-4)


def test_the_headline_is_the_first_runs_score(runs: list[ReportRun], page: Page) -> None:
    shown = [value for value, _ in page.numbers]
    found = runs[0].score
    assert found["macro_auroc"] in shown
    assert found["macro_auroc_interval"][0] in shown
    assert found["macro_auprc_bias"] in shown
    low, high = found["macro_auroc_interval"]
    sentence = f"macro AUROC of {found['macro_auroc']:.3f} ({low:.3f} to {high:.3f})"
    assert f"On the 120 test records of 60 patients it reaches a {sentence}" in page.text


def test_the_summary_tells_the_difference_to_the_reference(
    paired: list[PairedRuns], page: Page
) -> None:
    found = paired[0].comparison.auroc
    assert f"The difference to fine-tuning, on the same records, is +{found.macro:.3f}" in page.text
    assert f"AUROC improves for {found.improved} of 5 labels, significantly for" in page.text
    assert "In validation it passes the best epoch of fine-tuning in epoch 2." in page.text
    assert "holds zero: no difference is shown" not in page.text


def test_hostile_names_are_text(text: str, page: Page, labels: tuple[str, ...]) -> None:
    assert "<script" not in text
    assert page.text.count(labels[2]) > 5
    assert "A <title> & more" in page.text
    assert "normal <ECG>" in page.text
    assert "A <b>note</b>." in page.text


def test_examples_mark_the_truth_and_name_nobody(text: str, page: Page) -> None:
    assert "MRN-4711" not in text
    assert "Jane Doe" not in text
    assert "True: ISC_, AFIB." in page.text
    assert "True: none of the labels." in page.text
    assert page.text.count("✓ true") == 2
    # AFIB is true, but not among the labels that the model knows.
    assert re.search(r"AFIB–✓ true", "".join(page.words))
    assert "SHA-256 of the file 9f9f9f9f9f9f9f9f" in page.text


def test_provenance_is_complete(page: Page) -> None:
    for fact in ("cd" * 32, "ef" * 32, "ab" * 32, "stage2.drop_path", "2.13.0", "1 h 23 min"):
        assert fact in page.text
    assert "einthoven posttrain 'my data' --out runs/post-training" in page.text
    assert "Not a medical device." in page.text
    assert "1 of 5 labels have fewer than 10 positives" in page.text


def test_tables_count_labels_and_describe_the_policy(page: Page) -> None:
    assert "Mean over 5 of 5 labels (5 have positives and negatives); policy “skip”" in page.text
    assert "40 resamples of the 120 test records, drawn by record with seed 0" in page.text
    assert page.tags["caption"] == page.tags["table"] == 8


def test_one_run_has_no_differences(runs: list[ReportRun]) -> None:
    text = build_page(runs[:1], title="One")
    page = Page(text)
    assert "differences" not in page.values("id")
    assert not {"Gain", "Relative gain", "reference"} & set(page.words)
    assert "examples" not in page.values("id")
    assert page.tags["svg"] == 1


def test_a_run_of_which_little_is_known(runs: list[ReportRun]) -> None:
    table = runs[0].predictions
    assert table is not None
    targets = table.targets.copy()  # type: ignore[union-attr]
    targets[:, 0] = 0
    found = score(
        targets, table.probabilities, labels=table.labels, resamples=0, undefined_labels="skip"
    ).to_dict()
    bare = ReportRun("bare", {}, found)
    page = Page(build_page([bare], title="Bare"))
    report = report_json([bare], title="Bare")
    assert report["runs"][0]["training"]["best"] == {}
    assert "training" not in page.values("id")
    assert "Mean over 4 of 5 labels (4 have positives and negatives)" in page.text
    assert "no resamples" in page.text
    assert "not recorded" in page.text
    assert "None" not in page.text
    assert "nan" not in page.text.lower().split()


def test_no_difference_is_called_none(runs: list[ReportRun], paired: list[PairedRuns]) -> None:
    same = paired[0].comparison
    drawn = replace(same.auroc, macro_interval=(-0.01, 0.02))
    pair = replace(paired[0], comparison=replace(same, auroc=drawn))
    page = Page(build_page(runs[:2], title="Same", comparisons=[pair]))
    assert "The interval of the AUROC difference holds zero: no difference is shown." in page.text


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("post-training", "nobody"), "names the run 'nobody'"),
        (("fine-tuning", "post-training"), "whose own score is"),
    ],
)
def test_comparisons_of_other_runs_are_refused(
    runs: list[ReportRun], paired: list[PairedRuns], names: tuple[str, str], message: str
) -> None:
    pair = PairedRuns(*names, paired[0].comparison)
    with pytest.raises(EvaluationError, match=message):
        build_page(runs, title="x", comparisons=[pair])


def test_runs_need_names_of_their_own(runs: list[ReportRun]) -> None:
    for wrong in ([], [runs[0], runs[0]], [replace(runs[0], name="")]):
        with pytest.raises(EvaluationError, match="name of its own"):
            report_json(wrong, title="x")


def test_a_long_record_without_twelve_leads(
    runs: list[ReportRun], make_record: Callable[..., Record]
) -> None:
    record = make_record(leads=("II", "V5"), seconds=30.0)
    text = build_page(runs[:1], title="x", examples=[Example(record, (), {})])
    assert "10 s of II, V5" in Page(text).values("aria-label")[-1] or "10 s of II, V5" in text


def test_the_page_is_written_whole(tmp_path: Path) -> None:
    file = write_report(tmp_path / "run" / "report.html", "<p>−</p>")
    assert file.read_text(encoding="utf-8") == "<p>−</p>"
    assert [each.name for each in file.parent.iterdir()] == ["report.html"]
