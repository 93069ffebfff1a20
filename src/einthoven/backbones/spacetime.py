"""SpaceTime: state-space layers with companion matrices over the whole record; our reading for ECG.

Zhang et al., "Effectively Modeling Time Series with Simple Discrete State Spaces", ICLR 2023. The
paper reports PTB-XL; its public code covers forecasting only and has no configuration, loader or
head for ECGs.

Known, from the public code (revision 7b7398c) and checked against numbers that it returned
    The companion state-space layer (`CompanionKernel`) and the default block around it: width 128,
    state 64; in the first block fixed differences and moving averages and 16 kernels shared by 8
    channels each, in the others a kernel for every channel; skip weights, GELU, dropout, a linear
    layer, and the two residual sums.
Chosen here, as it is not published
    A linear embedding of the twelve leads, four blocks, the mean over time and no norm anywhere;
    dropout 0.2 (forecasting used 0.2 and 0.25); full records of 10 s at 100 Hz, as MultiresNet
    reads them; the scale of the initial b and c.

The layer
---------
A long filter that one linear recursion generates. A state of size d is shifted by one place a step,
and its last entry is fed back through a column a: ``A = shift + a e_d^T``, a companion matrix. A
kernel is ``f[t] = c^T A^t b``, with a, b and c all learned; a is divided by the sum of its
magnitudes, so that no power of A enlarges a state's sum of magnitudes and f is bounded by ``max|c|
sum|b|``.

The published code forms the powers by repeated squaring, d^3 log L and d^2 L operations for a
kernel of length L. A companion matrix needs no powers: its last entry w obeys an
autoregression with coefficients a, and what the others hold are shifted copies of b and of w, so
that f is the impulse response of an ARMA filter,

    f(z) = B(z) + z A(z) W(z),    W(z) = b'(z) / (1 - z a'(z)),

where a', b' are a and b in reverse order and A, B the correlations of c with a and b. Five
polynomials of degree below d are evaluated on a circle and one series is read back
(`companion_kernel`): L log L operations.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn.functional import conv1d, gelu, pad

from einthoven.backbones.config import Count, Share
from einthoven.backbones.layers.long_convolution import convolve
from einthoven.backbones.layers.power_series import Circle
from einthoven.backbones.layers.stochastic_depth import StochasticDepth
from einthoven.backbones.layers.windowed import SampleStack, WindowedConfig
from einthoven.backbones.registry import Entry


def unit_column(a: Tensor) -> Tensor:
    """Columns over the sum of their magnitudes, shape (..., state); a column of zeros stays."""
    # Smaller sums would give gradients that overflow.
    return a / a.abs().sum(-1, keepdim=True).clamp_min(torch.finfo(a.dtype).eps)


def companion_kernel(a: Tensor, b: Tensor, c: Tensor, length: int) -> Tensor:
    """``f[t] = c^T A^t b`` for t = 0 to length - 1, as the expansion of a rational function.

    The arguments are (kernels, state): the last column of the companion matrix, its magnitudes of
    sum 1 or less; input weights; output weights. The result is (kernels, length), computed in
    double and in the precision of c.
    """
    state = a.shape[-1]
    circle = Circle(length, state, device=a.device)
    column, entry, output = (part.double() for part in (a, b, c))
    with torch.autocast(a.device.type, enabled=False):
        spectra = torch.fft.rfft(torch.stack([column, entry, output]), 2 * state)
        # Lags 0 to state - 1 of the correlations with c; the negative ones are not reached.
        lags = torch.fft.irfft(spectra[2] * spectra[:2].conj(), 2 * state)[..., :state]
        kernel, skip = circle.values(lags)
        feedback, last = circle.values(torch.stack([column, entry]).flip(-1))
        z = circle.points()
        response = circle.coefficients(skip + z * kernel * last / (1.0 - z * feedback))
    return response.to(c.dtype)


class CompanionKernel(nn.Module):
    """Kernels of all channels, each shared by `heads` neighbouring ones.

    Notes
    -----
    a starts from a standard normal draw, whose scale the division takes away. b and c have a
    standard deviation of ``state ** -0.5`` (our choice): the sum of a kernel's squares is then near
    one half, where standard normal b and c make it thousands, layer after layer.
    """

    def __init__(self, kernels: int, state: int, *, heads: int = 1) -> None:
        super().__init__()
        self.heads = heads
        self.a = nn.Parameter(torch.randn(kernels, state))
        self.b = nn.Parameter(torch.randn(kernels, state) * state**-0.5)
        self.c = nn.Parameter(torch.randn(kernels, state) * state**-0.5)

    def forward(self, length: int) -> Tensor:
        """Kernels, (channels, length)."""
        kernel = companion_kernel(unit_column(self.a), self.b, self.c, length)
        return kernel.repeat_interleave(self.heads, 0) if self.heads > 1 else kernel


# Coefficients of the differences of order 0 to 3, the present first.
DIFFERENCES = ((1, 0, 0, 0), (1, -1, 0, 0), (1, -2, 1, 0), (1, -3, 3, -1))
SHORTEST_AVERAGE = 4


@dataclass(frozen=True, kw_only=True)
class SpaceTimeConfig(WindowedConfig):
    """Configuration of a SpaceTime encoder.

    Attributes
    ----------
    width, depth : int
        Channels, in groups of eight for differences and moving averages, and blocks.
    state : int
        Size of a companion matrix, and taps of the fixed filters in front of the first block.
    shared : int
        Neighbouring channels that share a kernel in the first block.
    dropout : float
        In front of every linear layer, part of the network: a recipe does not change it.
    """

    width: Annotated[int, Field(gt=0, multiple_of=8)] = 128
    depth: Count = 4
    state: Annotated[int, Field(gt=SHORTEST_AVERAGE)] = 64
    shared: Count = 8
    dropout: Share = 0.2

    def __post_init__(self) -> None:
        self.require(self.width % self.shared == 0, "shared", "give a divisor of the width")


class Preprocessing(nn.Module):
    """Fixed filters: differences, and what is left when a moving average is subtracted.

    The first four of every eight channels are differenced (orders 0 to 3). From the others the mean
    of their last samples is subtracted; the number of samples is drawn between 4 and `taps`.
    """

    windows: Tensor

    def __init__(self, width: int, taps: int) -> None:
        super().__init__()
        self.taps = taps
        # Integers, in the checkpoint: half of the channels mean nothing without them.
        self.register_buffer("windows", torch.randint(SHORTEST_AVERAGE, taps, (width // 2,)))

    def kernel(self) -> Tensor:
        """Weights of lags 0 to taps - 1, (width, taps), float32."""
        lags = torch.arange(self.taps, device=self.windows.device)
        inside = lags < self.windows[:, None]
        averages = (lags == 0).float() - inside / self.windows[:, None]
        differences = averages.new_tensor(DIFFERENCES)
        differences = pad(differences, (0, self.taps - differences.shape[1]))
        groups = averages.view(-1, 4, self.taps)
        both = torch.cat([differences.expand_as(groups), groups], dim=1)
        return both.flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, tokens, width) to the same shape, in fp32: differences cancel most digits."""
        with torch.autocast(x.device.type, enabled=False):
            past = pad(x.float().transpose(1, 2), (self.taps - 1, 0))
            weight = self.kernel().flip(-1).unsqueeze(1)
            return conv1d(past, weight, groups=len(weight)).transpose(1, 2)


class SpaceTimeBlock(nn.Module):
    """Fixed filters in the first block; then companion filters and a linear layer, added to them.

    Channels share kernels in the first block only.
    """

    def __init__(self, config: SpaceTimeConfig, *, first: bool) -> None:
        super().__init__()
        shared = config.shared if first else 1
        self.kernel = CompanionKernel(config.width // shared, config.state, heads=shared)
        self.preprocessing = Preprocessing(config.width, config.state) if first else None
        self.skip = nn.Parameter(torch.randn(config.width))
        self.dropout = nn.Dropout(config.dropout)
        self.linear = nn.Linear(config.width, config.width)
        self.depth = StochasticDepth()

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, tokens, width) to the same shape."""
        if self.preprocessing is not None:
            x = self.preprocessing(x)
        out: Tensor = self.depth(x, self.branch)
        return out

    def branch(self, x: Tensor) -> Tensor:
        """Residual branch; (batch, tokens, width)."""
        filtered = convolve(x, self.kernel(x.shape[1])[None], self.skip)
        mixed: Tensor = self.linear(self.dropout(gelu(filtered)))
        return mixed + filtered


class SpaceTime(SampleStack):
    """The SpaceTime encoder; every token depends on the past only."""

    family = "spacetime"

    def __init__(self, config: SpaceTimeConfig) -> None:
        blocks = [SpaceTimeBlock(config, first=index == 0) for index in range(config.depth)]
        super().__init__(config, blocks)

    def no_weight_decay(self) -> set[str]:
        """Skip weights, and the columns, whose size means nothing; both by our choice."""
        names = (name for name, _ in self.named_parameters())
        return {name for name in names if name.endswith((".skip", ".kernel.a"))}


ENTRIES = (
    Entry(
        network=SpaceTime,
        config=SpaceTimeConfig(name="spacetime"),
        summary="SpaceTime, our reading: companion state-space layers, 100 Hz, 10 s",
        origin="our reading of SpaceTime",
        paper="Zhang et al., Effectively Modeling Time Series with Simple Discrete State Spaces, "
        "ICLR 2023",
        parameters=145_024,
        recipe="spacetime",
    ),
)
