"""Methods of attribution: each maps a network's crops to what every sample contributes.

Gradients and occlusion come from captum. Sources: integrated gradients, Sundararajan et al., ICML
2017 (arXiv 1703.01365); SmoothGrad, Smilkov et al. 2017 (arXiv 1706.03825); Grad-CAM, Selvaraju et
al., ICCV 2017 (arXiv 1610.02391); occlusion, Zeiler and Fergus, ECCV 2014 (arXiv 1311.2901).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from einthoven.errors import EvaluationError
from einthoven.explain.attention import attention_layers, rollout
from einthoven.explain.beats import segment_of, segments
from einthoven.explain.crops import BATCH, Crops, Output, outputs

if TYPE_CHECKING:
    from einthoven.models import Model

Baseline = Literal["lead-mean", "line", "none"]
Part = Literal["lead", "beat", "wave"]

STEPS = (16, 32, 64, 128)
"""Steps of the path of integrated gradients, doubled until the sum is complete."""
TOLERANCE = 0.05
"""Completeness error, of the change of the output, from which on more steps are taken."""
_NOISE_SAMPLES = 16
_NOISE = 0.1  # standard deviation, of that of a lead


@dataclass(frozen=True)
class Method:
    """A method of attribution.

    Attributes
    ----------
    summary : str
        Description in a line.
    compute : callable
        `(model, output, crops) -> (crops, leads, window)`, a Tensor.
    suits : callable
        Whether a network has what the method needs; called with a model and crops.
    baseline : {"lead-mean", "line", "none"}
        What a sample is compared with: a flat line at the mean of its lead, a straight line between
        the ends of its window, or nothing.
    is_additive : bool
        Whether values are in units of the output and should sum to its change from the baseline.
    is_for_label : bool
        Whether values depend on the label.
    resolves : tuple of {"lead", "beat", "wave"}
        What it tells apart. What is in one lead, beat or wave shares a value equally otherwise.
    """

    summary: str
    compute: Callable[[Model, Output, Crops], Tensor]
    suits: Callable[[Model, Crops], bool] = lambda model, crops: True
    baseline: Baseline = "lead-mean"
    is_additive: bool = False
    is_for_label: bool = True
    resolves: tuple[Part, ...] = ("lead", "beat", "wave")


# ---------------------------------------------------------------------- gradients


def _integrated_gradients(model: Model, output: Output, crops: Crops) -> Tensor:
    method, values = _captum().IntegratedGradients(output), crops.signals
    change = outputs(output, crops.signals) - outputs(output, crops.baseline)
    for steps in STEPS:
        values = method.attribute(
            crops.signals, baselines=crops.baseline, n_steps=steps, internal_batch_size=BATCH
        )
        error = abs(float(values.double().sum()) - change.sum())
        if error <= TOLERANCE * abs(change.sum()):
            break
    return values


def _smoothgrad(model: Model, output: Output, crops: Crops) -> Tensor:
    captum = _captum()
    deviation = crops.signals - crops.baseline
    spread = deviation.std(-1, keepdim=True)
    # captum's noise has one size for all leads, so that they are given in units of their own.
    unit = torch.where(spread > 0, spread, torch.ones_like(spread))

    def scaled(x: Tensor) -> Tensor:
        return output(x * unit.repeat_interleave(len(x) // len(unit), 0))

    tunnel = captum.NoiseTunnel(captum.Saliency(scaled))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        gradients: Tensor = tunnel.attribute(
            crops.signals / unit,
            nt_samples=_NOISE_SAMPLES,
            nt_samples_batch_size=max(1, BATCH // len(unit)),
            stdevs=_NOISE,
            abs=False,
        )
    return gradients / unit * deviation


# ---------------------------------------------------------------------- occlusion


def _occlusion(kind: Literal["waves", "beats", "leads"]) -> Callable[..., Tensor]:
    def compute(model: Model, output: Output, crops: Crops) -> Tensor:
        signals = crops.signals
        groups, lines = _windows(kind, crops)
        method = _captum().FeatureAblation(output)
        most = int(groups.max()) + 1
        counts = torch.stack([torch.bincount(x.flatten(), minlength=most) for x in groups])
        per_eval = max(1, BATCH // len(signals))
        values: Tensor = method.attribute(
            signals, baselines=lines, feature_mask=groups, perturbations_per_eval=per_eval
        )
        # Every sample of a window has the window's value: it is shared among them.
        sizes = torch.gather(counts, 1, groups.flatten(1)).view_as(groups)
        return values / sizes

    return compute


def _windows(kind: str, crops: Crops) -> tuple[Tensor, Tensor]:
    """Number of each sample's window within its crop, and the signal with all windows replaced.

    Both are (crops, leads, window). A lead is replaced by its mean, a part of it by a straight
    line between the ends of the part.
    """
    signals = crops.signals
    count, leads, window = signals.shape
    rows = torch.arange(leads)[:, None]
    if kind == "leads":
        return rows.expand(count, leads, window).contiguous(), crops.baseline
    parts = segments(crops.record)
    groups, lines = [], signals.clone()
    for place, times in enumerate(crops.times):
        number = segment_of(parts, times)
        if kind == "beats":
            number = np.array([part.beat for part in parts])[number]
        _, number = np.unique(number, return_inverse=True)
        edges = np.flatnonzero(np.diff(number, prepend=-1, append=-1))
        for a, b in pairwise(edges.tolist()):
            ends = signals[place][:, [a, b - 1]]
            lines[place, :, a:b] = ends[:, :1] + torch.linspace(0, 1, b - a) * (
                ends[:, 1:] - ends[:, :1]
            )
        numbers = torch.from_numpy(number.astype(np.int64))
        by_lead = numbers * leads + rows if kind == "waves" else numbers.expand(leads, -1)
        groups.append(by_lead)
    return torch.stack(groups), lines


# ---------------------------------------------------------------------- feature maps


def _grad_cam(model: Model, output: Output, crops: Crops) -> Tensor:
    layer = _last_convolution(model, crops)
    assert layer is not None
    maps = _captum().LayerGradCam(output, layer).attribute(crops.signals)
    maps = maps.reshape(len(maps), 1, -1)
    window, leads = crops.signals.shape[-1], len(crops.leads)
    # One value for a time: it is shared equally among leads.
    values: Tensor = interpolate(maps.detach(), size=window, mode="linear", align_corners=False)
    return values.expand(-1, leads, -1) / leads


def _last_convolution(model: Model, crops: Crops) -> nn.Module | None:
    """The last module with convolutions whose output is (batch, channels, time); None if none is.

    A network with attention has convolutions in front only.
    """
    convolutions: list[nn.Module] = []

    def hook(module: nn.Module, inputs: Any, result: Any) -> None:
        widths = {
            part.out_channels
            for part in module.modules()
            if isinstance(part, nn.Conv1d | nn.Conv2d)
        }
        if isinstance(result, Tensor) and result.ndim in (3, 4) and result.shape[-1] > 1:
            is_row = result.ndim == 3 or result.shape[2] == 1
            if is_row and result.shape[1] in widths:
                convolutions.append(module)

    inner = [
        part
        for part in model.backbone.modules()
        if part is not model.backbone
        and any(isinstance(child, nn.Conv1d | nn.Conv2d) for child in part.modules())
    ]
    handles = [part.register_forward_hook(hook) for part in inner]
    try:
        layers = attention_layers(model.backbone, crops.signals[:1])
    finally:
        for handle in handles:
            handle.remove()
    return convolutions[-1] if convolutions and not layers else None


# ---------------------------------------------------------------------- attention


def _attention(*, rolled: bool) -> Callable[..., Tensor]:
    def compute(model: Model, output: Output, crops: Crops) -> Tensor:
        layers = attention_layers(model.backbone, crops.signals)
        return _on_samples(model, crops, rollout(layers) if rolled else layers[-1])

    return compute


def _on_samples(model: Model, crops: Crops, attention: Tensor) -> Tensor:
    """Attention that the tokens of a crop receive, on the samples that they stand for.

    `attention` is (crops, tokens, tokens). It is that of the class token where the features are
    its output, and the mean of all tokens otherwise. The sum over a crop is 1.
    """
    backbone: Any = model.backbone
    count, leads, window = crops.signals.shape
    before, after = getattr(backbone, "special_tokens", (0, 0))
    pools_class = getattr(backbone.config, "global_pool", "") == "cls"
    received = attention[:, 0] if pools_class else attention.mean(1)
    rows = 1
    if before or after:  # patches of every lead, or of all leads together
        rows = received.shape[-1] // (window // backbone.patch + before + after)
    grid = received.reshape(count, rows, -1)
    grid = grid[..., before : grid.shape[-1] - after]
    values = interpolate(grid, size=window, mode="nearest").expand(-1, leads, -1)
    return values / values.sum((1, 2), keepdim=True)


@torch.enable_grad()
def _is_differentiable(model: Model, crops: Crops) -> bool:
    crop = crops.signals[:1].clone().requires_grad_()
    return bool(model.backbone(crop).requires_grad)


def _attends(model: Model, crops: Crops) -> bool:
    return bool(attention_layers(model.backbone, crops.signals[:1]))


def _convolves(model: Model, crops: Crops) -> bool:
    return _last_convolution(model, crops) is not None


METHODS: dict[str, Method] = {
    "integrated-gradients": Method(
        "gradients along the path from a flat line at each lead's mean",
        _integrated_gradients,
        _is_differentiable,
        is_additive=True,
    ),
    "smoothgrad": Method(
        "mean gradient under noise, times the deviation from the lead's mean",
        _smoothgrad,
        _is_differentiable,
    ),
    "occlusion-waves": Method(
        "change when a P, QRS, ST-T or TP window of a lead becomes a straight line",
        _occlusion("waves"),
        baseline="line",
    ),
    "occlusion-beats": Method(
        "change when a beat becomes a straight line in all leads",
        _occlusion("beats"),
        baseline="line",
        resolves=("beat",),
    ),
    "occlusion-leads": Method(
        "change when a lead becomes its mean", _occlusion("leads"), resolves=("lead",)
    ),
    "grad-cam": Method(
        "gradient-weighted channels of the last convolution",
        _grad_cam,
        _convolves,
        "none",
        resolves=("beat", "wave"),
    ),
    "attention-rollout": Method(
        "attention through all layers; the same for every label",
        _attention(rolled=True),
        _attends,
        "none",
        is_for_label=False,
    ),
    "attention": Method(
        "attention of the last layer; the same for every label",
        _attention(rolled=False),
        _attends,
        "none",
        is_for_label=False,
    ),
}
"""Methods by name."""


def _captum() -> ModuleType:
    try:
        import captum.attr
    except ImportError as error:
        raise EvaluationError(
            "captum, which computes attributions, is not installed",
            remedy="pip install 'einthoven[explain]'",
        ) from error
    module: ModuleType = captum.attr
    return module
