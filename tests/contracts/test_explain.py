"""Methods of attribution over every registered backbone at a small size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_networks import SMALL as NAMED

from einthoven.backbones.classifier import create_classifier
from einthoven.backbones.registry import backbone_names, entry
from einthoven.cohorts.synthetic import sample_record
from einthoven.errors import EvaluationError
from einthoven.explain import METHODS, Attribution, attribute, methods_of
from einthoven.explain.methods import TOLERANCE
from einthoven.models import Model

pytest.importorskip("captum")

SMALL = NAMED | {"wavelet_nn": {}, "st_mem_tiny": {"depth": 1, "window": 375}}
RECORD = sample_record()
GRADIENTS = ("integrated-gradients", "smoothgrad")
ATTENTION = ("attention", "attention-rollout")
CONVOLUTIONS = {"fcn_wang", "resnet1d_wang", "xresnet1d50", "inception1d", "net1d_small"}
CONVOLUTIONS |= {"ecgfounder_12lead"}
TRANSFORMERS = {"mtecg_tiny_100hz", "st_mem_tiny", "transformer_small", "ecg_fm"}
TRANSFORMERS |= {"hubert_ecg_small"}


def test_every_family_has_a_small_network() -> None:
    families = {entry(name).family for name in SMALL}
    assert families >= {entry(name).family for name in backbone_names()}


@pytest.fixture(scope="module", params=sorted(SMALL))
def model(request: pytest.FixtureRequest) -> Model:
    name = request.param
    network = create_classifier(name, labels=("A", "B"), seed=0, **SMALL[name]).eval()
    x = torch.randn(4, 12, network.preparation.window)
    network.backbone.fit_statistics([x])
    return Model(network, network.preparation)


def check(model: Model, method: str) -> Attribution:
    result = attribute(model, RECORD, "B", method)
    assert result.values.shape == (len(model.preparation.leads), RECORD.signal.shape[1])
    assert np.isfinite(result.values).all()
    assert result.values.any()
    assert all(parameter.requires_grad for parameter in model.classifier.head.parameters())
    return result


def test_gradients_suit_every_differentiable_network(model: Model) -> None:
    if model.backbone.name == "wavelet_nn":  # it counts and sorts
        assert not set(GRADIENTS) & set(methods_of(model, RECORD))
        return
    for method in GRADIENTS:
        result = check(model, method)
        assert result.resolves == ("lead", "beat", "wave")
    complete = attribute(model, RECORD, "B", GRADIENTS[0])
    assert complete.completeness_error is not None
    change = abs(complete.output - complete.baseline_output)
    if model.backbone.name == "ecg_fm":
        # Its group normalisation removes the scale of the input: the output jumps where the path
        # leaves the flat line, and no number of steps sees the jump. The error is stated.
        assert complete.completeness_error > TOLERANCE * change
        return
    assert complete.completeness_error <= TOLERANCE * change + 1e-3


def test_a_method_suits_the_networks_that_have_what_it_needs(model: Model) -> None:
    name, suitable = model.backbone.name, methods_of(model, RECORD)
    assert ("grad-cam" in suitable) == (name in CONVOLUTIONS)
    assert (set(ATTENTION) <= set(suitable)) == (name in TRANSFORMERS)
    for method in set(suitable) & {"grad-cam", *ATTENTION}:
        result = check(model, method)
        assert ("lead" in result.resolves) == (name == "st_mem_tiny")
    for method in set(METHODS) - set(suitable):
        with pytest.raises(EvaluationError, match=method) as error:
            attribute(model, RECORD, "B", method)
        assert all(each in error.value.remedy for each in suitable)
