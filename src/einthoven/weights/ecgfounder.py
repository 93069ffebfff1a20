"""Tensor names in ECGFounder's public checkpoints.

Two files are public, `12_lead_ECGFounder.pth` and `1_lead_ECGFounder.pth`, with the tensors in
``checkpoint["state_dict"]`` (509 each). Files of the authors' fine-tuning notebook have the same
tensors, beside an epoch, an optimiser and a metric. 305 of the 509 belong to batch norms, which the
release has switched off; the file does not record it. They are left out, or read if the network is
built with ``use_bn=True``.

The head of 150 labels is `dense` there and `head` here. `load_backbone` leaves it out,
`load_classifier` keeps it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from einthoven.backbones.ecgfounder import ECGFounderConfig
from einthoven.errors import WeightsError
from einthoven.weights.fit import Shape

__all__ = ["encoder_parts", "encoder_state", "used"]

_RENAMED = (
    (re.compile(r"^stem\.conv\."), "first_conv.conv."),
    (re.compile(r"^stem\.norm\."), "first_bn."),
    (re.compile(r"^stages\.(\d+)\.(\d+)\."), r"stage_list.\1.block_list.\2."),
    (re.compile(r"\.act([123])\.norm\."), r".bn\1."),
    (re.compile(r"\.conv([123])\.(weight|bias)$"), r".conv\1.conv.\2"),
    (re.compile(r"\.se\.fc([12])\."), r".se_fc\1."),
)
_BATCH_NORM = re.compile(
    r"^(first_bn|stage_list\.\d+\.block_list\.\d+\.bn[123])"
    r"\.(weight|bias|running_mean|running_var|num_batches_tracked)$"
)
# Never used by the release: the output of the stem is activated already.
_NEVER_USED = "stage_list.0.block_list.0.bn1."


def encoder_parts(key: str, shape: Shape) -> tuple[list[str], Shape]:
    """Public name of a tensor of our encoder or classifier; all shapes are the same."""
    for pattern, name in _RENAMED:
        key = pattern.sub(name, key)
    return [key], shape


def encoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a public file, with our name of the head."""
    return {re.sub(r"^dense\.", "head.", key): tensor for key, tensor in state.items()}


def used(state: Mapping[str, Tensor], config: ECGFounderConfig) -> dict[str, Tensor]:
    """Tensors of a public file that a network needs: without batch norms that are switched off.

    Raises
    ------
    WeightsError
        If the file was trained with batch norm, and the network has none.
    """
    norms = {key for key in state if _BATCH_NORM.match(key)}
    if config.use_bn:
        return {key: t for key, t in state.items() if not key.startswith(_NEVER_USED)}
    for key in norms:
        if key.endswith("num_batches_tracked") and state[key].numel() == 1 and int(state[key]) > 0:
            raise WeightsError(
                f"{key} = {int(state[key])}: batch norm was on when this file was trained, and "
                f"{config.name} is built without it",
                remedy="build it with use_bn=True, or remove the batch norms from the file if they "
                "were not used",
            )
    return {key: tensor for key, tensor in state.items() if key not in norms}
