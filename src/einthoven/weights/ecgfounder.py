"""Tensor names in ECGFounder's public checkpoints.

Two files are public, `12_lead_ECGFounder.pth` and `1_lead_ECGFounder.pth`, with the tensors in
``checkpoint["state_dict"]`` (509 each). Files of the authors' fine-tuning notebook have the same
tensors, beside an epoch, an optimiser and a metric. 305 of the 509 belong to batch norms, which the
release has switched off; the file does not record it. They are left out, or read if the network is
built with ``use_bn=True``.

`load_backbone` leaves out the head of 150 labels, `load_classifier` keeps it.
"""

from __future__ import annotations

import re

from torch import Tensor

from einthoven.backbones.ecgfounder import ECGFounderConfig
from einthoven.errors import WeightsError
from einthoven.weights.fit import Naming, State

_BLOCK = "stage_list.{}.block_list.{}"
_NAMES = {
    "stem.conv": "first_conv.conv",
    "stem.norm": "first_bn",
    **{f"stages.{{}}.{{}}.act{i}.norm": f"{_BLOCK}.bn{i}" for i in (1, 2, 3)},
    **{f"stages.{{}}.{{}}.conv{i}": f"{_BLOCK}.conv{i}.conv" for i in (1, 2, 3)},
    **{f"stages.{{}}.{{}}.se.fc{i}": f"{_BLOCK}.se_fc{i}" for i in (1, 2)},
    "head": "dense",
}
_BATCH_NORM = re.compile(r"first_bn\.|stage_list\.\d+\.block_list\.\d+\.bn[123]\.")
# Never used by the release: the output of the stem is activated already.
_NEVER_USED = "stage_list.0.block_list.0.bn1."


def _tensors(state: State, config: ECGFounderConfig) -> dict[str, Tensor]:
    """Tensors that a network needs: without batch norms that are switched off."""
    if config.use_bn:
        return {key: t for key, t in state.items() if not key.startswith(_NEVER_USED)}
    norms = {key for key in state if _BATCH_NORM.match(key)}
    for key in norms:
        if key.endswith("num_batches_tracked") and state[key].numel() == 1 and int(state[key]) > 0:
            raise WeightsError(
                f"{key} = {int(state[key])}: batch norm was on when this file was trained, and "
                f"{config.name} is built without it",
                remedy="build it with use_bn=True, or remove the batch norms from the file if they "
                "were not used",
            )
    return {key: tensor for key, tensor in state.items() if key not in norms}


ENCODER = Naming(_NAMES, "first_conv.conv.weight", head="dense", tensors=_tensors)
