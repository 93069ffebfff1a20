"""Our objectives against the reference implementations."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pretraining_models import load_pretraining
from torch.nn.functional import binary_cross_entropy_with_logits

from einthoven.backbones.layers.patches import sincos_positions
from einthoven.objectives.hubert import cluster_logits, cluster_losses
from einthoven.objectives.mae import MaskedAutoencoder, masked_mse, standardise_patches
from einthoven.stages.finetune import distillation_loss


def test_masked_reconstruction_loss(parity: Callable[[str], Any]) -> None:
    case = parity("ssl_masked_reconstruction_loss")
    prediction, mask = case.stored("in_prediction"), case.stored("in_mask")
    patches = case.stored("in_signal").reshape(prediction.shape)
    case.check(
        loss_normalised_target=masked_mse(prediction, standardise_patches(patches), mask),
        loss_raw_target=masked_mse(prediction, patches, mask),
    )


def test_cluster_prediction_loss(parity: Callable[[str], Any]) -> None:
    case = parity("ssl_cluster_prediction_loss")
    hidden = case.stored("in_mask")
    temperature = case.number_after("cosine /")
    logits = cluster_logits(case.stored("in_projected"), case.stored("in_codes"), temperature)
    at_hidden, elsewhere = cluster_losses(logits, case.stored("in_labels"), hidden, hidden)
    case.check(logits=logits, masked_loss=at_hidden, unmasked_loss=elsewhere)
    mixtures = [name for name in case.meta["outputs"] if name.startswith("mixed_loss_alpha_")]
    for name in mixtures:
        share = float(name.removeprefix("mixed_loss_alpha_").replace("_", "."))
        case.check(**{name: share * at_hidden + (1 - share) * elsewhere})


def test_self_distillation_loss(parity: Callable[[str], Any]) -> None:
    """`loss` has the release's temperature and share, the others those of their names."""
    case = parity("ssl_self_distillation_loss")
    student, teacher, targets = (case.stored(f"in_{x}") for x in ("student", "teacher", "target"))
    loss = binary_cross_entropy_with_logits(student, targets)
    for name in case.meta["outputs"]:
        numbers = re.fullmatch(r"loss_T([\d_]+)_w(\d)(\d*)", name)
        temperature, share = (
            (float(numbers[1].replace("_", ".")), float(f"{numbers[2]}.{numbers[3]}"))
            if numbers
            else (case.number_after("defaults T"), case.number_after(", w"))
        )
        keys: Any = {"form": "labels", "share": share, "temperature": temperature}
        case.check(**{name: distillation_loss(loss, student, teacher, **keys)})


@pytest.fixture(scope="module")
def pretraining(
    parity: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, MaskedAutoencoder]:
    """ST-MEM's full public checkpoint, loaded."""
    case = parity("st_mem_pretrain_base")
    weights, config = case.weights(), case.meta["config"]
    patches = config["seq_len"] // config["patch_size"]
    for key, width in (("encoder.pos_embedding", "width"), ("decoder_pos_embed", "decoder_width")):
        table = sincos_positions(patches, config[width], before=1, after=1)
        about = case.meta["kept_as_computed"][key]
        assert float(table.double().sum()) == pytest.approx(about["sum"], abs=1e-3)
        assert float(table.double().abs().sum()) == pytest.approx(about["abs_sum"], abs=1e-3)
        weights[key] = table
    path: Path = tmp_path_factory.mktemp("st_mem") / "st_mem_vit_base_full.pth"
    torch.save({"epoch": 0, "model": weights}, path)
    model = load_pretraining("st_mem_base", weights=path, mask_ratio=config["mask_ratio"])
    path.unlink()
    return case, model


def test_st_mem_pretraining(pretraining: tuple[Any, MaskedAutoencoder]) -> None:
    case, model = pretraining
    assert sum(p.numel() for p in model.parameters()) == case.meta["parameters"]
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert frozen == ["backbone.pos_embed", "decoder.positions"]
    with torch.no_grad():
        out = model(case.x(), noise=case.stored("noise"))
    case.check(
        loss=out.loss,
        mask=out.mask.to(torch.uint8),
        pred_first5=out.prediction[..., :5],
        pred_mean=out.prediction.mean(-1),
        pred_std=out.prediction.std(-1, correction=0),
        latent_first_tokens=out.latent[:, :3],
        latent_mean=out.latent.mean(1),
    )


def test_st_mem_pretraining_other_target_and_ratio(
    pretraining: tuple[Any, MaskedAutoencoder],
) -> None:
    case, model = pretraining
    raw = MaskedAutoencoder(model.backbone, replace(model.config, target="raw"))
    raw.decoder = model.decoder
    ratio = case.meta["config"]["alt_mask_ratio"]
    other = MaskedAutoencoder(model.backbone, replace(model.config, mask_ratio=ratio))
    other.decoder = model.decoder
    x, noise = case.x(), case.stored("noise")
    with torch.no_grad():
        half = other(x, noise=noise)
        case.check(
            loss_raw_target=raw(x, noise=noise).loss,
            loss_alt_ratio=half.loss,
            mask_alt_ratio=half.mask.to(torch.uint8),
        )
