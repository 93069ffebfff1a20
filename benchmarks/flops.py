"""Floating-point operations of a network, and the share of a card's peak that a step reaches.

Counted are matrix products, convolutions, attention and Fourier transforms of a forward pass, by
PyTorch's own counter; nothing elementwise. A training step is three forward passes, the rule that
model FLOPs utilisation is quoted by: what is computed again, or in a roundabout way, is not
credited.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from devices import finish
from einthoven.backbones.inference import Precision
from table import timed

ATEN = torch.ops.aten
PASSES = 3  # forward, and twice as much backward
# Dense peaks by name of the card, in FLOP/s, from NVIDIA's data sheets: bf16 on tensor cores with
# sums in fp32, and fp32 without tensor cores, which is what PyTorch computes fp32 with by default.
PEAKS: dict[str, dict[Precision, float]] = {
    "NVIDIA H200": {"bf16": 989e12, "fp32": 67e12},
    "NVIDIA H100 80GB HBM3": {"bf16": 989e12, "fp32": 67e12},
    "NVIDIA H100 PCIe": {"bf16": 756e12, "fp32": 51e12},
    "NVIDIA A100-SXM4-80GB": {"bf16": 312e12, "fp32": 19.5e12},
    "NVIDIA A100-SXM4-40GB": {"bf16": 312e12, "fp32": 19.5e12},
}
SIZE, REPEATS = 8192, 10


def real_fft(points: int) -> float:
    """Operations of a transform between so many real numbers and their spectrum."""
    return 2.5 * points * math.log2(points)


def forward_flops(forward: Callable[[Tensor], object], x: Tensor) -> int:
    """Operations of a forward pass of `x`, as the network is, in fp32 on the CPU."""
    counter = FlopCounterMode(display=False, custom_mapping=_OURS)
    with torch.no_grad():
        forward(x)  # once before counting: frozen dynamics are computed in the first pass only
        with counter:
            forward(x)
    return counter.get_total_flops()


def step_flops(forward: Callable[[Tensor], object], record: Tensor, batch: int) -> int:
    """Operations of a training step of a batch.

    Parameters
    ----------
    forward : callable
        The loss of a batch, on the CPU. It is called with one record and with two: what two take
        more than one is what every further record takes, and the rest, such as kernels, is the
        same for any batch. So few records go through the FFT where a long convolution has other
        forms, which compute more for the same result.
    record : Tensor, shape (1, leads, samples)
    batch : int
    """
    one, two = (forward_flops(forward, record.expand(n, -1, -1)) for n in (1, 2))
    return PASSES * (one + (batch - 1) * (two - one))


def utilisation(flops: float, seconds: float, device: torch.device, precision: Precision) -> str:
    """Sentence on a step's share of the card's peak; empty on a CPU."""
    if device.type != "cuda":
        return ""
    name = torch.cuda.get_device_name(device)
    datasheet_peak = PEAKS.get(name, {}).get(precision)
    peak = datasheet_peak or matrix_product(device, precision)
    source = (
        "its data sheet" if datasheet_peak else f"a product of {SIZE} x {SIZE} matrices in this run"
    )
    return (
        f"; {flops / 1e9:.0f} GFLOP, {flops / seconds / peak:.1%} of {name}'s "
        f"{peak / 1e12:.0f} TFLOP/s in {precision} ({source})"
    )


def matrix_product(device: torch.device, precision: Precision) -> float:
    """Operations a second of a large matrix product, the fastest of a few."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(SIZE, SIZE, device=device, dtype=dtype) for _ in range(2))

    def product() -> None:
        torch.mm(a, b)
        finish(device)

    product()
    return 2 * SIZE**3 / min(timed(product).wall for _ in range(REPEATS))


def _r2c(shape: Any, dim: Any, *rest: Any, out_shape: Any = None, **more: Any) -> int:
    return _transforms(shape, dim)


def _c2r(shape: Any, dim: Any, *rest: Any, out_shape: Any = None, **more: Any) -> int:
    return _transforms(out_shape, dim)


def _transforms(shape: Any, dim: Any) -> int:
    """Transform of real numbers of this shape, along one axis."""
    (axis,) = dim
    points: int = shape[axis]
    rows: int = math.prod(shape) // points
    return round(rows * real_fft(points))


def _attention(query: Any, key: Any, value: Any, *rest: Any, **more: Any) -> int:
    operations: int = sdpa_flop_count(query, key, value)  # type: ignore[no-untyped-call]
    return operations


_OURS = {
    ATEN._fft_r2c: _r2c,
    ATEN._fft_c2r: _c2r,
    ATEN._scaled_dot_product_flash_attention_for_cpu: _attention,
}
