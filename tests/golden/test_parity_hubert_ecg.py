"""HuBERT-ECG against its reference implementation, through the public checkpoints' formats.

The record of 6,000 samples is twelve leads of 500 laid end to end.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from public_names import to_public
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy, linear

from einthoven.backbones.hubert_ecg import HubertECG
from einthoven.backbones.layers.wav2vec import mean_of_valid, valid_tokens
from einthoven.backbones.registry import entry
from einthoven.weights import load_backbone, load_classifier

SIZES = ["small", pytest.param("base", marks=pytest.mark.slow)]


def _x(case: Any) -> Tensor:
    x: Tensor = case.x().reshape(2, 12, 500)
    return x


def _codes(weights: dict[str, Tensor], tokens: Tensor) -> Tensor:
    """Logits over cluster numbers: cosines to the code vectors, over 0.1."""
    projected = linear(tokens, weights["final_proj.0.weight"], weights["final_proj.0.bias"])
    return cosine_similarity(projected[..., None, :], weights["label_embedding.0.weight"], -1) / 0.1


@pytest.mark.parametrize("size", SIZES)
def test_encoder_matches_reference(size: str, parity: Callable[[str], Any], tmp_path: Path) -> None:
    case, name = parity(f"hubert_ecg_{size}"), f"hubert_ecg_{size}"
    weights = case.weights()
    save_file(weights, tmp_path / "model.safetensors")
    net = load_backbone(name, weights=tmp_path / "model.safetensors")
    assert isinstance(net, HubertECG)
    # The fixture counts what only pretraining has: mask vector, projection, 100 codes.
    extra = sum(
        tensor.numel()
        for key, tensor in weights.items()
        if key.startswith(("masked_spec_embed", "final_proj", "label_embedding"))
    )
    assert entry(name).parameters == case.meta["parameters"] - extra
    x, mask, labels = _x(case), case.stored("mask"), case.stored("labels")[0].long()
    with torch.no_grad():
        tokens, hidden = net.tokens(x), net.embed(x)
        hidden[mask] = weights["masked_spec_embed"]
        masked = net.contextualise(hidden)
        logits = _codes(weights, masked)
        case.check(
            conv_time_mean=net.extractor(case.x().unsqueeze(1)).mean(1),
            hidden_first3=tokens[:, :3],
            hidden_last=tokens[:, -1],
            hidden_mean=net.features(x),
            hidden_mean_tiny_input=net.features(x * 2**-9),
            masked_hidden_mean=masked.mean(1),
            code_logits_first2_tokens=_codes(weights, tokens)[:, :2],
            masked_loss=cross_entropy(logits[mask], labels[mask]),
            unmasked_loss=cross_entropy(logits[~mask], labels[~mask]),
        )


@pytest.mark.parametrize("size", SIZES)
def test_classifier_matches_reference(
    size: str, parity: Callable[[str], Any], tmp_path: Path
) -> None:
    case, name = parity(f"hubert_ecg_{size}_classifier"), f"hubert_ecg_{size}"
    weights = case.weights()
    torch.save({"model_state_dict": weights, "linear": True}, tmp_path / "x.pt")
    classifier = load_classifier(name, weights=tmp_path / "x.pt")
    public = to_public(classifier)
    assert set(public) == set(weights) - {"hubert_ecg.masked_spec_embed"}
    # By value: softmax hides the biases of the key projections from every output.
    assert all(torch.equal(public[key], weights[key]) for key in public)
    net = classifier.backbone
    assert isinstance(net, HubertECG)
    mask_vector = net.feature_dim
    assert sum(p.numel() for p in classifier.parameters()) == (
        case.meta["parameters"] - mask_vector
    )
    x = _x(case)
    with torch.no_grad():
        valid = valid_tokens(net.extractor, case.stored("valid_samples"), tokens=93)
        of_valid = mean_of_valid(net.contextualise(net.embed(x), valid), valid)
        case.check(
            hidden_first3=net.tokens(x)[:, :3],
            hidden_mean=net.features(x),
            logits=classifier(x),
            logits_attention_mask=classifier.head(of_valid),
        )
