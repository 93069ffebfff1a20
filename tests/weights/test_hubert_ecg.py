from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from public_names import to_public
from safetensors.torch import save_file
from small_networks import same_weights
from torch import Tensor

from einthoven.backbones.classifier import Classifier, create_classifier
from einthoven.errors import WeightsError
from einthoven.weights import load_backbone, load_classifier

NAME = "hubert_ecg_small"
TINY: dict[str, Any] = {"depth": 2, "width": 32, "heads": 2, "conv_width": 16, "pos_groups": 4}
NEW, OLD = "parametrizations.weight.original", "weight_"
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def source() -> Classifier:
    return create_classifier(NAME, labels=5, seed=0, **TINY).eval()


@pytest.fixture(scope="module")
def encoder(source: Classifier) -> State:
    """As on the hub: with what pretraining alone needs."""
    return to_public(source.backbone) | {
        "masked_spec_embed": torch.rand(32),
        "final_proj.0.weight": torch.rand(8, 32),
        "final_proj.0.bias": torch.rand(8),
        "label_embedding.0.weight": torch.rand(500, 8),
    }


def _old(state: State) -> State:
    """In the spelling of PyTorch before 2.0."""
    return {
        key.replace(f"{NEW}0", f"{OLD}g").replace(f"{NEW}1", f"{OLD}v"): tensor
        for key, tensor in state.items()
    }


@pytest.mark.parametrize("wrap", [
    lambda s: s,
    _old,
    lambda s: {"global_step": 7, "best_val_loss": 1.5, "pretraining_vocab_sizes": [500],
               "model_state_dict": _old(s), "optimizer_state_dict": {"state": {}}},
    lambda s: {"model_state_dict": {f"module.{k}": v for k, v in s.items()}},
    lambda s: {f"module._orig_mod.{k}": v for k, v in _old(s).items()},
    lambda s: {f"hubert_ecg.{k}": v for k, v in s.items() if "masked" not in k},
    lambda s: {f"module.hubert_ecg.{k}": v for k, v in _old(s).items()},
    lambda s: {k: v for k, v in s.items() if k.split(".")[0] in ("encoder", "feature_extractor",
                                                                  "feature_projection")},
])  # fmt: skip
def test_reads_every_public_form_of_the_encoder(
    source: Classifier, encoder: State, wrap: Callable[[State], Any], tmp_path: Path
) -> None:
    wrapped = wrap(encoder)
    torch.save(wrapped, tmp_path / "x.pt")
    assert same_weights(load_backbone(NAME, weights=tmp_path / "x.pt", **TINY), source.backbone)
    if all(isinstance(value, Tensor) for value in wrapped.values()):
        save_file(wrapped, tmp_path / "model.safetensors")
        again = load_backbone(NAME, weights=tmp_path / "model.safetensors", **TINY)
        assert same_weights(again, source.backbone)


@pytest.mark.parametrize("module", ["hubert_ecg", "__main__", "code_of_theirs.hubert_ecg"])
def test_reads_older_files_with_the_authors_config_object(
    source: Classifier, encoder: State, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The class is theirs, under whatever name it had there, and never imported."""
    config = type("HuBERTECGConfig", (), {"__module__": module})
    with monkeypatch.context() as patch:
        there = ModuleType(module)
        there.HuBERTECGConfig = config  # type: ignore[attr-defined]
        for name in (module.split(".")[0], module):
            patch.setitem(sys.modules, name, there)
        held = config()
        held.__dict__ |= {"hidden_size": 32, "vocab_sizes": [500], "id2label": {0: "NORM"}}
        state = {"global_step": 7, "model_config": held, "model_state_dict": _old(encoder)}
        torch.save(state | {"optimizer_state_dict": {"state": {}}}, tmp_path / "x.pt")
    assert same_weights(load_backbone(NAME, weights=tmp_path / "x.pt", **TINY), source.backbone)


@pytest.mark.parametrize("spell", [dict, _old])
def test_reads_classifiers(
    source: Classifier, spell: Callable[[State], State], tmp_path: Path
) -> None:
    state = spell(to_public(source)) | {"hubert_ecg.masked_spec_embed": torch.rand(32)}
    held = {"model_state_dict": state, "linear": True, "finetuning_vocab_size": 5}
    torch.save(held, tmp_path / "x.pt")
    assert same_weights(load_classifier(NAME, weights=tmp_path / "x.pt", **TINY), source)
    assert same_weights(load_backbone(NAME, weights=tmp_path / "x.pt", **TINY), source.backbone)


@pytest.mark.parametrize("head", [
    {"classifier.0.weight": (16, 32), "classifier.0.bias": (16,),
     "classifier.2.weight": (5, 16), "classifier.2.bias": (5,)},
    {"label_embedding.weight": (5, 32)},
])  # fmt: skip
def test_other_heads_are_left_out_and_never_taken_for_a_linear_one(
    source: Classifier, head: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    state = {k: v for k, v in to_public(source).items() if k.startswith("hubert_ecg.")}
    save_file(state | {k: torch.rand(shape) for k, shape in head.items()}, tmp_path / "x")
    assert same_weights(load_backbone(NAME, weights=tmp_path / "x", **TINY), source.backbone)
    with pytest.raises(WeightsError):
        load_classifier(NAME, weights=tmp_path / "x", **TINY)
