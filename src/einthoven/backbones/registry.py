"""The catalogue of backbones: a table that is read without importing any network."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

from einthoven.backbones.entries import Entry
from einthoven.backbones.peers import PEERS
from einthoven.errors import BackboneError

if TYPE_CHECKING:
    from einthoven.backbones.contract import Backbone

__all__ = ["BACKBONES", "Entry", "backbone_names", "create_backbone", "entry"]


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
_S4: Any = {
    "family": "s4",
    "paper": "arXiv 2509.25095 (ECG-CPC) and arXiv 2605.12241; layers after Gu et al., ICLR 2022",
}
_MTECG: Any = {
    "family": "mtecg",
    "paper": "Zhou et al., Masked Transformer for Electrocardiogram Classification, "
    "arXiv 2309.07136",
}
_HUBERT_ECG: Any = {
    "family": "hubert_ecg",
    "origin": "HuBERT-ECG, medRxiv 2024",
    "paper": "Coppola et al., HuBERT-ECG: a self-supervised foundation model for broad and "
    "scalable cardiac applications, medRxiv 2024.11.14.24317328",
    "pretraining_data": "9.1 million 12-lead ECGs from four countries (the list was not checked "
    "for PTB-XL; the classifiers called SFT-CardioLearning were trained on it)",
    "weights_licence": "CC BY-NC 4.0 (non-commercial)",
    "contains_ptbxl": None,
    "classifiers_saw_ptbxl": True,
}
_ECGFOUNDER: Any = {
    "family": "ecgfounder",
    "origin": "ECGFounder, NEJM AI 2025",
    "paper": "Li et al., NEJM AI 2(7) 2025, AIoa2401033 (arXiv 2410.04133)",
    "pretraining_data": "Harvard-Emory ECG Database, supervised with 150 labels "
    "(10,771,552 records, 7,519,035 of them for development); not PTB-XL",
    "weights_licence": "MIT for the code; the weights are used as MIT by others, their card says "
    "nothing against it",
}

BACKBONES: dict[str, Entry] = {
    "st_mem_base": Entry(
        factory="einthoven.backbones.st_mem:st_mem_base",
        summary="ST-MEM ViT-B: 0.3 s patches of single leads, 250 Hz, 9 s",
        origin="ST-MEM, Na et al. 2024",
        parameters=85_150_614,
        weights_from="files st_mem_vit_base_encoder and st_mem_vit_base_full, linked from "
        "github.com/vuno/ST-MEM",
        weights_name="vuno/ST-MEM",
        **_ST_MEM,
        **_ST_MEM_PUBLIC,
    ),
    "st_mem_small": Entry(
        factory="einthoven.backbones.st_mem:st_mem_small",
        summary="ST-MEM ViT-S: 0.3 s patches of single leads, 250 Hz, 9 s",
        origin="ST-MEM, Na et al. 2024",
        parameters=21_341_718,
        **_ST_MEM,
        **_NO_WEIGHTS,
    ),
    "st_mem_tiny": Entry(
        factory="einthoven.backbones.st_mem:st_mem_tiny",
        summary="ST-MEM at width 192, our own size for work without an accelerator",
        origin="our size of ST-MEM",
        parameters=5_362_518,
        **_ST_MEM,
        **_NO_WEIGHTS,
    ),
    "mtecg_tiny": Entry(
        factory="einthoven.backbones.mtecg:mtecg_tiny",
        summary="MTECG ViT-Ti: 50 ms patches of all leads, 500 Hz, 10 s",
        origin="MTECG, Zhou et al. 2023",
        parameters=5_435_328,
        **_MTECG,
        **_NO_WEIGHTS,
    ),
    "mtecg_tiny_100hz": Entry(
        factory="einthoven.backbones.mtecg:mtecg_tiny_100hz",
        summary="MTECG ViT-Ti with the same 50 ms patches at 100 Hz, our own preset",
        origin="our preset of MTECG",
        parameters=5_389_248,
        **_MTECG,
        **_NO_WEIGHTS,
    ),
    "s4": Entry(
        factory="einthoven.backbones.s4:s4",
        summary="S4, the published causal shape: width 512, state 8, 240 Hz, 2.5 s",
        origin="S4, arXiv 2605.12241",
        parameters=2_932_736,
        **_S4,
        **_NO_WEIGHTS,
    ),
    "ecg_cpc": Entry(
        factory="einthoven.backbones.s4:ecg_cpc",
        summary="ECG-CPC: convolutional stem and causal S4, raw millivolts, 240 Hz, 2.5 s",
        origin="ECG-CPC, arXiv 2025",
        parameters=2_932_736,
        pretraining_data="Harvard-Emory ECG Database (10 million records, crops of 10 s), by "
        "contrastive predictive coding; not PTB-XL",
        weights_licence="not stated in our sources",
        weights_from="not stated in our sources; the authors' repositories are "
        "AI4HealthUOL/ecg-fm-benchmarking and AI4HealthUOL/ecg-pretraining-strategies (released "
        "files there end in _e10.ckpt)",
        weights_name="AI4HealthUOL/ecg-fm-benchmarking",
        contains_ptbxl=False,
        **_S4,
    ),
    "s4_small": Entry(
        factory="einthoven.backbones.s4:s4_small",
        summary="Diagonal S4 of width 192 at 100 Hz, our own size for two CPU cores",
        origin="our size of S4",
        parameters=355_584,
        **_S4,
        **_NO_WEIGHTS,
    ),
    "s4_tiny": Entry(
        factory="einthoven.backbones.s4:s4_tiny",
        summary="Diagonal S4 of width 96 at 100 Hz, our own size for demonstrations",
        origin="our size of S4",
        parameters=94_656,
        **_S4,
        **_NO_WEIGHTS,
    ),
    "hubert_ecg_small": Entry(
        factory="einthoven.backbones.hubert_ecg:hubert_ecg_small",
        summary="HuBERT-ECG small: tokens of 0.82 s, twelve leads end to end, 100 Hz, 5 s",
        parameters=30_209_152,
        weights_from="model.safetensors of huggingface.co/Edoardo-BS/hubert-ecg-small",
        weights_name="Edoardo-BS/hubert-ecg-small",
        weights_size="122 MB",
        weights_sha256="c78fa955268212f8ed20bc69fb1b882d76a4351df2466061335950949394a4d2",
        **_HUBERT_ECG,
    ),
    "hubert_ecg_base": Entry(
        factory="einthoven.backbones.hubert_ecg:hubert_ecg_base",
        summary="HuBERT-ECG base: tokens of 0.82 s, twelve leads end to end, 100 Hz, 5 s",
        parameters=92_798_080,
        weights_from="model.safetensors of huggingface.co/Edoardo-BS/hubert-ecg-base",
        weights_name="Edoardo-BS/hubert-ecg-base",
        weights_sha256="05bc1b1317f8e3063811a03fb840f5bf8a85968191e209c0cfbaa0c52c8aa1ae",
        **_HUBERT_ECG,
    ),
    "hubert_ecg_large": Entry(
        factory="einthoven.backbones.hubert_ecg:hubert_ecg_large",
        summary="HuBERT-ECG large: tokens of 0.82 s, twelve leads end to end, 100 Hz, 5 s",
        parameters=187_643_776,
        weights_from="model.safetensors of huggingface.co/Edoardo-BS/hubert-ecg-large",
        weights_name="Edoardo-BS/hubert-ecg-large",
        weights_sha256="9a0eb8484f73793aa678936984243da92ae80d7b81e2fe77d1ea6dee2bdf5ec2",
        **_HUBERT_ECG,
    ),
    "ecgfounder_12lead": Entry(
        factory="einthoven.backbones.ecgfounder:ecgfounder_12lead",
        summary="ECGFounder Net1D: residual convolutions over twelve leads, 500 Hz, 10 s",
        parameters=30_598_896,
        weights_from="file 12_lead_ECGFounder.pth of huggingface.co/PKUDigitalHealth/ECGFounder",
        weights_name="PKUDigitalHealth/ECGFounder",
        **_ECGFOUNDER,
    ),
    "ecgfounder_1lead": Entry(
        factory="einthoven.backbones.ecgfounder:ecgfounder_1lead",
        summary="ECGFounder Net1D: residual convolutions over one lead, 500 Hz, 10 s",
        parameters=30_587_632,
        weights_from="file 1_lead_ECGFounder.pth of huggingface.co/PKUDigitalHealth/ECGFounder",
        weights_name="PKUDigitalHealth/ECGFounder",
        **_ECGFOUNDER,
    ),
    "ecg_fm": Entry(
        factory="einthoven.backbones.ecg_fm:ecg_fm",
        summary="ECG-FM: wav2vec 2.0 of the base size over twelve leads, 500 Hz, 5 s",
        origin="ECG-FM, JAMIA Open 2025",
        parameters=90_373_248,
        family="ecg_fm",
        paper="McKeen et al., ECG-FM: an open electrocardiogram foundation model, JAMIA Open "
        "8(5) 2025, ooaf122 (arXiv 2408.05178)",
        pretraining_data="MIMIC-IV-ECG and PhysioNet/CinC 2021, whose training set includes "
        "PTB-XL (873,706 records, 699,001 of them for training)",
        weights_licence="MIT",
        weights_from="file mimic_iv_ecg_physionet_pretrained.pt of huggingface.co/wanglab/"
        "ecg-fm-preprint, which size and checksum are of, or of wanglab/ecg-fm",
        weights_name="wanglab/ecg-fm-preprint",
        weights_size="1,090,825,421 bytes",
        contains_ptbxl=True,
        weights_sha256="4d0142bcb485eb9f0c7845e0c19ff3463f6ae9d0e458eab69136efe90ceb9b7e",
    ),
    **PEERS,
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
    if name == "ensemble":
        raise BackboneError(
            "an ensemble is no network but the mean prediction of several",
            remedy="train its members, then: einthoven ensemble RUN RUN ... --out FOLDER",
        )
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
