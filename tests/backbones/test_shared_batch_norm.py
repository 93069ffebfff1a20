"""Batch norm of two processes against PyTorch's own of one that has both batches."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from einthoven.backbones.layers.benchmark import BenchmarkConfig, Dense
from einthoven.backbones.layers.shared_batch_norm import SharedBatchNorm, shared_batch_norms
from einthoven.backbones.registry import create_backbone
from einthoven.errors import BackboneError

# Every process trains the same layer on batches of its own: two in a row, then one in eval mode.
SCRIPT = """
import sys, torch
from torch import nn
from einthoven.backbones.layers.shared_batch_norm import shared_batch_norms

folder, rank = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
torch.distributed.init_process_group(
    "gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2
)
results = {}
for name, case in torch.load(f"{folder}/cases.pt").items():
    layer = getattr(nn, case["kind"])(case["channels"], **case["options"]).to(case["precision"])
    layer.load_state_dict(case["state"])
    with shared_batch_norms(layer, processes=2):
        outputs, slopes = [], []
        for x, weights in case["batches"][rank]:
            x = x.requires_grad_()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=case["autocast"]):
                y = layer(x)
            (y.float() * weights).sum().backward()
            outputs.append(y.detach())
            slopes.append(x.grad)
        evaluated = layer.eval()(x)
    assert torch.equal(evaluated, layer(x))  # by PyTorch's own class
    gradients = [parameter.grad for parameter in layer.parameters()]
    results[name] = {"outputs": outputs, "slopes": slopes, "gradients": gradients}
    results[name]["state"] = layer.state_dict()
torch.save(results, f"{folder}/found-{rank}.pt")
torch.distributed.destroy_process_group()
"""
CHANNELS, SHARED = 3, {"kind": "BatchNorm1d", "sizes": (4, 4), "rest": ()}
CASES: dict[str, dict[str, Any]] = {
    "vectors": SHARED,
    "sequences": SHARED | {"rest": (5,)},
    "images, channels last": SHARED | {"kind": "BatchNorm2d", "rest": (1, 6), "last": True},
    "unequal": SHARED | {"sizes": (5, 2), "rest": (4,)},
    "a single record in one": SHARED | {"sizes": (3, 1)},
    "none in one": SHARED | {"sizes": (4, 0), "rest": (4,)},
    "far from zero": SHARED | {"sizes": (6, 3), "rest": (50,), "offset": 300.0, "tolerance": 2e-3},
    "without parameters": SHARED | {"options": {"affine": False}},
    "without running statistics": SHARED | {"options": {"track_running_stats": False}},
    "mean of all batches": SHARED | {"options": {"momentum": None}},
    "double": SHARED | {"sizes": (5, 2), "precision": torch.float64, "tolerance": 1e-12},
    "bf16": SHARED | {"sizes": (5, 3), "rest": (8,), "autocast": True, "tolerance": 2e-2},
}


def _case(sizes: tuple[int, int], rest: tuple[int, ...], **options: Any) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(sum(sizes))
    precision = options.get("precision", torch.float32)
    low = torch.bfloat16 if options.get("autocast") else precision

    def batch(size: int) -> tuple[Tensor, Tensor]:
        x, weights = (
            torch.randn(size, CHANNELS, *rest, generator=draw, dtype=precision) for _ in range(2)
        )
        # The processes' batches have means of their own.
        x = (x * (1 + size) + size + options.get("offset", 0.0)).to(low)
        return (x.to(memory_format=torch.channels_last) if "last" in options else x), weights

    layer = getattr(nn, options["kind"])(CHANNELS, **options.get("options", {})).to(precision)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, 0.5, 2.0, generator=draw)
    return {
        "kind": options["kind"],
        "channels": CHANNELS,
        "options": options.get("options", {}),
        "precision": precision,
        "autocast": options.get("autocast", False),
        "state": layer.state_dict(),
        "batches": [[batch(size) for _ in range(2)] for size in sizes],
    }


@pytest.fixture(scope="module")
def cases() -> dict[str, Any]:
    return {name: _case(**case) for name, case in CASES.items()}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, cases: dict[str, Any]) -> list[dict[str, Any]]:
    """What both processes saw, every case."""
    folder = tmp_path_factory.mktemp("shared-batch-norm")
    torch.save(cases, folder / "cases.pt")
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "error::UserWarning", "-c", SCRIPT, folder, str(rank)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in started:
        _, outputs = process.communicate(timeout=120)
        assert process.returncode == 0, outputs
    return [torch.load(folder / f"found-{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_normalise_as_one(
    name: str, cases: dict[str, Any], found: list[dict[str, Any]]
) -> None:
    case, ours = cases[name], [each[name] for each in found]
    near = {"rtol": 0.0, "atol": CASES[name].get("tolerance", 2e-6)}
    layer = getattr(nn, case["kind"])(CHANNELS, **case["options"]).to(case["precision"])
    layer.load_state_dict(case["state"])
    for step in range(2):
        both = [case["batches"][rank][step] for rank in range(2)]
        x = torch.cat([x.detach() for x, _ in both]).requires_grad_()
        y = layer(x)
        (y.float() * torch.cat([weights for _, weights in both])).sum().backward()
        outputs = [each["outputs"][step] for each in ours]
        assert {each.dtype for each in outputs} == {y.dtype}
        assert torch.allclose(torch.cat(outputs), y, **near)
        assert x.grad is not None
        assert torch.allclose(torch.cat([each["slopes"][step] for each in ours]), x.grad, **near)
        if "last" in CASES[name]:
            assert all(each.is_contiguous(memory_format=torch.channels_last) for each in outputs)
    for place, parameter in enumerate(layer.parameters()):
        total = sum(each["gradients"][place] for each in ours)
        assert torch.allclose(total, parameter.grad, rtol=1e-5, atol=20 * near["atol"])
    for key, value in layer.state_dict().items():
        first, second = (each["state"][key] for each in ours)
        assert torch.equal(first, second), key  # bit for bit: no broadcast is needed
        assert torch.allclose(first, value, rtol=1e-5, atol=1e-6), key


# ---------------------------------------------------------------------- one process


def test_layers_are_shared_as_long_as_the_context_lasts() -> None:
    net = create_backbone("resnet1d_wang", width=8, seed=0)
    norms = [part for part in net.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    kinds, tensors = [type(norm) for norm in norms], [id(p) for p in net.parameters()]
    names = list(net.state_dict())
    assert set(kinds) == {nn.BatchNorm1d, nn.BatchNorm2d}
    with shared_batch_norms(net, processes=2):
        assert {type(norm) for norm in norms} == {SharedBatchNorm}
        assert list(net.state_dict()) == names
        assert [id(p) for p in net.parameters()] == tensors
    assert [type(norm) for norm in norms] == kinds
    with pytest.raises(BackboneError), shared_batch_norms(net, processes=2):
        net.features(torch.zeros(1, 11, 60))  # a lead is missing: training ends early
    assert [type(norm) for norm in norms] == kinds
    with shared_batch_norms(net, processes=1):
        assert [type(norm) for norm in norms] == kinds


def test_a_single_record_is_refused_unless_others_have_more() -> None:
    dense = Dense(4, BenchmarkConfig(name="", hidden=3)).train()
    with pytest.raises(BackboneError, match="drop_last"):
        dense(torch.randn(1, 4))
    with shared_batch_norms(dense, processes=2), pytest.raises(ValueError, match=r"torch\.Size"):
        dense(torch.randn(1, 4))  # a single process: PyTorch's own refusal
