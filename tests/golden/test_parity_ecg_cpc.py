"""ECG-CPC against the reference implementation, through the format of its public checkpoint."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
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


@pytest.fixture(scope="module")
def case(parity: Callable[[str], Any]) -> Any:
    return parity("ecg_cpc")


@pytest.fixture(scope="module")
def network(case: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    file = tmp_path_factory.mktemp("ecg_cpc") / "last.ckpt"
    torch.save({"state_dict": checkpoint(case), "epoch": 9}, file)
    return load_backbone("ecg_cpc", weights=file)


@pytest.mark.parametrize(("name", "seed"), [("x600", 0), ("x2400", 1)])
def test_stem_blocks_tokens_and_features_match_the_reference(
    name: str, seed: int, case: Any, network: Any
) -> None:
    array = case.rule.formula_input(tuple(case.meta["inputs"][name]["shape"]), seed)
    assert zlib.crc32(array.tobytes()) == case.meta["inputs"][name]["crc32"]
    with torch.no_grad():
        stem = tokens = network.embed(torch.from_numpy(array))
        outputs = {"stem_first3": stem[:, :3], "stem_time_mean": stem.mean(1)}
        for number, block in enumerate(network.blocks):
            tokens = block(tokens)
            outputs[f"block{number}_time_mean"] = tokens.mean(1)
        outputs |= {"tokens_first3": tokens[:, :3], "tokens_last3": tokens[:, -3:]}
        outputs["features"] = network.features(torch.from_numpy(array))
        assert torch.equal(network.tokens(torch.from_numpy(array)), tokens)
    stored = {key for key in case.meta["outputs"] if key.endswith(f"_{name}")}
    assert {key.removesuffix(f"_{name}") for key in stored} <= outputs.keys()
    case.check(**{key: outputs[key.removesuffix(f"_{name}")] for key in stored})


def test_kernels_match_the_reference(case: Any, network: Any) -> None:
    taps = case.meta["config"]["kernel_taps"]
    for layer in (0, 3):
        with torch.no_grad():
            kernel = network.blocks[layer].kernel(taps[-1] + 1)
        case.check(**{f"kernel_layer{layer}": kernel.reshape(512, -1)[:, taps]})
