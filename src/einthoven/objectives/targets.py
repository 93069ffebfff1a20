"""What a masked patch is to be reconstructed as."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import avg_pool1d

from einthoven.backbones.contract import PatchBackbone
from einthoven.errors import RecipeError

__all__ = ["TARGETS", "make_target", "remove_baseline", "standardise_patches"]

BASELINE_S = 0.6  # about one beat: shorter would follow the T wave, longer lets drift through


def standardise_patches(patches: Tensor) -> Tensor:
    """Centre each patch and divide by the root of its unbiased variance plus 1e-6.

    MAE's and ST-MEM's normalised-pixel target (`norm_pix_loss`); (..., values) in and out.
    """
    centred = patches - patches.mean(-1, keepdim=True)
    return centred / (patches.var(-1, keepdim=True) + 1e-6).sqrt()


def remove_baseline(x: Tensor, rate: float) -> Tensor:
    """Subtract a moving average of about 0.6 s from every lead.

    Parameters
    ----------
    x : Tensor, shape (batch, leads, samples)
    rate : float
        Hz.
    """
    half = round(BASELINE_S * rate / 2)
    window = 2 * half + 1
    return x - avg_pool1d(x, window, stride=1, padding=half, count_include_pad=False)


def _raw(x: Tensor, backbone: PatchBackbone) -> Tensor:
    return backbone.patch_grid(x)


def _segment_standardised(x: Tensor, backbone: PatchBackbone) -> Tensor:
    return standardise_patches(backbone.patch_grid(x))


def _lead_mean_removed(x: Tensor, backbone: PatchBackbone) -> Tensor:
    patches = backbone.patch_grid(x)
    by_lead = patches.reshape(*patches.shape[:-1], -1, backbone.patch)
    return (by_lead - by_lead.mean(-1, keepdim=True)).flatten(-2)


def _baseline_removed(x: Tensor, backbone: PatchBackbone) -> Tensor:
    return backbone.patch_grid(remove_baseline(x, backbone.rate))


TARGETS: dict[str, Callable[[Tensor, PatchBackbone], Tensor]] = {
    "segment-standardised": _segment_standardised,
    "lead-mean-removed": _lead_mean_removed,
    "baseline-removed": _baseline_removed,
    "raw": _raw,
}


def make_target(kind: str, x: Tensor, backbone: PatchBackbone) -> Tensor:
    """The reconstruction target of every patch.

    The first three are readings of MTECG's "fluctuated" target, whose definition is not public:
    (a) per-segment standardisation, (b) each lead's segment without its mean, (c) the signal
    without its slow baseline (a moving average of 0.6 s, our choice). None is claimed to be it.

    Parameters
    ----------
    kind : str
        A key of `TARGETS`.
    x : Tensor, shape (batch, leads, samples)
    backbone : PatchBackbone
        Cuts the patches.

    Returns
    -------
    Tensor, shape (batch, rows, patches, values), float32, without gradient

    Raises
    ------
    RecipeError
        For an unknown kind.
    """
    check_target(kind)
    return TARGETS[kind](x.detach().float(), backbone)


def check_target(kind: str) -> None:
    """Refuse an unknown target name with a RecipeError."""
    if kind not in TARGETS:
        raise RecipeError(
            f"target = {kind!r} is unknown", remedy=f"choose among {', '.join(TARGETS)}."
        )
