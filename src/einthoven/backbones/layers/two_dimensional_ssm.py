"""Two-dimensional state-space layers: one state carried along time, one from variate to variate.

On a grid of variates v (the leads of an ECG) and times t, each channel has two coupled states,

    h1(v, t) = a1 h1(v, t - 1) + a2 h2(v, t - 1) + b1 x(v, t)
    h2(v, t) = a3 h1(v - 1, t) + a4 h2(v - 1, t) + b2 x(v, t)
    y(v, t)  = 2 Re(c1 h1(v, t) + c2 h2(v, t)),

with zeros before the first time and the first variate, and a second system that runs from the last
variate to the first. All products are elementwise: a state is a set of independent modes, complex
ones (a diagonal matrix is what a companion matrix is in the basis of its modes).

The parameters do not depend on the input, so the layer is a convolution over the grid. Its kernel
needs no steps through time: as power series in time, the states of one row after an impulse are
rational functions, so that the recursion over the few variates is run on their values on a circle
(`einthoven.backbones.layers.power_series`) and read back once. The convolution itself is a Fourier
transform over time and, for each frequency and channel, a small matrix over the variates.

Discretisation (our choice): each axis by zero-order hold with the other state as an input, so that
a2, b1 and a3, b2 are held as long as a1 and a4 decay. With ``|A2| <= -Re A1`` and ``|A3| <= -A4``,
bounded by a tanh, no frequency is amplified from one row to the next, however many there are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from einthoven.backbones.layers.power_series import Circle
from einthoven.errors import BackboneError


@dataclass(frozen=True)
class GridSystem:
    """The weights of the recursion above, each of shape (..., modes), real or complex."""

    a1: Tensor
    a2: Tensor
    a3: Tensor
    a4: Tensor
    b1: Tensor
    b2: Tensor
    c1: Tensor
    c2: Tensor


def grid_response(system: GridSystem, variates: int, length: int) -> Tensor:
    """Output of each variate and time after an impulse at the first of both, summed over the modes.

    The result is (..., variates, length) float64. Responses have to be bounded: see the module's
    note on discretisation.
    """
    circle = Circle(length, device=system.a1.device)
    step = circle.points(whole=True)  # one step of time
    a1, a2, a3, a4, b1, b2, c1, c2 = (
        part.to(step.dtype).unsqueeze(-1) for part in vars(system).values()
    )
    decay = 1.0 / (1.0 - a1 * step)
    across = decay * a2 * step  # h1 of a row, for a unit of its h2
    along = decay * b1  # h1 of the impulse's row, for the impulse
    output = c1 * across + c2
    # Behind the impulse's row nothing enters: a row's h2 is the one before times `onward`.
    onward, second = a4 + a3 * across, b2.expand_as(along)
    rows = [(output * second + c1 * along).sum(-2)]
    second = onward * second + a3 * along
    for row in range(1, variates):
        rows.append((output * second).sum(-2))
        if row < variates - 1:
            second = onward * second
    return 2.0 * circle.whole_coefficients(torch.stack(rows, dim=-2)).real


def grid_convolve(x: Tensor, kernel: Tensor, skip: Tensor) -> Tensor:
    """Filter every channel of a grid, causally in time and both ways over the variates.

    Parameters
    ----------
    x : Tensor, shape (batch, variates, tokens, channels)
        In float32 whatever the autocast; float64 stays.
    kernel : Tensor, shape (channels, 2 * variates - 1, tokens)
        Weights by lag: of a variate after (lag 1 - variates) to one before (lag variates - 1).
    skip : Tensor, shape (channels,)
        Added to the weight of the present of the same variate.

    Returns
    -------
    Tensor, shape (batch, variates, tokens, channels)

    Notes
    -----
    A Fourier transform over twice the tokens, a product over the variates for each channel and
    frequency, and the way back. The transforms are matrix products too: up to some two hundred
    tokens they are faster than an FFT on a CPU, and the grid is laid out anew only twice.
    """
    if x.shape[0] == 0:
        return x
    _, variates, tokens, _ = x.shape
    dtype = x.dtype if x.dtype == torch.float64 else torch.float32
    into, back = _fourier(tokens, dtype, x.device)
    present = torch.zeros(2 * variates - 1, tokens, dtype=dtype, device=x.device)
    present[variates - 1, 0] = 1.0
    with torch.autocast(x.device.type, enabled=False):
        taps = kernel.to(dtype) + skip.to(dtype)[:, None, None] * present
        matrices = _over_variates(taps @ into.t(), variates)
        filtered: Tensor = _Convolution.apply(x.to(dtype), matrices, into, back)  # type: ignore[no-untyped-call]
    return filtered


class _Convolution(Function):
    """Into frequencies, over the variates, and back; written out to lay out gradients only once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrices: Tensor, into: Tensor, back: Tensor) -> Tensor:
        spectrum = (into @ _time_first(x)).view(matrices.shape[0], -1, x.shape[0])
        ctx.save_for_backward(spectrum, matrices, into, back)
        return _from_spectrum(torch.bmm(matrices, spectrum), back, x.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        spectrum, matrices, into, back = ctx.saved_tensors
        with torch.autocast(grad.device.type, enabled=False):  # a caller's may reach this far
            above = (back.t() @ _time_first(grad)).view_as(spectrum)
            below = torch.bmm(matrices.transpose(1, 2), above)
            weights = torch.bmm(above, spectrum.transpose(1, 2))
            return _from_spectrum(below, into.t(), grad.shape), weights, None, None


def _from_spectrum(spectrum: Tensor, back: Tensor, shape: torch.Size) -> Tensor:
    batch, variates, _, channels = shape
    columns = back @ spectrum.view(channels, back.shape[1], variates * batch)
    return _batch_first(columns, shape)


# The order of all four axes is reversed. In two strides, a matrix transpose and a copy of the batch
# in whole rows, that takes a third to half as long as PyTorch's single copy.


def _time_first(x: Tensor) -> Tensor:
    """Map (batch, variates, tokens, channels) to (channels, tokens, variates * batch)."""
    batch, variates, tokens, channels = x.shape
    rows = x.reshape(batch, -1).t().contiguous().view(variates, tokens, channels, batch)
    return rows.permute(2, 1, 0, 3).reshape(channels, tokens, variates * batch)


def _batch_first(columns: Tensor, shape: torch.Size) -> Tensor:
    batch, variates, tokens, channels = shape
    rows = columns.view(channels, tokens, variates, batch).permute(2, 1, 0, 3)
    return rows.reshape(-1, batch).t().contiguous().view(shape)


def _fourier(tokens: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Into and out of half a spectrum of `2 * tokens` frequencies, real and imaginary in turn.

    (2 * (tokens + 1), tokens) and its inverse on what is zero-padded to twice the length.
    """
    frequency = torch.arange(tokens + 1, dtype=torch.float64, device=device)
    angle = frequency[:, None] * frequency[:-1] * (torch.pi / tokens)
    waves = torch.stack([angle.cos(), -angle.sin()], dim=1)
    share = torch.full_like(frequency, 1.0 / tokens)  # a frequency stands for its negative too
    share[0] = share[-1] = 0.5 / tokens
    back = (share[:, None, None] * waves).flatten(0, 1).t()
    return waves.flatten(0, 1).to(dtype), back.to(dtype).contiguous()


def _over_variates(spectra: Tensor, variates: int) -> Tensor:
    """Complex products over the variates as real matrices, (channels * frequencies, 2 v, 2 v).

    `spectra` is (channels, 2 * variates - 1, 2 * frequencies), real and imaginary in turn.
    """
    place = torch.arange(variates, device=spectra.device)
    lags = place[:, None] - place + variates - 1
    # Positions of the entries of the real, negative imaginary and imaginary parts, in turn.
    count = 2 * variates - 1
    upper, lower = torch.cat([lags, lags + count], 1), torch.cat([lags + 2 * count, lags], 1)
    places = torch.cat([upper, lower]).flatten()
    real, imaginary = (spectra[..., part::2].transpose(1, 2) for part in (0, 1))
    parts = torch.cat([real, -imaginary, imaginary], dim=-1).flatten(0, 1)
    return parts.index_select(1, places).view(-1, 2 * variates, 2 * variates)


class GridKernel(nn.Module):
    """Kernels of all channels, learned through two systems each, one for either direction.

    Parameters
    ----------
    channels : int
        An even number: the first half is the slow head, the other the fast one.
    modes : int
        Complex modes of a channel's two states.

    Raises
    ------
    BackboneError
        If the channels cannot be halved or there is no mode.

    Notes
    -----
    The modes start as those of S4D-Lin (Gu et al., NeurIPS 2022), ``A1 = -1/2 + i pi n``; over the
    variates ``A4 = -1``. Input weights start at one; output weights are complex normal numbers of
    variance 1 / modes, which gives a kernel whose squares sum to about one.
    """

    def __init__(self, channels: int, modes: int) -> None:
        super().__init__()
        if channels < 2 or channels % 2 or modes < 1:
            raise BackboneError(
                f"width = {channels}, modes = {modes}",
                remedy="give an even number of channels, half of them slow and half fast, and a "
                "mode or more",
            )
        shape = (2, channels, modes)
        # Steps in tokens: those of one half of the channels are slow.
        heads = [_log_uniform(channels // 2, 0.01, 0.1), _log_uniform(channels // 2, 0.1, 1.0)]
        self.log_step_time = nn.Parameter(torch.cat(heads, dim=1))
        self.log_step_variate = nn.Parameter(_log_uniform(channels, 0.1, 1.0))
        self.log_decay_time = nn.Parameter(torch.full(shape, math.log(0.5)))
        self.frequency = nn.Parameter(math.pi * torch.arange(modes).float().expand(shape).clone())
        self.log_decay_variate = nn.Parameter(torch.zeros(shape))
        self.to_time = nn.Parameter(0.5 * torch.randn(shape))  # tanh: A2 over its bound
        self.to_variate = nn.Parameter(0.5 * torch.randn(shape))  # the same of A3
        self.input_time = nn.Parameter(torch.ones(shape))
        self.input_variate = nn.Parameter(torch.ones(shape))
        scale = (0.5 / modes) ** 0.5
        self.output_time = nn.Parameter(torch.randn(*shape, 2) * scale)
        self.output_variate = nn.Parameter(torch.randn(*shape, 2) * scale)

    def system(self) -> GridSystem:
        """The recursion's weights, in double precision, (2, channels, modes)."""
        decay, fade = self.log_decay_time.double().exp(), self.log_decay_variate.double().exp()
        rate = torch.complex(-decay, self.frequency.double())
        a1 = torch.exp(rate * self.log_step_time.double().exp().unsqueeze(-1))
        a4 = torch.exp(-fade * self.log_step_variate.double().exp().unsqueeze(-1))
        held_time, held_variate = (a1 - 1.0) / rate, (1.0 - a4) / fade
        return GridSystem(
            a1=a1,
            a2=held_time * decay * self.to_time.double().tanh(),
            a3=held_variate * fade * self.to_variate.double().tanh(),
            a4=a4,
            b1=held_time * self.input_time,
            b2=held_variate * self.input_variate,
            c1=torch.view_as_complex(self.output_time.double()),
            c2=torch.view_as_complex(self.output_variate.double()),
        )

    def forward(self, variates: int, length: int) -> Tensor:
        """Weights by lag as `grid_convolve` takes them, (channels, 2 * variates - 1, length)."""
        with torch.autocast(self.frequency.device.type, enabled=False):
            down, up = grid_response(self.system(), variates, length)
            lags = torch.cat([up.flip(1)[:, :-1], up[:, :1] + down[:, :1], down[:, 1:]], dim=1)
        return lags.to(self.frequency.dtype)


def _log_uniform(channels: int, low: float, high: float) -> Tensor:
    spread = torch.rand(2, channels) * (math.log(high) - math.log(low))
    return spread + math.log(low)
