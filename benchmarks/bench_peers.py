"""Task-specific networks against straightforward versions of them.

    python benchmarks/bench_peers.py

A function a network, which `MEASURED` lists. A training step is forward, loss, backward and
optimiser on random records with 71 labels; losses are compared first, both steps run in turn, and
the fastest of each counts. A baseline steps AdamW one parameter at a time.

MULTIRESNET: the same network and weights with the layer as its paper defines it, two convolutions a
scale; 50 records of 10 s at 100 Hz, the published batch. Under bf16 both run in autocast, which
takes the baseline's convolutions to bf16 and leaves our layer in fp32. One row is the layer alone.

Wavelet+NN: the features of records one by one, a lead and an array at a time, with NumPy's and
SciPy's functions.

SpaceTime: the same network and weights with kernels by repeated squaring of the companion matrices,
as its public code forms them; 50 records of 10 s at 100 Hz. Two rows are a layer's kernels and its
convolution alone; the latter against autograd's gradient of the same FFTs.

Chimera: a two-dimensional layer alone, on 16 crops of 2.5 s, against the recursion that defines it,
cell by cell.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import entropy
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, conv1d, pad
from torch.optim import AdamW

from devices import CPU
from einthoven.backbones.classifier import create_classifier
from einthoven.backbones.inference import Precision
from einthoven.backbones.layers.long_convolution import convolve
from einthoven.backbones.layers.two_dimensional_ssm import GridKernel, GridSystem, grid_convolve
from einthoven.backbones.layers.wavelet_features import COEFFICIENTS, wavelet_features
from einthoven.backbones.spacetime import unit_column
from einthoven.training.loop import autocast
from einthoven.training.optim import adamw, parameter_groups
from table import Row, alternately, print_table, speed_row

BATCH, SAMPLES, LABELS = 50, 1000, 71
LEARNING_RATE = 1e-4
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")

Floats = NDArray[np.float64]


def signals(batch: int = BATCH) -> Tensor:
    """The same random records every time."""
    return torch.randn(batch, 12, SAMPLES, generator=torch.Generator().manual_seed(0))


# ---------------------------------------------------------------------- training steps


def loss_of(model: nn.Module, x: Tensor) -> Tensor:
    """The loss of training; some targets are 1, so that gradients do not become denormal."""
    logits = model(x).float()
    ones = torch.rand(logits.shape, generator=torch.Generator().manual_seed(1)) < 0.05
    return binary_cross_entropy_with_logits(logits, ones.float())


def step_of(
    model: nn.Module, optimizer: AdamW, precision: Precision, x: Tensor
) -> Callable[[], None]:
    """A call that takes one training step."""

    def step() -> None:
        with autocast(CPU, precision):
            loss = loss_of(model, x)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def backward(out: Tensor) -> None:
    """Gradients of the sum of squares of a layer's output."""
    out.square().sum().backward()  # type: ignore[no-untyped-call]


def step_rows(name: str, ours: nn.Module, plain: nn.Module, rounds: int) -> list[Row]:
    """A training step of two networks with the same weights, in fp32 and in bf16."""
    x, rows = signals(), []
    with torch.no_grad():
        expected = loss_of(plain.eval(), x)
        apart = float((loss_of(ours.eval(), x) - expected).abs() / expected)
    ours.train(), plain.train()
    for precision in PRECISIONS:
        fused = adamw(parameter_groups(ours, weight_decay=0.06), betas=(0.9, 0.999))
        for group in fused.param_groups:
            group["lr"] = LEARNING_RATE
        looped = AdamW(plain.parameters(), lr=LEARNING_RATE, foreach=False, fused=False)
        steps = step_of(ours, fused, precision, x), step_of(plain, looped, precision, x)
        steps[0](), steps[1]()  # the first makes the optimiser's state
        times = alternately(*steps, rounds)
        note = f"batch {len(x)}, {len(x) / times[0].wall:.0f} crops/s; losses {apart:.0e} apart"
        rows.append(speed_row(f"{name} step, {precision}", *times, note=note))
    return rows


# ---------------------------------------------------------------------- MULTIRESNET


class PlainLayer(nn.Module):
    """The layer by its definition, on the parameters of ours."""

    def __init__(self, ours: Any) -> None:
        super().__init__()
        self.ours = ours

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, channels) to the same shape."""
        low, high, weights = self.ours.low, self.ours.high, self.ours.weights[..., None]
        channels, scales = len(weights), weights.shape[1] - 2
        signal = x.transpose(1, 2).contiguous()
        total = weights[:, scales + 1] * signal
        for scale in range(scales):
            padded = pad(signal, (2**scale, 0))
            detail = conv1d(padded, high[:, None], dilation=2**scale, groups=channels)
            signal = conv1d(padded, low[:, None], dilation=2**scale, groups=channels)
            total = total + weights[:, scales - scale] * detail
        out: Tensor = (total + weights[:, 0] * signal).transpose(1, 2)
        return out


def layer_call(layer: nn.Module) -> Callable[[], None]:
    """Forward and backward of a layer alone."""
    x = torch.randn(BATCH, SAMPLES, 128, generator=torch.Generator().manual_seed(2))
    x.requires_grad_()
    return lambda: layer(x).mean().backward()


def multiresnet(rounds: int) -> list[Row]:
    """Steps of the network, and its layer alone."""
    ours: Any = create_classifier("multiresnet", labels=LABELS, seed=0)
    plain: Any = deepcopy(ours)
    for block in plain.backbone.blocks:
        block.multires = PlainLayer(block.multires)
    rows = step_rows("MULTIRESNET", ours, plain, rounds)
    layer = ours.backbone.blocks[0].multires
    calls = layer_call(layer), layer_call(PlainLayer(layer))
    rows.append(speed_row("  its layer, fp32", *alternately(*calls, rounds)))
    return rows


# ---------------------------------------------------------------------- Wavelet+NN


def plain_arrays(x: Floats, levels: int = 5) -> list[Floats]:
    """The wavelet transform of one lead, by convolution."""
    low = np.array(COEFFICIENTS[::-1])
    high = low[::-1] * (-1.0) ** np.arange(1, len(low) + 1)
    details = []
    for _ in range(levels):
        padded = np.pad(x, len(low) - 1, mode="symmetric")
        details.append(np.convolve(padded, high, mode="valid")[1::2])
        x = np.convolve(padded, low, mode="valid")[1::2]
    return [x, *details[::-1]]


def plain_statistics(values: Floats) -> list[float]:
    """The statistics of one array."""
    counts = np.array(list(Counter(values.tolist()).values()))
    crossings = [np.count_nonzero(np.diff(values > level)) for level in (0.0, float(values.mean()))]
    percentiles = np.percentile(values, [5, 25, 75, 95])
    moments = [np.median(values), values.mean(), values.std(), values.var()]
    return [
        float(entropy(counts)),
        *crossings,
        *percentiles,
        *moments,
        float(np.sqrt(np.mean(values**2))),
    ]


def plain_features(x: Tensor) -> Floats:
    """The features of records, one after the other."""
    return np.array(
        [
            [[s for a in plain_arrays(lead) for s in plain_statistics(a)] for lead in record]
            for record in x.double().numpy()
        ]
    )


def wavelet_nn(rounds: int, records: int = 64) -> list[Row]:
    """The features of records."""
    x = signals(records)
    apart = np.abs(wavelet_features(x).numpy() - plain_features(x)).max()
    times = alternately(lambda: wavelet_features(x), lambda: plain_features(x), rounds)
    note = f"{records / times[0].wall:,.0f} records/s; at most {apart:.0e} apart"
    return [speed_row("Wavelet+NN features of a record", *times, per=records, note=note)]


# ---------------------------------------------------------------------- SpaceTime


def kernel_by_squaring(a: Tensor, b: Tensor, c: Tensor, length: int) -> Tensor:
    """`companion_kernel` from powers of the whole matrix."""
    kernels, state = a.shape
    shift = torch.diag(a.new_ones(state - 1), -1).expand(kernels, state, state)
    power = torch.cat([shift[..., :-1], a[..., None]], dim=-1)
    states = b[..., None]
    while states.shape[-1] < length:
        states = torch.cat([states, power @ states], dim=-1)
        power = power @ power
    return (c[:, None] @ states[..., :length])[:, 0]


class SquaredKernel(nn.Module):
    """Kernels by repeated squaring, from the parameters of ours."""

    def __init__(self, ours: Any) -> None:
        super().__init__()
        self.ours = ours

    def forward(self, length: int) -> Tensor:
        """(channels, length)."""
        ours = self.ours
        kernel = kernel_by_squaring(unit_column(ours.a), ours.b, ours.c, length)
        return kernel.repeat_interleave(ours.heads, 0)


def by_autograd(x: Tensor, kernels: Tensor) -> Tensor:
    """Causal convolution by the FFT, its gradient left to autograd."""
    size = 2 * x.shape[1]
    spectrum = torch.fft.rfft(x.transpose(1, 2), size) * torch.fft.rfft(kernels[0], size)
    filtered: Tensor = torch.fft.irfft(spectrum, size)[..., : x.shape[1]].transpose(1, 2)
    return filtered


def spacetime(rounds: int) -> list[Row]:
    """Steps of the network, and the kernels of a layer."""
    ours: Any = create_classifier("spacetime", labels=LABELS, seed=0)
    plain: Any = deepcopy(ours)
    for block in plain.backbone.blocks:
        block.kernel = SquaredKernel(block.kernel)
    rows = step_rows("SpaceTime", ours, plain, rounds)
    kernel, squared = (model.backbone.blocks[1].kernel for model in (ours, plain))
    times = alternately(
        lambda: backward(kernel(SAMPLES)), lambda: backward(squared(SAMPLES)), rounds
    )
    rows.append(speed_row("  its kernels, a layer, fp32", *times))
    taps = kernel(SAMPLES).detach()[None].requires_grad_()
    x = torch.randn(BATCH, SAMPLES, taps.shape[1], requires_grad=True)
    skip = torch.zeros(taps.shape[1])
    apart = (convolve(x, taps, skip) - by_autograd(x, taps)).abs().max().item()
    times = alternately(
        lambda: backward(convolve(x, taps, skip)), lambda: backward(by_autograd(x, taps)), rounds
    )
    note = f"{apart:.0e} apart"
    return [*rows, speed_row("  its convolution, a layer, fp32", *times, note=note)]


# ---------------------------------------------------------------------- Chimera


def by_cells(kernel: GridKernel, x: Tensor, skip: Tensor) -> Tensor:
    """A two-dimensional layer by its recursion, both directions at once."""
    low = {name: part.to(torch.complex64) for name, part in vars(kernel.system()).items()}
    system = GridSystem(**{name: part.unsqueeze(1) for name, part in low.items()})
    both = torch.stack([x, x.flip(1)])[..., None]
    variates, tokens = x.shape[1:3]
    zero = both.new_zeros(()).to(torch.complex64)
    above, rows = [(zero, zero)] * tokens, []
    for v in range(variates):
        row, earlier = [], (zero, zero)
        for t in range(tokens):
            now, (first, second) = both[:, :, v, t], above[t]
            along = system.a1 * earlier[0] + system.a2 * earlier[1] + system.b1 * now
            earlier = along, system.a3 * first + system.a4 * second + system.b2 * now
            row.append(earlier)
        above = row
        out = [2 * (system.c1 * first + system.c2 * second).real.sum(-1) for first, second in row]
        rows.append(torch.stack(out, dim=2))
    down, up = torch.stack(rows, dim=2).unbind()
    return down + up.flip(1) + skip * x


def chimera(rounds: int, crops: int = 16) -> list[Row]:
    """Forward and backward of a layer."""
    block: Any = create_classifier("chimera", labels=LABELS, seed=0).backbone.blocks[0]
    kernel, skip = block.kernel, block.skip
    x = torch.randn(crops, 12, 50, 64, generator=torch.Generator().manual_seed(3)).requires_grad_()

    def ours() -> Tensor:
        return grid_convolve(x, kernel(*x.shape[1:3]), skip)

    with torch.no_grad():
        expected = by_cells(kernel, x, skip)
        apart = float((ours() - expected).abs().max() / expected.abs().max())
    times = alternately(
        lambda: backward(ours()), lambda: backward(by_cells(kernel, x, skip)), rounds
    )
    return [speed_row("Chimera's layer, fp32", *times, note=f"{crops} crops; {apart:.0e} apart")]


# ---------------------------------------------------------------------- all

MEASURED: tuple[Callable[[int], list[Row]], ...] = (multiresnet, wavelet_nn, spacetime, chimera)


def run(rounds: int = 3) -> list[Row]:
    """Measure every network."""
    return [row for measure in MEASURED for row in measure(rounds)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    print_table(run(parser.parse_args().rounds), title="Task-specific networks")


if __name__ == "__main__":
    main()
