"""Names of the tensors in ECGFounder's public checkpoints.

Two files are public, `12_lead_ECGFounder.pth` and `1_lead_ECGFounder.pth`, read as
``checkpoint["state_dict"]`` (509 entries each); fine-tuned files that the release's notebook
writes have the same entries beside an epoch, an optimiser and a metric. Of the 509, 305 belong to
batch norms. The release has batch norm switched off, so that nothing uses them; the file does not
say so. They are left out, or read when the network is built with ``use_bn=True``.

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
# Registered by the release and skipped whatever its settings: the stem's output is activated.
_NEVER_USED = "stage_list.0.block_list.0.bn1."


def encoder_parts(key: str, shape: Shape) -> tuple[list[str], Shape]:
    """Public name of one of our encoder's (or classifier's) tensors; all shapes are the same."""
    for pattern, name in _RENAMED:
        key = pattern.sub(name, key)
    return [key], shape


def encoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries of a public file, its head under our name for it."""
    return {re.sub(r"^dense\.", "head.", key): tensor for key, tensor in state.items()}


def used(state: Mapping[str, Tensor], config: ECGFounderConfig) -> dict[str, Tensor]:
    """The entries of a public file that a network has a use for: not batch norms switched off.

    Raises
    ------
    WeightsError
        When batch norm was at work while the file was trained, but is off in the network.
    """
    norms = {key for key in state if _BATCH_NORM.match(key)}
    if config.use_bn:
        return {key: t for key, t in state.items() if not key.startswith(_NEVER_USED)}
    for key in norms:
        if key.endswith("num_batches_tracked") and state[key].numel() == 1 and int(state[key]) > 0:
            raise WeightsError(
                f"{key} = {int(state[key])}: batch norm was on when this file was trained, and "
                f"{config.name} is built without it",
                remedy="build it with use_bn=True, or take the batch norms' entries out of the "
                "file if you know that they were not used.",
            )
    return {key: tensor for key, tensor in state.items() if key not in norms}
