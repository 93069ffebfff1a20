"""A whole pretraining model, encoder and heads, from a checkpoint on disk."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

import torch

from einthoven.backbones.registry import create_backbone, entry
from einthoven.errors import WeightsError
from einthoven.objectives.registry import create_objective
from einthoven.weights import ecg_fm, st_mem
from einthoven.weights.fit import Naming, convert
from einthoven.weights.safe import read_state

# Tensor names in the public pretraining models, by family.
_PUBLIC = {"st_mem": st_mem.PRETRAINING, "ecg_fm": ecg_fm.PRETRAINING}


def load_pretraining(
    name: str,
    *,
    weights: str | PathLike[str],
    backbone_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Build a registered backbone under the objective of its authors, with weights.

    Parameters
    ----------
    name : str
        A registered backbone.
    weights : path
        ST-MEM's full public checkpoint (228 entries), ECG-FM's pretrained one (215), or a state
        dict of einthoven's pretraining model of the same backbone.
    backbone_options : mapping, optional
        Fields of the backbone's config.
    **options
        The objective's own: fields of `MAEConfig`, or of `WCRConfig` for ECG-FM. To go on with its
        public weights, ``code_temperature=(0.5, 0.5, 1.0)`` is where their quantiser had cooled to.

    Returns
    -------
    MaskedAutoencoder or WCR
        In eval mode, on the CPU.

    Raises
    ------
    WeightsError
        If the file is damaged, unsafe, of another network, or an encoder without the rest.
    """
    family = entry(name).family
    state = read_state(weights)
    is_einthoven = any(key.startswith("backbone.") for key in state)
    if not is_einthoven and family not in _PUBLIC:
        raise WeightsError(
            f"{weights}: pretraining models of {name} are read in einthoven's naming only",
            remedy="load the encoder alone, with einthoven.weights.load_backbone",
        )
    overrides = {"init": "pretraining", **(backbone_options or {})}
    with torch.device("meta"):
        backbone = create_backbone(name, **overrides)
        objective = "ecg_fm" if family == "ecg_fm" else "mae"
        model: Any = create_objective(objective, backbone, **options)
    expected, naming, counters = model.state_dict(), Naming(), {}
    if not is_einthoven:
        counters = {
            key: torch.zeros_like(expected.pop(key), device="cpu")
            for key in ecg_fm.COUNTERS
            if key in expected
        }
        naming = _PUBLIC[family]
    tensors = naming.tensors(state, backbone.config)
    ours = convert(tensors, expected, naming, file=weights, what=f"{name}'s pretraining")
    model.load_state_dict(ours | counters, assign=True)
    return model.eval()
