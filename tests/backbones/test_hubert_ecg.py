from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from einthoven.backbones.classifier import Classifier, create_classifier
from einthoven.backbones.hubert_ecg import FLAT_LEAD, HubertECG
from einthoven.backbones.layers.wav2vec import valid_tokens
from einthoven.backbones.registry import create_backbone
from einthoven.errors import BackboneError
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.prepare import prepare_batch
from einthoven.stages.finetune import regularise, set_drop_path
from einthoven.stages.recipe import Stage2
from einthoven.training.optim import adamw, parameter_groups

TINY: dict[str, Any] = {"depth": 2, "width": 32, "heads": 2, "conv_width": 16, "pos_groups": 4}
LIMB, CHEST = STANDARD_LEADS[:6], STANDARD_LEADS[6:]
EIGHT = ("I", "II", *CHEST)


def _tiny(**overrides: Any) -> HubertECG:
    built = create_backbone("hubert_ecg_small", seed=0, **TINY | overrides)
    assert isinstance(built, HubertECG)
    # Weights of std 0.02 hardly move a token at this width; these make differences show.
    with torch.no_grad():
        for part in built.modules():
            if isinstance(part, nn.Linear):
                part.weight.mul_(10.0)
    return built.eval()


@pytest.fixture
def net() -> HubertECG:
    return _tiny()


def _x(rows: int = 12, samples: int = 500) -> Tensor:
    return torch.randn(2, rows, samples, generator=torch.Generator().manual_seed(rows))


# ------------------------------------------------------------------ leads


def test_leads_permuted_together_with_their_names_change_nothing(net: HubertECG) -> None:
    x = _x()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0)).tolist()
    names = [STANDARD_LEADS[i] for i in order]
    assert torch.allclose(net(x[:, order], leads=names), net(x), atol=1e-5)
    # and without their names they do, or the test above would say nothing
    assert not torch.allclose(net(x[:, order]), net(x), atol=1e-3)


@pytest.mark.parametrize("missing", ["refuse", "zero", "mean"])
def test_eight_leads_are_derived_before_they_are_scaled_or_refused(missing: str) -> None:
    whole, eight = _tiny(missing_leads=missing), _tiny(missing_leads=missing, leads=EIGHT)
    with pytest.raises(BackboneError, match="leaves out III, aVR, aVL, aVF, which") as refusal:
        whole(_x(8), leads=EIGHT)
    assert f"build it with leads={EIGHT}" in refusal.value.remedy
    assert eight.preparation.sources == EIGHT
    assert eight.leads == eight.preparation.leads == STANDARD_LEADS
    volts = _x(8, 5000)
    one, two = volts[:, :1], volts[:, 1:2]
    limb = torch.cat([two - one, -(one + two) / 2, one - two / 2, two - one / 2], dim=1)
    twelve = torch.cat([volts[:, :2], limb, volts[:, 2:]], dim=1)
    starts = torch.tensor([0, 2500])
    expected = prepare_batch(whole.preparation, twelve, rate=500, starts=starts)
    found = prepare_batch(eight.preparation, volts, rate=500, starts=starts)
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(eight(found), whole(expected), atol=1e-4)


def test_fill_value_of_a_missing_lead_is_that_of_the_release() -> None:
    """A lead of zeros, and one that is no number, all the way through the preparation."""
    preparation = _tiny().preparation
    volts = _x(12, 5000)
    for value in (0.0, float("nan")):
        volts[:, 6:] = value
        x = prepare_batch(preparation, volts, rate=500, starts=torch.tensor([0, 9]))
        mean = x[:, :6].mean((1, 2))[:, None]
        expected = torch.full((2, 1), FLAT_LEAD) if value == 0.0 else mean
        # but for what rings at the seam to aVF, and at the end of the row
        chest = x[:, 6:].flatten(1)[:, 40:-40]
        assert torch.allclose(chest, expected.expand_as(chest), atol=2e-3)


@pytest.mark.parametrize("leads", [LIMB, ("II",), ("V1", "V5")])
def test_missing_leads_are_refused_or_filled(net: HubertECG, leads: tuple[str, ...]) -> None:
    x = _x(len(leads))
    with pytest.raises(BackboneError, match=r"leaves out .*V6") as refusal:
        net(x, leads=leads)
    assert "missing_leads='mean' or 'zero'" in refusal.value.remedy
    with pytest.raises(BackboneError, match="reads all twelve"):
        _tiny(leads=leads)
    zeros = _tiny(missing_leads="zero", leads=leads)
    rows = [STANDARD_LEADS.index(lead) for lead in leads]
    filled = torch.full((2, 12, 500), FLAT_LEAD)
    filled[:, rows] = x
    assert torch.equal(zeros(x), net(filled))
    assert zeros.leads == zeros.preparation.leads == leads
    means = _tiny(missing_leads="mean", leads=leads)
    filled = x.mean((1, 2), keepdim=True).repeat(1, 12, 500)
    filled[:, rows] = x
    assert torch.allclose(means(x), net(filled), atol=1e-6)


def test_refuses_shapes_that_do_not_fit(net: HubertECG) -> None:
    with pytest.raises(BackboneError, match="for 12 leads"):
        net(torch.randn(2, 1, 6000))
    with pytest.raises(BackboneError, match="for 12 leads"):
        net(torch.randn(2, 6000))
    for samples in (6, 501, 1000):
        with pytest.raises(BackboneError, match=f"{samples} samples a lead; it takes 7 to 500"):
            net(_x(samples=samples))
    with pytest.raises(BackboneError, match="501 samples"):
        _tiny(window=501)
    assert _tiny(max_samples=1000).tokens(_x(samples=1000)).shape == (2, 187, 32)


# ------------------------------------------------------------------ what it computes


def test_tokens_of_the_released_window_and_of_shorter_ones(net: HubertECG) -> None:
    assert net.preparation.window == 500
    assert net.preparation.rate == 100
    for samples, tokens in ((500, 93), (250, 46), (7, 1)):
        assert net.tokens(_x(samples=samples)).shape == (2, tokens, 32)
    x = _x()
    assert torch.allclose(net.features(x), net.tokens(x).mean(1), atol=1e-6)
    assert _tiny(window=250).preparation.window == 250


def test_a_factor_and_an_offset_of_all_leads_change_nothing(net: HubertECG) -> None:
    x = _x()
    assert torch.allclose(net(3.0 * x - 1.0), net(x), atol=1e-4)
    x[:, 0] *= 3.0
    assert not torch.allclose(net(x), net(_x()), atol=1e-3)


def test_masked_tokens_are_not_seen(net: HubertECG) -> None:
    z = net.embed(_x())
    valid = valid_tokens(net.extractor, torch.tensor([6000, 3000]), tokens=93)
    out = net.contextualise(z, valid)
    assert torch.allclose(out[:1], net.contextualise(z[:1]), atol=1e-5)
    # Nothing follows them: the same as an input that ends there.
    assert torch.allclose(out[1:, :46], net.contextualise(z[1:, :46]), atol=1e-5)


def test_a_shape_survives_json() -> None:
    import json

    wide = {**TINY, "conv_kernels": (8, 3), "conv_strides": (8, 4), "pos_kernel": 15}
    net = _tiny(**wide, layerdrop=0.1, attention_dropout=0.2)
    options = json.loads(json.dumps(asdict(net.config)))
    del options["name"]
    again = create_backbone("hubert_ecg_small", **options).eval()
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(_x()), net(_x()))
    assert all(block.attn.attention_dropout.p == 0.2 for block in again.blocks)


def test_preparation_is_the_released_chain() -> None:
    assert [str(step) for step in _tiny().preparation.steps] == [
        "linear-phase bandpass 0.05-47 Hz (0.3 s)",
        "fourier resampling to 500 Hz",
        "each lead's extremes to -1 and 1",
        "window of 2500 samples (3 evaluation crops)",
        "the mean of the crop for values that are not numbers",
        "decimation by 5 of all leads end to end",
    ]


def test_leads_that_are_laid_end_to_end_have_an_order() -> None:
    with pytest.raises(BackboneError, match="not in the standard order") as refusal:
        _tiny(leads=("V1", *STANDARD_LEADS[:6], *STANDARD_LEADS[7:]))
    assert f"name them as {STANDARD_LEADS}" in refusal.value.remedy


# ------------------------------------------------------------------ for the recipe


def test_stochastic_depth_rises_from_the_positional_convolution_on(net: HubertECG) -> None:
    assert [len(branches) for branches in net.residual_branches()] == [1, 2, 2]
    assert set_drop_path(net, 0.2) == pytest.approx([0.0, 0.1, 0.2])
    assert net.pos_conv.drop_path.rate == 0.0
    set_drop_path(net, 0.2, schedule="constant")
    assert net.pos_conv.drop_path.rate == 0.2


def test_layers_are_those_that_the_authors_train_apart(net: HubertECG) -> None:
    groups = net.layer_groups()
    assert {name.split(".")[0] for name in groups[0]} == {"extractor"}
    assert {name.split(".")[0] for name in groups[1]} == {"projection", "pos_conv", "norm"}
    assert groups[-1] == ["blocks.1.norm2.weight", "blocks.1.norm2.bias"]


def test_a_recipe_can_freeze_the_positional_convolution_alone() -> None:
    classifier = create_classifier("hubert_ecg_small", labels=2, seed=0, **TINY)
    regularise(classifier, Stage2(freeze_positions=True))
    frozen = {name for name, p in classifier.named_parameters() if not p.requires_grad}
    assert frozen == {f"backbone.pos_conv.{part}" for part in ("direction", "gain", "bias")}


@pytest.mark.slow
@pytest.mark.parametrize("size", ["small", "base", "large"])
def test_one_step_of_either_stage_at_full_size(size: str) -> None:
    classifier = create_classifier(f"hubert_ecg_{size}", labels=71, seed=0)
    x, targets = _x(), (torch.rand(2, 71) < 0.1).float()
    # Stage 1: the head on features of the frozen backbone.
    with torch.no_grad():
        features = classifier.backbone.eval()(x)
    _step(classifier.head, classifier.head(features), targets)
    # Stage 2 as plain fine-tuning moves everything ...
    before = {name: p.detach().clone() for name, p in classifier.named_parameters()}
    _step(classifier, classifier.train()(x), targets)
    assert [n for n, p in classifier.named_parameters() if torch.equal(p, before[n])] == []
    # ... and regularised, with all that may skip a branch, still gives everything a gradient.
    del before
    classifier.zero_grad()
    regularise(classifier, Stage2(drop_path=0.3, dropout=0.01))
    classifier.backbone.blocks.layerdrop = 0.3
    torch.manual_seed(0)
    _step(classifier, classifier(x), targets)


def _step(model: Classifier | nn.Linear, logits: Tensor, targets: Tensor) -> None:
    optimizer = adamw(parameter_groups(model, weight_decay=0.05), betas=(0.9, 0.98))
    for group in optimizer.param_groups:
        group["lr"] = 1e-3
    loss = binary_cross_entropy_with_logits(logits, targets)
    assert loss.isfinite()
    loss.backward()
    lost = [name for name, p in model.named_parameters() if p.grad is None]
    assert lost == []
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    optimizer.step()
