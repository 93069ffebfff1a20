"""The page that explains a prediction."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from einthoven.cohorts.synthetic import sample_record
from einthoven.errors import EvaluationError
from einthoven.explain import Attribution, Curves, Faithfulness, shares_of
from einthoven.records.record import STANDARD_LEADS
from einthoven.report.ecg import AGAINST, FOR, ecg_paper
from einthoven.report.explanation import Prediction, write_explanation

RECORD = sample_record()


def attribution(lead: str, sign: float = 1.0) -> Attribution:
    values = np.zeros(RECORD.signal.shape, dtype=np.float32)
    values[STANDARD_LEADS.index(lead), 500:600] = sign
    names = ("A<B", "integrated-gradients", "lead-mean", 2.0, -1.0, 0.01)
    return Attribution(
        values, STANDARD_LEADS, RECORD.rate, *names, ("lead", "beat", "wave"), is_for_label=True
    )


def written(folder: Path, **changes: Any) -> tuple[str, dict[str, Any]]:
    line = np.linspace(0, 1, 21)
    measured = Faithfulness(Curves(line, line, line, line, line), 0.01, {"head": 0.5}, {})
    stated = Prediction("model", "abc", "A<B", "", 0.75, threshold=0.5, **changes)
    made = attribution("V1")
    similar = [{"record": "r1", "distance": 0.1, "labels": ["A<B"]}]
    page = write_explanation(
        folder / "p.html", stated, RECORD, made, shares_of(made, RECORD), measured, similar=similar
    )
    return page.read_text(), json.loads(page.with_suffix(".json").read_text())


def test_the_page_has_the_numbers_of_its_json(tmp_path: Path) -> None:
    page, data = written(tmp_path, warnings=("noise",))
    assert data["prediction"]["value"] == 0.75
    assert data["shares"]["by_lead"]["V1"] == pytest.approx(1)
    assert data["faithfulness"]["areas"]["deletion"] == pytest.approx(0.5)
    assert data["shares"]["words"] in page
    assert "A&lt;B" in page
    assert "A<B" not in page
    assert "noise" in page
    assert page.count("<svg") == 3
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")


def test_colours_lie_under_the_trace_of_their_lead() -> None:
    plain = ecg_paper(RECORD)
    assert FOR not in plain
    assert AGAINST not in plain
    assert FOR in ecg_paper(RECORD, attribution=attribution("I"))
    against = ecg_paper(RECORD, attribution=attribution("I", -1))
    assert AGAINST in against
    assert FOR not in against
    # V1 has its 2.5 s from 5 s on; what is earlier is not on the sheet.
    assert FOR not in ecg_paper(RECORD, attribution=attribution("V1"))


def test_a_page_ends_in_html(tmp_path: Path) -> None:
    empty: Any = SimpleNamespace()
    with pytest.raises(EvaluationError, match=r"page\.pdf"):
        write_explanation(tmp_path / "page.pdf", empty, RECORD, empty, empty, empty)
