"""ECGFounder: a one-dimensional residual network (Net1D) over all leads, or over one.

Li et al., NEJM AI 2(7) 2025, AIoa2401033 (arXiv 2410.04133), as released: a stem and twenty
residual blocks in seven stages (Net1D). The features are the mean
over time; there is no final norm. Batch norm and dropout are part of the design and off in the
release, whose file holds 66,368 batch-norm weights that nothing uses: the network omits them
here. The paper states 76.3 M parameters; the release has 30.8 M with its head and these.

Preparations
------------
Paper and release describe three that contradict each other; ``preparation=`` picks one by name.

* ``"fine-tuning"``, the default: the released fine-tuning code, which the authors declare mandatory
  and recommend over the others. NaN becomes 0; piecewise linear resampling to 500 Hz (a
  broken call there, so that 500 Hz is all that it was used with); a notch at 50 Hz; a Butterworth
  band-pass of order 4, 0.67 to 40 Hz; minus a running median of 0.4 s; one mean and deviation for
  all leads together.
* ``"evaluation"``, the released script that scores PTB-XL: no filter at all; mean and deviation
  first, then linear resampling.
* ``"paper"``: linear resampling, a high-pass at 0.5 Hz, a low-pass of order 2 at 50 Hz, notches at
  50 and 60 Hz, mean and deviation of each segment. The paper does not say more, and its code is not
  public: the high-pass's order (2), that filters run without phase shift, that there are both
  notches and that the leads share a mean and a deviation are our interpretation. If the
  pretraining followed the paper, the weights were trained with this one; this cannot be verified.

In all of them a record's ten seconds are cut after the filters, as the whole recording was filtered
there, and zeros fill up a shorter record. The standardisation is that of the window, or of the
whole recording where it comes first.

Fewer leads than twelve
-----------------------
`ecgfounder_12lead` can be built with ``leads=(...)``, any of the twelve in any order:

* Two limb leads determine all six, so the missing ones are computed by the preparation, from
  voltages, before anything else (`einthoven.records.limb_leads`); leads that were measured stay as
  they are. From I, II and V1 to V6 comes the same input as from all twelve.
* Chest leads, and limb leads when only one is given, cannot be computed: they are zero, which is
  the mean of what was standardised.
* ``leads=(...)`` at call time is refused where leads would have to be computed: a mean has been
  subtracted by then.

`ecgfounder_1lead` reads lead I unless another lead is selected. It was pretrained on lead I and,
half of the time, on another frontal lead or its negative (aVL, -aVR, II, -III, aVF, -aVF); chest
leads are new to it.

Net1D
-----
Pre-activation residual blocks. A branch is a pointwise, a grouped and a pointwise convolution with
squeeze-and-excitation behind them; the shortcut has no parameters. Nothing stands behind the
addition. Convolutions are "same": their output has ``ceil(samples / stride)`` samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn.functional import max_pool1d, pad, silu

from einthoven.backbones.config import BackboneConfig, Count, Counts
from einthoven.backbones.contract import Backbone
from einthoven.backbones.layers.convolution import convolve
from einthoven.backbones.layers.stochastic_depth import StochasticDepth
from einthoven.backbones.leads import weight_of_leads, with_derived
from einthoven.backbones.registry import Entry
from einthoven.errors import BackboneError
from einthoven.licences import Licence
from einthoven.records.limb_leads import derivable_leads
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.preparation import Preparation
from einthoven.signals.steps import Baseline, Fill, Filter, Resample, Standardise, Step, Window


def same_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int, groups: int
) -> Tensor:
    """Convolve (batch, channels, samples) to ``ceil(samples / stride)`` samples.

    Zeros are added at both ends, one more at the right where their number is odd. The convolution
    adds equal numbers by itself; the odd one costs a column that is dropped (stride 1, nearly every
    block) or, rarely, a padded copy.
    """
    samples, kernel = x.shape[-1], weight.shape[-1]
    total = max(0, (math.ceil(samples / stride) - 1) * stride + kernel - samples)
    left, right = total // 2, total - total // 2
    if left == right:
        return convolve(x, weight, bias, stride=stride, padding=left, groups=groups)
    if stride == 1:
        return convolve(x, weight, bias, padding=right, groups=groups)[..., 1:]
    return convolve(pad(x, (0, 1)), weight, bias, stride=stride, padding=left, groups=groups)


def halve(x: Tensor) -> Tensor:
    """Max-pool pairs of samples; a single last one is compared with zero, as in the release."""
    return max_pool1d(pad(x, (0, 1)) if x.shape[-1] % 2 else x, 2)


class Stem(nn.Module):
    """The strided first convolution, restricted to the leads that an input has."""

    def __init__(self, channels: int, width: int, kernel: int, *, use_bn: bool) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, width, kernel, stride=2)
        self.norm = nn.BatchNorm1d(width) if use_bn else nn.Identity()

    def forward(self, x: Tensor, leads: Sequence[str]) -> Tensor:
        """Map (batch, leads, samples) to (batch, width, half the samples)."""
        weight = self.conv.weight
        if self.conv.in_channels == len(STANDARD_LEADS):
            weight = weight_of_leads(weight, leads)
        h = same_conv(x, weight, self.conv.bias, stride=2, groups=1)
        # The stream that the blocks add to has the parameters' precision, whatever the autocast:
        # there is no norm to take up the rounding of twenty sums.
        return silu(self.norm(h.to(self.conv.weight.dtype)))


class PreActivation(nn.Module):
    """Batch norm where there is one, Swish, dropout: what stands in front of a convolution."""

    def __init__(self, width: int, *, use_bn: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width) if use_bn else nn.Identity()
        self.dropout = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, width, samples) to the same shape."""
        out: Tensor = self.dropout(silu(self.norm(x)))
        return out


class SqueezeExcitation(nn.Module):
    """Scale every channel by a gate between 0 and 1 that all channels' means over time decide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, width // 2)
        self.fc2 = nn.Linear(width // 2, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, width, samples) to the same shape."""
        gate: Tensor = self.fc2(silu(self.fc1(x.mean(-1)))).sigmoid()
        return x * gate.unsqueeze(-1)


class Bottleneck(nn.Module):
    """One residual block; the branch is as wide inside as outside.

    The stride is 1, or 2 to halve the length. Behind the stem the input is `activated` already.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        *,
        groups: int,
        kernel: int,
        stride: int,
        activated: bool,
        use_bn: bool,
    ) -> None:
        super().__init__()
        self.added = width - inputs
        self.stride = stride
        self.act1 = nn.Identity() if activated else PreActivation(inputs, use_bn=use_bn)
        self.conv1 = nn.Conv1d(inputs, width, 1)
        self.act2 = PreActivation(width, use_bn=use_bn)
        self.conv2 = nn.Conv1d(width, width, kernel, stride=stride, groups=groups)
        self.act3 = PreActivation(width, use_bn=use_bn)
        self.conv3 = nn.Conv1d(width, width, 1)
        self.se: nn.Module = SqueezeExcitation(width)
        self.drop_path = StochasticDepth()

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, samples) to (batch, width, samples / stride)."""
        out: Tensor = self.drop_path(x, self._branch, shortcut=self._shortcut(x))
        return out

    def _branch(self, x: Tensor) -> Tensor:
        h = self._convolve(self.act2(self.conv1(self.act1(x))))
        out: Tensor = self.se(self.conv3(self.act3(h)))
        return out

    def _convolve(self, x: Tensor) -> Tensor:
        conv = self.conv2
        return same_conv(x, conv.weight, conv.bias, stride=self.stride, groups=conv.groups)

    def _shortcut(self, x: Tensor) -> Tensor:
        x = halve(x) if self.stride == 2 else x
        # New channels are zero, half of them in front of the old ones.
        before = self.added // 2
        return pad(x, (0, 0, before, self.added - before)) if self.added else x


RATE, SAMPLES = 500, 5000


@dataclass(frozen=True, kw_only=True)
class ECGFounderConfig(BackboneConfig):
    """Configuration of a Net1D.

    Attributes
    ----------
    channels : int
        12, a channel for each standard lead, or 1, for any one lead.
    stem_width : int
        Channels behind the stem.
    widths, depths : tuple of int
        Channels and blocks of each stage; the first block of every stage halves the length.
    group_width : int
        Channels in a group of the grouped convolutions; divides every width.
    kernel : int
        Taps of the stem and of the grouped convolutions.
    use_bn : bool
        Batch norm in front of every activation; off in the release.
    window : int or None
        Samples of the prepared input at 500 Hz when it is not to be the released 10 s.
    preparation : {"fine-tuning", "evaluation", "paper"}
        Which of the published preparations, see the module.
    """

    channels: Literal[1, 12] = 12
    stem_width: Count = 64
    widths: Counts = (64, 160, 160, 400, 400, 1024, 1024)
    depths: Counts = (2, 2, 2, 3, 3, 4, 4)
    group_width: Count = 16
    kernel: Annotated[int, Field(ge=2)] = 16
    use_bn: bool = False
    window: Count | None = None
    preparation: Literal["fine-tuning", "evaluation", "paper"] = "fine-tuning"

    def __post_init__(self) -> None:
        widths = (self.stem_width, *self.widths)
        rising = list(widths) == sorted(widths)
        self.require(rising, "widths", f"give widths that do not fall, from {widths[0]} on")
        self.require(len(self.depths) == len(self.widths), "depths", "give a number for each width")
        self.require(
            not any(width % self.group_width for width in self.widths),
            "group_width",
            f"choose a number that divides the widths {self.widths}",
        )
        if self.channels == 1:
            self.require(
                len(self.leads) == 1,
                "leads",
                "name one lead, or use ecgfounder_12lead, which takes any number of them",
            )


class ECGFounder(Backbone):
    """The ECGFounder encoder.

    Notes
    -----
    Inputs of any length are taken (the mean over time is the last step); the release was trained
    on 10 s. With `use_bn`, stochastic depth takes the batch's statistics over the kept samples.
    """

    family = "ecgfounder"
    reader = "einthoven.weights.ecgfounder:ENCODER"

    def __init__(self, config: ECGFounderConfig) -> None:
        super().__init__(config, config.widths[-1])
        self.leads, self._derive = with_derived(config.leads)
        self.stem = Stem(config.channels, config.stem_width, config.kernel, use_bn=config.use_bn)
        self.stages = nn.ModuleList()
        inputs = config.stem_width
        for width, depth in zip(config.widths, config.depths, strict=True):
            first = not len(self.stages)
            blocks = [self._block(inputs, width, 2, activated=first)]
            blocks += [self._block(width, width, 1) for _ in range(depth - 1)]
            self.stages.append(nn.Sequential(*blocks))
            inputs = width

    def _block(
        self, inputs: int, width: int, stride: int, *, activated: bool = False
    ) -> Bottleneck:
        return Bottleneck(
            inputs,
            width,
            groups=width // self.config.group_width,
            kernel=self.config.kernel,
            stride=stride,
            activated=activated,
            use_bn=self.config.use_bn,
        )

    @property
    def preparation(self) -> Preparation:
        """Preparation of a record, by the config; see the module."""
        window = Window(self.config.window or SAMPLES, short="pad")
        steps = _steps(self.config.preparation, window)
        return Preparation(leads=self.leads, steps=(*self._derive, *steps))

    # ------------------------------------------------------------------ forward

    def tokens(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Output of the last stage, (batch, tokens, feature_dim): one token for 256 samples begun.

        Inputs of any length are taken.
        """
        return self._encode(x, leads).transpose(1, 2)

    def features(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """The mean of the tokens; input as for `tokens`, output (batch, feature_dim)."""
        return self._encode(x, leads).mean(-1)

    def _encode(self, x: Tensor, leads: Sequence[str] | None) -> Tensor:
        names = self.input_leads(x, leads)
        missing = derivable_leads(names)
        if missing and self.config.channels > 1:
            raise BackboneError(
                f"{self.name} was built for leads {', '.join(self.leads)}; from "
                f"{', '.join(names)} follow {', '.join(missing)}, but only in millivolts, and its "
                "Preparation has subtracted a mean",
                remedy=f"build it with leads={names!r}, whose preparation computes them first",
            )
        if len(names) > self.config.channels:
            raise BackboneError(
                f"{self.name} reads one lead, not {len(names)}: {', '.join(names)}",
                remedy="name one lead, or use ecgfounder_12lead, which takes any number of them",
            )
        x = self.stem(x, names)
        for stage in self.stages:
            x = stage(x)
        return x

    # ------------------------------------------------------------------ for the recipe

    def residual_branches(self) -> list[list[StochasticDepth]]:
        """One holder a block, behind squeeze-and-excitation, in depth order."""
        return [[block.drop_path] for block in self._blocks()]

    def feedforward_dropouts(self) -> list[nn.Dropout]:
        """Net1D's dropouts in front of the pointwise convolutions, which mix channels only."""
        activations = [act for block in self._blocks() for act in (block.act1, block.act3)]
        return [act.dropout for act in activations if isinstance(act, PreActivation)]

    def other_dropouts(self) -> list[nn.Dropout]:
        """Net1D's dropouts in front of the grouped convolutions, which mix time."""
        return [block.act2.dropout for block in self._blocks()]

    def layer_prefixes(self) -> list[tuple[str, ...]]:
        """Stem, then each block; there is no final norm."""
        parts = self.named_modules()
        blocks = [(f"{name}.",) for name, part in parts if isinstance(part, Bottleneck)]
        return [("stem.",), *blocks, ()]

    def _blocks(self) -> list[Bottleneck]:
        return [part for part in self.stages.modules() if isinstance(part, Bottleneck)]


def _steps(preparation: str, window: Window) -> tuple[Step, ...]:
    resample, standardise = Resample(RATE, method="linear"), Standardise(over="record")
    if preparation == "evaluation":
        return standardise, resample, window
    if preparation == "paper":
        band = Filter("highpass", 0.5, order=2), Filter("lowpass", 50.0, order=2)
        mains = Filter("notch", 50.0, order=2), Filter("notch", 60.0, order=2)
        return resample, *band, *mains, window, standardise
    return (
        Fill("zero"),
        resample,
        Filter("notch", 50.0, order=2),
        Filter("bandpass", (0.67, 40.0), order=4),
        Baseline(0.4),
        window,
        standardise,
    )


# Channels, default leads, words for them, parameters.
_SIZES: tuple[tuple[Literal[1, 12], tuple[str, ...], str, int], ...] = (
    (12, STANDARD_LEADS, "twelve leads", 30_598_896),
    (1, ("I",), "one lead", 30_587_632),
)
ENTRIES = tuple(
    Entry(
        network=ECGFounder,
        config=ECGFounderConfig(name=f"ecgfounder_{number}lead", channels=number, leads=read),
        summary=f"ECGFounder Net1D: residual convolutions over {leads}, 500 Hz, 10 s",
        origin="ECGFounder, NEJM AI 2025",
        paper="Li et al., NEJM AI 2(7) 2025, AIoa2401033 (arXiv 2410.04133)",
        parameters=parameters,
        weights_from=f"file {number}_lead_ECGFounder.pth of "
        "huggingface.co/PKUDigitalHealth/ECGFounder",
        weights_name="PKUDigitalHealth/ECGFounder",
        weights_file=f"{number}_lead_ECGFounder.pth",
        pretraining_data="Harvard-Emory ECG Database, supervised with 150 labels "
        "(10,771,552 records, 7,519,035 of them for development); not PTB-XL",
        licence=Licence(
            "unknown",
            "MIT for the code; others use the weights as MIT, and their card does not exclude it",
            None,
        ),
        contains_ptbxl=False,
        recipes="ecgfounder",
        missing_leads="the channels of the missing ones are zero",
    )
    for number, read, leads, parameters in _SIZES
)
