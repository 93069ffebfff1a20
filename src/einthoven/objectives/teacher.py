"""Student and teacher: an encoder predicts what a moving average of itself makes of an ECG.

The student sees the stem's tokens with some of them replaced by one learned vector; the teacher
sees the whole ECG. `einthoven.objectives.jepa`, `data2vec`, `dinosr` and `sinkhorn_kmeans` differ
in the tokens that are hidden, in the targets that they make of the teacher's output, and in the
loss. Settings of arXiv 2605.12241 are those of the presets `as-published`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from einthoven.backbones.config import TYPICAL_DEVIATION_MV, Share
from einthoven.backbones.contract import Backbone, SequenceBackbone
from einthoven.backbones.layers.state_space import StateSpaceBlock, StateSpaceKernel
from einthoven.errors import BackboneError, RecipeError, TrainingError, validated
from einthoven.objectives.masks import draw_centred_spans, own_rows

Momentum = Annotated[float, Field(ge=0, le=1)]

TOKEN_MS = 1000 / 120
"""Length of a token of the published encoder."""
PUBLISHED_RATIO = 1 - (1 - 0.065 / 10) ** 10
"""Share of hidden tokens in the released code, 6.3 %: the probability 0.065 of a span is divided by
its length once more."""

PUBLISHED_MEAN_MV = (
    -0.00185, -0.00130, 0.00017, -0.00091, -0.00149, -0.00175,
    -0.00077, -0.00207, 0.00054, 0.00156, -0.00114, -0.00036,
)  # fmt: skip
PUBLISHED_STD_MV = (
    0.164, 0.165, 0.234, 0.338, 0.334, 0.306, 0.273, 0.276, 0.171, 0.140, 0.146, 0.147,
)  # fmt: skip
"""Statistics of PTB-XL in the released code. They are in the order I, II, V1 to V6, III, aVR, aVL,
aVF, and are applied to I, II, III, aVR, aVL, aVF, V1 to V6."""


@validated("teacher", RecipeError)
class TeacherConfig:
    """Settings of student and teacher.

    Attributes
    ----------
    momentum : (float, float)
        Share of the teacher that an update keeps, at the first step and from `momentum_steps` on,
        linear in between. One keeps the teacher as it is.
    momentum_steps : int
        Optimiser steps of the ramp.
    teacher_start : {"student", "random"}
        The teacher starts as a copy of the student, or with weights of its own.
    teacher_mode : {"eval", "train"}
        Whether the teacher's dropout is off and its batch norms use running statistics.
    inputs : {"scaled", "standardised"}
        Inputs of about unit deviation in pretraining and all that follows (the backbone's `scale`
        is set where it has none), or standardised in pretraining alone, with the released
        statistics in their wrong order.
    """

    momentum: tuple[Momentum, Momentum] = (0.996, 0.9999)
    momentum_steps: PositiveInt = 2_000
    teacher_start: Literal["student", "random"] = "student"
    teacher_mode: Literal["eval", "train"] = "eval"
    inputs: Literal["scaled", "standardised"] = "scaled"


@validated("teacher", RecipeError)
class SpanConfig(TeacherConfig):
    """Settings of objectives that hide spans of tokens; the others are those of `TeacherConfig`.

    Attributes
    ----------
    mask_ratio : float
        Expected share of hidden tokens.
    mask_ms : float
        Length of a hidden span, ms.
    """

    mask_ratio: Share = 0.5
    mask_ms: PositiveFloat = 10 * TOKEN_MS


AS_PUBLISHED: dict[str, Any] = {
    # The released code pairs teacher and student by names that never match, so that the teacher is
    # another random network, and stays so; it is in training mode.
    "momentum": (1.0, 1.0),
    "teacher_start": "random",
    "teacher_mode": "train",
    "inputs": "standardised",
}


class Teacher(nn.Module):
    """Moving average of an encoder.

    Parameters
    ----------
    student : Backbone
        Its parameters are averaged, and its buffers copied.
    config : TeacherConfig
        Start, momentum and mode.
    """

    def __init__(self, student: Any, config: TeacherConfig) -> None:
        super().__init__()
        self.config = config
        is_copy = config.teacher_start == "student"
        self.network: Any = deepcopy(student) if is_copy else type(student)(student.config)
        self.network.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> Teacher:
        """Set the mode; the network stays in evaluation mode unless the config differs."""
        super().train(mode)
        self.network.train(mode and self.config.teacher_mode == "train")
        return self

    @torch.no_grad()
    def layers(self, x: Tensor, count: int = 1, *, part: str = "block") -> list[Tensor]:
        """Outputs of the last blocks on signals (batch, leads, samples), the last one last.

        `part` is `block`, or `branch` for the last residual branch alone: what it adds to its
        input, before any norm.
        """
        with recorded(self.network, count, part) as outputs:
            self.network.tokens(x)
        return outputs

    @torch.no_grad()
    def update(self, student: Backbone, step: int) -> None:
        """Move towards the student after optimiser step `step`, counted from 1.

        Raises
        ------
        TrainingError
            If the two have parameters of different names: nothing would be averaged.
        """
        momentum = self.momentum(step)
        if momentum == 1.0:
            return
        own, other = dict(self.network.named_parameters()), dict(student.named_parameters())
        if own.keys() != other.keys():
            raise TrainingError(
                "teacher and student have parameters of different names",
                remedy="build the teacher from the student after the student is complete",
            )
        for name, average in own.items():
            average.lerp_(other[name], 1.0 - momentum)
        buffers = dict(student.named_buffers())
        for name, buffer in self.network.named_buffers():
            buffer.copy_(buffers[name])

    def momentum(self, step: int) -> float:
        """Momentum of the update after optimiser step `step`."""
        (start, end), steps = self.config.momentum, self.config.momentum_steps
        return start + (end - start) * min((step - 1) / steps, 1.0)

    @torch.no_grad()
    def distance(self, student: Backbone) -> Tensor:
        """Distance to the student's parameters, relative to their length; a scalar."""
        pairs = list(zip(self.network.parameters(), student.parameters(), strict=True))
        apart = torch.stack([(a - b).double().square().sum() for a, b in pairs]).sum()
        length = torch.stack([b.double().square().sum() for _, b in pairs]).sum()
        return (apart / length.clamp(min=1e-12)).sqrt().float()


@contextmanager
def recorded(backbone: Any, count: int, part: str = "block") -> Iterator[list[Tensor]]:
    """Record the outputs of the last `count` blocks of a backbone; see `Teacher.layers`.

    Raises
    ------
    BackboneError
        If it has fewer blocks, or `part` is `branch` and a block has no residual branch.
    """
    blocks = list(backbone.blocks)[-count:]
    modules = blocks
    if part == "branch":
        branches = backbone.residual_branches()[-count:]
        if not all(branches):
            raise BackboneError(
                f"{backbone.name} has blocks without a residual branch",
                remedy="set target_part to block",
            )
        modules = [each[-1] for each in branches]
    if len(blocks) < count:
        raise BackboneError(
            f"{backbone.name} has {len(blocks)} blocks",
            remedy=f"set target_layers to {len(blocks)}",
        )
    outputs: list[Tensor] = []

    def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        output = output - inputs[0] if part == "branch" else output
        is_channels_first = getattr(backbone, "channels_first", False)
        outputs.append(output.transpose(1, 2) if is_channels_first else output)

    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


class MaskedStudent(nn.Module):
    """Base of the objectives with student and teacher.

    Subclasses choose `hidden` tokens, `targets` and the loss in `forward`.

    Parameters
    ----------
    backbone : SequenceBackbone
        The student; its weights are left as they are, and its inputs get a scale.
    config : TeacherConfig
        Settings.
    """

    backbone: SequenceBackbone

    def __init__(self, backbone: SequenceBackbone, config: Any) -> None:
        super().__init__()
        if config.inputs == "scaled" and backbone.input_scale is None:
            backbone.scale_inputs(TYPICAL_DEVIATION_MV)
        self.backbone = backbone
        self.config = config
        self.mask_vector = nn.Parameter(torch.randn(backbone.token_dim))
        self.teacher = Teacher(backbone, config)

    def tokens_of(self, milliseconds: float) -> int:
        """Tokens of a stretch of time, at least one."""
        return max(1, round(milliseconds * self.backbone.token_rate / 1000))

    def standardised(self, x: Tensor) -> Tensor:
        """Inputs as this objective's config has them; missing samples are zero."""
        x = torch.nan_to_num(x)
        if self.config.inputs == "scaled":
            return x
        mean, std = (x.new_tensor(v)[:, None] for v in (PUBLISHED_MEAN_MV, PUBLISHED_STD_MV))
        return (x * (self.backbone.input_scale or 1.0) - mean) / std

    def hidden_spans(
        self, target: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Hidden tokens of these records, on their device, and those of all processes, on the CPU.

        `target` is (records, tokens, ...); the config is a `SpanConfig`.
        """
        whole = draw_centred_spans(
            target.shape[:2],
            self.config.mask_ratio,
            self.tokens_of(self.config.mask_ms),
            generator=generator,
        )
        return own_rows(whole, generator).to(target.device), whole

    def context(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Student's tokens in context, (batch, tokens, dim); `hidden` is (batch, tokens) bool."""
        z = self.backbone.embed(x)
        return self.backbone.contextualise(
            torch.where(hidden[..., None], self.mask_vector.to(z.dtype), z)
        )

    def after_step(self, step: int) -> None:
        """Move the teacher."""
        self.teacher.update(self.backbone, step)

    def metrics(self, hidden: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Realised share of hidden tokens, and the deviation of the targets over tokens.

        The deviation of a collapsed target is near zero. In evaluation also the teacher's distance.
        """
        values = {
            "masked": hidden.float().mean(),
            "target_std": target.float().flatten(0, 1).std(0, correction=0).mean(),
        }
        if not self.training:
            values["teacher_distance"] = self.teacher.distance(self.backbone)
        return values


class SequenceHead(nn.Module):
    """One bidirectional state-space layer over the tokens, and a linear map.

    Parameters
    ----------
    width, outputs : int
        Size of a token and of what is predicted for it.
    state : int
        Size of a channel's state.
    dropout : float
        Rate of the layer's dropouts.
    """

    def __init__(self, width: int, outputs: int, *, state: int = 64, dropout: float = 0.2) -> None:
        super().__init__()
        self.layer = StateSpaceBlock(width, StateSpaceKernel(width, state, causal=False))
        self.layer.drop1, self.layer.drop2 = nn.Dropout(dropout), nn.Dropout(dropout)  # type: ignore[assignment]
        self.output = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, tokens, width) to (batch, tokens, outputs)."""
        out: Tensor = self.output(self.layer(x))
        return out


def sequence_backbone(backbone: Backbone, objective: str) -> SequenceBackbone:
    """The backbone, if it has a stem and sees a token's past and future.

    Raises
    ------
    BackboneError
        Otherwise; hidden tokens are replaced between the stem and the sequence model.
    """
    if not isinstance(backbone, SequenceBackbone):
        raise BackboneError(
            f"{backbone.name} has no stem with a sequence model on top, which {objective} needs",
            remedy="choose a backbone such as s4",
        )
    if backbone.causal:
        raise BackboneError(
            f"{backbone.name} is causal; {objective} predicts hidden tokens from both sides",
            remedy="build it with causal=False",
        )
    return backbone
