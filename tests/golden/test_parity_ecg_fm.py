"""ECG-FM against the reference implementation, through the format of its public checkpoints."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pretraining_models import load_pretraining
from public_names import to_public
from torch import Tensor

from einthoven.objectives.cmsc import cmsc_loss
from einthoven.objectives.quantiser import GumbelQuantiser
from einthoven.objectives.wav2vec2 import contrastive_logits, contrastive_loss
from einthoven.weights import load_backbone, load_classifier
from einthoven.weights.safe import read_checkpoint


def fairseq(model: dict[str, Tensor], name: str) -> dict[str, Any]:
    """A checkpoint as fairseq writes it, with the optimiser's two thirds of it."""
    return {
        "args": argparse.Namespace(task="ecg_pretraining"),
        "cfg": {"model": {"_name": name, "encoder_layers": 12}, "task": {"sample_rate": 500}},
        "model": model,
        "criterion": None,
        "optimizer_history": [{"num_updates": 3, "lr_scheduler_state": {"best": None}}],
        "task_state": {},
        "extra_state": {"epoch": 2},
        "last_optimizer_state": {"state": {0: {"exp_avg": torch.ones(1000)}}},
    }


@pytest.fixture(scope="module")
def pretraining(
    parity: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Any, Path]:
    case = parity("ecg_fm_pretrain")
    path: Path = tmp_path_factory.mktemp("ecg_fm") / "mimic_iv_ecg_physionet_pretrained.pt"
    torch.save(fairseq(case.weights(), "wav2vec2_cmsc"), path)
    config = case.meta["config"]
    diversity, penalty = config["loss_weights"]
    model = load_pretraining(
        "ecg_fm",
        weights=path,
        temperature=config["logit_temp"],
        cmsc_temperature=config["cmsc_temp"],
        diversity_weight=diversity,
        penalty_weight=penalty,
    )
    return case, model, path


def test_encoder_matches_reference(pretraining: tuple[Any, Any, Path]) -> None:
    case, _, path = pretraining
    net: Any = load_backbone("ecg_fm", weights=path)
    assert sum(p.numel() for p in net.parameters()) == 90_373_248
    x = case.x()
    with torch.no_grad():
        tokens = net.tokens(x)
        case.check(
            hidden_first3=tokens[:, :3],
            hidden_last=tokens[:, -1],
            hidden_mean=tokens.mean(1),
            hidden_mean_tiny_input=net.features(x * 2**-9),
            local_features_mean=net.projection.norm(net.extract(x)).mean(1),
        )


def test_pretraining_matches_reference(pretraining: tuple[Any, Any, Path]) -> None:
    case, model, _ = pretraining
    assert sum(p.numel() for p in model.parameters()) == case.meta["parameters"]
    mask = case.stored("mask")
    rows, hidden = len(mask), int(mask[0].sum())
    flat = case.stored("negatives").long().reshape(rows, hidden, -1)
    choices = flat - hidden * torch.arange(rows)[:, None, None]  # numbered through the batch there
    with torch.no_grad():
        out = model.compare(
            case.x(),
            mask=mask,
            choices=choices,
            record=case.stored("patient_id"),
            segment=case.stored("segment"),
        )
    count = rows * hidden
    case.check(
        masked_hidden_pooled=out.pooled,
        code_indices=out.codes,
        prob_perplexity=out.metrics["prob_perplexity"],
        code_perplexity=out.metrics["code_perplexity"],
        infonce_sum=out.metrics["contrastive_loss"] * count,
        diversity=out.metrics["diversity_loss"],
        feature_penalty=out.metrics["feature_penalty"],
        cmsc_times_samples=out.metrics["cmsc_loss"] * count,
        composite_loss=out.loss * count,
    )
    _same_scores(case, "contrastive_logits_first8", out.logits[:, :8])


def _same_scores(case: Any, name: str, ours: Tensor) -> None:
    """As `Parity.check`, for scores of which some are switched off."""
    golden = case.stored(name)
    off = golden == -torch.inf
    assert off.any()
    assert torch.equal(ours == -torch.inf, off)
    error = (ours - golden)[~off].abs().max() / golden[~off].abs().max()
    key = name.removeprefix("out_")
    assert error <= case.meta["outputs"][key]["tolerance"]


def test_classifier_matches_reference(parity: Callable[[str], Any], tmp_path: Path) -> None:
    case = parity("ecg_fm_classifier")
    path = tmp_path / "mimic_iv_ecg_finetuned.pt"
    torch.save(fairseq(case.weights(), "ecg_transformer_classifier"), path)
    classifier: Any = load_classifier("ecg_fm", weights=path)
    _same_entries(to_public(classifier), read_checkpoint(path)["model"])
    assert sum(p.numel() for p in classifier.parameters()) == case.meta["parameters"]
    x = case.x()
    valid = case.stored("valid_samples").long()
    padded = x * (torch.arange(x.shape[-1]) < valid[:, None])[:, None]
    net = classifier.backbone
    with torch.no_grad():
        tokens = net.tokens(x)
        case.check(
            logits=classifier.head(tokens.mean(1)),
            hidden_mean=tokens.mean(1),
            hidden_first3=tokens[:, :3],
            logits_padded=classifier.head(net.features(padded, valid_samples=valid)),
        )


def test_public_names_round_trip(pretraining: tuple[Any, Any, Path]) -> None:
    _, model, path = pretraining
    _same_entries(to_public(model), read_checkpoint(path)["model"])


def _same_entries(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """By value: softmax hides the biases of the key projections from every output."""
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_contrastive_loss(parity: Callable[[str], Any]) -> None:
    case = parity("ssl_contrastive_loss")
    context, target = case.stored("in_context"), case.stored("in_target")
    batch, positions = target.shape[:2]
    others = case.stored("in_negatives")
    candidates = torch.cat([target, others.transpose(0, 1).flatten(1, 2)], dim=1)
    vectors = candidates.flatten(0, 1)
    identity = torch.unique(vectors, dim=0, return_inverse=True)[1].reshape(batch, -1)
    numbers = positions + torch.arange(len(others) * positions)
    choices = numbers.reshape(len(others), positions).t().expand(batch, -1, -1)
    temperature = case.number_after("cosine /")
    logits = contrastive_logits(context, candidates, identity, choices, temperature=temperature)
    _same_scores(case, "out_logits", logits)
    case.check(loss_sum=contrastive_loss(logits, reduction="sum"))


def test_cmsc_loss(parity: Callable[[str], Any]) -> None:
    case = parity("ssl_cmsc_loss")
    record, segment = case.stored("in_patient_id"), case.stored("in_segment")
    temperature = case.number_after("temperature")
    case.check(loss=cmsc_loss(case.stored("in_features"), record, segment, temperature=temperature))


def test_vector_quantiser(parity: Callable[[str], Any]) -> None:
    case = parity("ssl_vector_quantiser")
    codebook, groups = case.stored("in_codebook"), case.golden["out_codes"].shape[-1]
    quantiser = GumbelQuantiser(
        case.stored("in_x").shape[-1],
        codes=codebook.shape[1] // groups,
        groups=groups,
        out_width=groups * codebook.shape[2],
    )
    quantiser.load_state_dict(
        {
            "projection.weight": case.stored("in_projection_weight"),
            "projection.bias": case.stored("in_projection_bias"),
            "codebook": codebook,
        }
    )
    with torch.no_grad():
        result = quantiser(case.stored("in_x"))
        case.check(
            quantised=result.vectors,
            codes=result.codes.int(),
            code_perplexity=result.code_perplexity,
            prob_perplexity=result.prob_perplexity,
            diversity_loss=quantiser.diversity_loss(result),
        )
