"""ECG-CPC against the reference implementation, through the format of its public checkpoint."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from einthoven.weights import load_backbone

S4 = "ts_encoder.predictor.predictor.s4_layers"


def checkpoint(case: Any) -> dict[str, Tensor]:
    """All tensors of the checkpoint: by rule, and the stored ones of the state-space model."""
    state = case.weights()
    root2 = np.float32(2**0.5)
    for layer in range(4):
        prefix = f"{S4}.{layer}.kernel.kernel"
        for name, shape in (("w", (512, 4, 2)), ("B", (1, 512, 4, 2)), ("P", (1, 512, 4, 2))):
            state[f"{prefix}.{name}"] = case.stored(f"ssm_{name}")[layer].expand(shape).clone()
        state[f"{prefix}.Q"] = state[f"{prefix}.P"].clone()
        state[f"{prefix}.log_dt"] = case.stored("ssm_log_dt")[layer]
        state[f"{prefix}.omega"] = case.stored("ssm_omega")
        state[f"{prefix}.z"] = case.stored("ssm_z")
        ratio = state[f"{prefix}.B"] / state[f"{prefix}.P"]
        assert torch.allclose(ratio[state[f"{prefix}.P"].abs() > 1e-6], torch.tensor(root2))
    assert set(state) == set(case.meta["keys"])
    return state


def test_tokens_and_features_match_the_reference(
    parity: Callable[[str], Any], tmp_path: Path
) -> None:
    case = parity("ecg_cpc")
    torch.save({"state_dict": checkpoint(case), "epoch": 9}, tmp_path / "last.ckpt")
    net: Any = load_backbone("ecg_cpc", weights=tmp_path / "last.ckpt")
    assert sum(p.numel() for p in net.parameters()) == case.meta["parameters"]
    array = case.rule.formula_input((2, 12, 600), 0)
    assert zlib.crc32(array.tobytes()) == case.meta["inputs"]["x600"]["crc32"]
    x = torch.from_numpy(array)
    with torch.no_grad():
        stem = net.embed(x)
        tokens = net.tokens(x)
        case.check(
            stem_first3_x600=stem[:, :3],
            stem_time_mean_x600=stem.mean(1),
            tokens_first3_x600=tokens[:, :3],
            tokens_last3_x600=tokens[:, -3:],
        )
        features = net.features(x)
    case.check(**{name: features for name in case.meta["outputs"] if name == "features_x600"})
