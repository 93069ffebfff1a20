from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from public_names import to_public
from small_networks import SMALL, same_weights
from torch import Tensor

from einthoven.backbones.classifier import Classifier, create_classifier
from einthoven.errors import WeightsError
from einthoven.inference import predict_record
from einthoven.models import Model, load_model, save_model
from einthoven.objectives import create_objective
from einthoven.records.record import STANDARD_LEADS, Record
from einthoven.signals.prepare import prepare_record
from einthoven.weights import ecg_fm as names
from einthoven.weights import load_backbone, load_classifier

TINY = SMALL["ecg_fm"]
HEADS: dict[str, Any] = {"codes": 8, "target_width": 16, "negatives": 5}


@pytest.fixture
def source() -> Classifier:
    return create_classifier("ecg_fm", labels=5, seed=0, **TINY).eval()


@pytest.fixture
def model(source: Classifier) -> Any:
    torch.manual_seed(0)
    return create_objective("ecg_fm", source.backbone, **HEADS)


def _fairseq(state: dict[str, Tensor], path: Path, **options: Any) -> Path:
    """As fairseq wraps it; the optimiser's state names no parameters."""
    content = {
        "args": argparse.Namespace(arch="wav2vec2_cmsc"),
        "cfg": {"model": {"_name": "wav2vec2_cmsc"}},
        "model": state,
        "last_optimizer_state": {"state": {0: {"exp_avg": torch.full((3,), torch.nan)}}},
    }
    torch.save(content, path, **options)
    return path


@pytest.mark.parametrize("zipped", [True, False])
def test_reads_pretrained_networks_and_classifiers(
    source: Classifier, model: Any, tmp_path: Path, zipped: bool
) -> None:
    options = {"_use_new_zipfile_serialization": zipped}
    pretrained = to_public(model)
    classifier = to_public(source)
    assert "quantizer.vars" in pretrained
    assert {"proj.weight", "encoder.encoder.layers.0.fc1.weight"} <= classifier.keys()
    for state in (pretrained, classifier, to_public(source.backbone)):
        path = _fairseq(state, tmp_path / "x.pt", **options)
        assert same_weights(load_backbone("ecg_fm", weights=path, **TINY), source.backbone)
    x = torch.randn(2, 12, 320)
    path = _fairseq(classifier, tmp_path / "x.pt")
    assert torch.equal(load_classifier("ecg_fm", weights=path, **TINY)(x), source(x))
    with pytest.raises(WeightsError):
        load_classifier("ecg_fm", weights=_fairseq(pretrained, tmp_path / "x.pt"), **TINY)


def test_reads_the_older_spelling_of_the_weight_norm(source: Classifier, tmp_path: Path) -> None:
    older = {
        key.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for key, tensor in to_public(source).items()
    }
    assert older.keys() != to_public(source).keys()
    path = _fairseq(older, tmp_path / "x.pt")
    assert same_weights(load_backbone("ecg_fm", weights=path, **TINY), source.backbone)


def test_the_released_classifier_is_evaluated_as_its_authors_do(tmp_path: Path) -> None:
    """Two segments of 5 s, one aggregation rule per label, by a model saved and loaded."""
    network = create_classifier("ecg_fm", labels=17, seed=0, **TINY)
    with torch.no_grad():
        network.head.weight.mul_(100)
    file = _fairseq(to_public(network), tmp_path / "finetuned.pt")
    classifier = load_classifier("ecg_fm", weights=file, labels=names.LABELS, **TINY)
    model = Model(classifier, classifier.preparation, aggregate=names.AGGREGATES)
    folder = save_model(model, tmp_path / "model")
    assert load_model(folder).aggregate == names.AGGREGATES
    generator = np.random.default_rng(0)
    record = Record.create(
        generator.normal(size=(12, 1000)).astype(np.float32), 100, leads=STANDARD_LEADS, name="x"
    )
    halves = prepare_record(classifier.preparation, record)
    assert halves.shape == (2, 12, 2500)
    with torch.no_grad():
        each = classifier(halves).double().sigmoid()
    probabilities = predict_record(load_model(folder), record).probabilities
    highest = {
        "Poor data quality",
        "Premature ventricular contraction",
        "Ventricular tachycardia",
        "Supraventricular tachycardia with aberrancy",
        "Electronic pacemaker",
    }
    for place, label in enumerate(names.LABELS):
        expected = each[:, place].max() if label in highest else each[:, place].mean()
        assert probabilities[label] == pytest.approx(float(expected), abs=1e-6)
    assert float((each[0] - each[1]).abs().max()) > 0.01  # or mean and maximum would not differ
