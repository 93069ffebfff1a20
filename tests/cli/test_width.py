"""Tables fit a terminal of 80 columns, with long labels and missing intervals too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from einthoven.backbones.classifier import create_classifier
from einthoven.cli.progress import output
from einthoven.evaluate.estimate import TOO_FEW
from einthoven.models import Model, save_model
from einthoven.predictions import Calibration, Predictions

LABELS = ("left_ventricular_hypertrophy_by_echocardiography", "AFIB", "rare", "fall within 2 years")


@pytest.fixture
def narrow(cli: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command in 80 columns; return its output, whose lines all fit."""
    monkeypatch.setattr(output, "width", 80)

    def run(*arguments: Any) -> str:
        text = str(cli(*arguments).out)
        assert max(map(len, text.splitlines())) <= 80
        assert "…" not in text
        return text

    return run


@pytest.fixture(scope="module")
def predictions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draws, names = np.random.default_rng(0), [f"record-{number}" for number in range(60)]
    targets = (draws.random((60, 4)) < (0.5, 0.2, 0.02, 0.3)).astype(np.uint8)
    probabilities = np.clip(targets * 0.2 + draws.random((60, 4)) * 0.8, 0, 1)
    metadata = {"cohort": "a_cohort_with_a_name_of_many_words", "backbone": "mtecg_tiny_100hz"}
    file = tmp_path_factory.mktemp("width") / "predictions-of-the-second-hospital.parquet"
    Predictions(LABELS, names, names, targets, probabilities, metadata).save(file)  # type: ignore[arg-type]
    return file


def test_scores(narrow: Any, predictions: Path) -> None:
    text = narrow("evaluate", predictions)
    assert TOO_FEW in text  # the interval of a label with one positive
    assert "hypertrophy" in text
    narrow("compare", predictions, predictions)


def test_a_prediction(narrow: Any, synthetic: Any, tiny_backbone: str, tmp_path: Path) -> None:
    network = create_classifier(tiny_backbone, labels=LABELS)
    model = Model(
        network,
        network.backbone.preparation,
        calibration=Calibration((1.0,) * 4, (0.0,) * 4, (0.1,) * 4),
        config={"descriptions": {label: f"meaning of {label} in words" for label in LABELS}},
    )
    folder = save_model(model, tmp_path / "model")
    text = narrow("predict", "--model", folder, synthetic.paths()[0])
    assert text.count("above") == 4
    assert "in words" in text  # from the descriptions of the labels


@pytest.mark.parametrize("command", ["backbones", "recipes", "reproduce list", "predict"])
def test_lists(narrow: Any, command: str) -> None:
    assert narrow(*command.split())
