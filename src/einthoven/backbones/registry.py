"""The catalogue of backbones: a table that is read without importing any network."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

from einthoven.errors import BackboneError

if TYPE_CHECKING:
    from einthoven.backbones.contract import Backbone

__all__ = ["BACKBONES", "Entry", "backbone_names", "create_backbone", "entry"]


@dataclass(frozen=True)
class Entry:
    """What the catalogue says about a backbone.

    Attributes
    ----------
    factory : str
        `module:function` that builds it.
    summary : str
        One line on what it is.
    parameters : int
        Number of parameters without a head.
    family : str
        Whose checkpoints it reads (`einthoven.weights`).
    paper : str
        Where it was described.
    pretraining_data : str
        What the public weights were pretrained on.
    weights_licence : str
        Licence of the public weights.
    weights_from : str
        Where to get them; they are never downloaded unasked nor shipped.
    contains_ptbxl : bool
        Whether PTB-XL was among the pretraining data of the public weights.
    """

    factory: str
    summary: str
    parameters: int
    family: str
    paper: str
    pretraining_data: str
    weights_licence: str
    weights_from: str
    contains_ptbxl: bool = False


_ST_MEM: Any = {
    "family": "st_mem",
    "paper": "Na et al., Guiding Masked Representation Learning to Capture Spatio-Temporal "
    "Relationship of Electrocardiogram, ICLR 2024 (arXiv 2402.09450)",
}
_ST_MEM_PUBLIC: Any = {
    "pretraining_data": "Chapman-Shaoxing, Ningbo and CODE-15 (188,480 records)",
    "weights_licence": "CC BY-NC 4.0 (non-commercial), with VUNO Inc.'s all-rights-reserved notice",
}
_NO_WEIGHTS: Any = {
    "pretraining_data": "none: no public weights",
    "weights_licence": "none: no public weights",
    "weights_from": "no public weights; pretrain it with einthoven",
}
_MTECG: Any = {
    "family": "mtecg",
    "paper": "Zhou et al., Masked Transformer for Electrocardiogram Classification, "
    "arXiv 2309.07136",
}

BACKBONES: dict[str, Entry] = {
    "st_mem_base": Entry(
        factory="einthoven.backbones.st_mem:st_mem_base",
        summary="ST-MEM ViT-B: 0.3 s patches of single leads, 250 Hz, 9 s",
        parameters=85_150_614,
        weights_from="files st_mem_vit_base_encoder and st_mem_vit_base_full, linked from "
        "github.com/vuno/ST-MEM",
        **_ST_MEM,
        **_ST_MEM_PUBLIC,
    ),
    "st_mem_small": Entry(
        factory="einthoven.backbones.st_mem:st_mem_small",
        summary="ST-MEM ViT-S: 0.3 s patches of single leads, 250 Hz, 9 s",
        parameters=21_341_718,
        **_ST_MEM,
        **_NO_WEIGHTS,
    ),
    "st_mem_tiny": Entry(
        factory="einthoven.backbones.st_mem:st_mem_tiny",
        summary="ST-MEM at width 192, our own size for work without an accelerator",
        parameters=5_362_518,
        **_ST_MEM,
        **_NO_WEIGHTS,
    ),
    "mtecg_tiny": Entry(
        factory="einthoven.backbones.mtecg:mtecg_tiny",
        summary="MTECG ViT-Ti: 50 ms patches of all leads, 500 Hz, 10 s",
        parameters=5_435_328,
        **_MTECG,
        **_NO_WEIGHTS,
    ),
    "mtecg_tiny_100hz": Entry(
        factory="einthoven.backbones.mtecg:mtecg_tiny_100hz",
        summary="MTECG ViT-Ti with the same 50 ms patches at 100 Hz, our own preset",
        parameters=5_389_248,
        **_MTECG,
        **_NO_WEIGHTS,
    ),
}


def backbone_names() -> list[str]:
    """Every registered name."""
    return list(BACKBONES)


def entry(name: str) -> Entry:
    """What the catalogue says about a backbone.

    Raises
    ------
    BackboneError
        When the name is not registered; the message lists those that come close.
    """
    if name not in BACKBONES:
        near = get_close_matches(str(name), BACKBONES, n=3, cutoff=0.5) or backbone_names()
        raise BackboneError(
            f"unknown backbone {name!r}", remedy=f"did you mean {' or '.join(near)}?"
        )
    return BACKBONES[name]


def create_backbone(name: str, *, seed: int | None = None, **overrides: Any) -> Backbone:
    """Build a registered backbone with fresh weights.

    Parameters
    ----------
    name : str
        A name of `backbone_names()`.
    seed : int, optional
        Seed of the initial weights; the caller's random state is left as it was. Without it they
        come from PyTorch's default generator.
    **overrides
        Fields of the network's config, such as `leads`, `window`, `depth` or `init`.

    Returns
    -------
    Backbone
        In training mode, on PyTorch's default device.

    Raises
    ------
    BackboneError
        For an unknown name, an unknown override or an impossible value.
    """
    module, function = entry(name).factory.split(":")
    factory = getattr(import_module(module), function)
    with seeded(seed):
        built: Backbone = factory(**overrides)
    return built


@contextlib.contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Seed PyTorch's CPU generator inside the block only; None changes nothing."""
    if seed is None:
        yield
        return
    import torch  # here, so that the catalogue is read without it

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
