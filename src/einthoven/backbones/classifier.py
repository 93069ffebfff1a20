"""A backbone with a head: the network that is post-trained and shipped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from einthoven.backbones.contract import Backbone
from einthoven.backbones.layers.query_attention import QueryAttention
from einthoven.backbones.registry import create_backbone, seeded
from einthoven.errors import BackboneError
from einthoven.tasks import negatives, positives
from einthoven.tasks.kind import Form

if TYPE_CHECKING:
    from einthoven.signals.preparation import Preparation


HeadKind = Literal["linear", "query-attention"]
Head = nn.Linear | QueryAttention
HeadInit = Literal["stock", "zero", "normal-0.01", "kaiming-normal", "glorot-uniform"]
# How a head's weights are drawn; its biases are zero then.
_HEAD_WEIGHTS: dict[HeadInit, Callable[[Tensor], Tensor]] = {
    "zero": nn.init.zeros_,
    "normal-0.01": partial(nn.init.normal_, std=0.01),
    "kaiming-normal": nn.init.kaiming_normal_,
    "glorot-uniform": nn.init.xavier_uniform_,
}


class Classifier(nn.Module):
    """A backbone, an optional dropout, and a head.

    Parameters
    ----------
    backbone : Backbone
        The encoder.
    labels : int or sequence of str
        Number of labels, or their names in the order of the outputs.
    head : {"linear", "query-attention"}
        One linear layer on the features, or the attention of one learned query over the tokens
        (`einthoven.backbones.layers.query_attention.QueryAttention`). The latter takes the place
        of the backbone's pooling, whose parameters (`Backbone.pooling_parameters`) are frozen.
    head_dropout : float
        Dropout in front of the head.
    head_init : {"stock", "zero", "normal-0.01", "kaiming-normal", "glorot-uniform"}
        Initialisation of the head, or of its last layer: PyTorch's for a linear layer (the recipe's
        choice), all zero, normal weights of std 0.01, or of std sqrt(2 / inputs) (He et al. 2015),
        or uniform ones within sqrt(6 / (inputs + outputs)) of zero (Glorot and Bengio 2010);
        biases are zero but for the first.

    Attributes
    ----------
    labels : tuple of str or None
        Names of the outputs when they were given.
    head : nn.Linear or QueryAttention
        Replaceable; everything else belongs to the backbone.
    """

    head: Head

    def __init__(
        self,
        backbone: Backbone,
        labels: int | Sequence[str] = 71,
        *,
        head: HeadKind = "linear",
        head_dropout: float = 0.0,
        head_init: HeadInit = "stock",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.labels = None if isinstance(labels, int) else tuple(labels)
        self.head_dropout = nn.Dropout(head_dropout)
        self.head = create_head(head, backbone, _count(labels))
        initialise_head(self.head, head_init)
        if head == "query-attention":
            for name in backbone.pooling_parameters():
                backbone.get_parameter(name).requires_grad_(False)

    def forward(self, x: Tensor, leads: Sequence[str] | None = None) -> Tensor:
        """Logits, (batch, labels), of prepared signals (batch, leads, samples)."""
        logits: Tensor = self.head(self.head_dropout(self.head_inputs(x, leads=leads)))
        return logits

    @property
    def head_kind(self) -> HeadKind:
        """Kind of the head."""
        return "query-attention" if isinstance(self.head, QueryAttention) else "linear"

    def head_inputs(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Input of the head for prepared signals (batch, leads, samples).

        Features, (batch, feature_dim), of a linear head; otherwise tokens,
        (batch, tokens, token_dim).
        """
        if self.head_kind == "linear":
            return self.backbone.features(x, leads=leads)
        return self.backbone.tokens(x, leads=leads)

    @property
    def preparation(self) -> Preparation:
        """Preparation of the backbone."""
        return self.backbone.preparation

    def layer_groups(self) -> list[list[str]]:
        """The backbone's groups under this module's names; the head joins the final norm."""
        groups = [[f"backbone.{name}" for name in group] for group in self.backbone.layer_groups()]
        groups[-1] += [f"head.{name}" for name, _ in self.head.named_parameters()]
        return groups


def _count(labels: int | Sequence[str]) -> int:
    count = labels if isinstance(labels, int) else len(labels)
    if count < 1 or isinstance(labels, str):
        raise BackboneError(
            f"labels = {labels!r} gives a head without outputs",
            remedy="give the number of labels, or a sequence of their names",
        )
    if not isinstance(labels, int) and len(set(labels)) < count:
        raise BackboneError("labels: a name comes twice", remedy="give every label once")
    return count


def create_head(kind: HeadKind, backbone: Backbone, outputs: int) -> Head:
    """Build a head for the features or tokens of a backbone; see `Classifier`'s `head`.

    Raises
    ------
    BackboneError
        For an unknown kind.
    """
    if kind == "linear":
        return nn.Linear(backbone.feature_dim, outputs)
    if kind == "query-attention":
        return QueryAttention(backbone.token_dim, outputs)
    raise BackboneError(
        f"head = {kind!r} is unknown", remedy=f"choose {' or '.join(get_args(HeadKind))}"
    )


def initialise_head(head: Head, kind: HeadInit) -> None:
    """Initialise a head by a rule; see `Classifier`'s `head_init`.

    Raises
    ------
    BackboneError
        For an unknown rule.
    """
    if kind == "stock":
        head.reset_parameters()
    elif kind in _HEAD_WEIGHTS:
        last = head.output if isinstance(head, QueryAttention) else head
        _HEAD_WEIGHTS[kind](last.weight)
        if last.bias is not None:
            nn.init.zeros_(last.bias)
    else:
        raise BackboneError(
            f"head_init = {kind!r} is unknown",
            remedy=f"choose stock, {', '.join(_HEAD_WEIGHTS)}",
        )


def start_at_prior(head: Head, targets: NDArray[Any], form: Form = "labels") -> None:
    """Set a head's biases to the log odds of each label's share of some records.

    Those of classes are the logarithms of their shares, those of standardised numbers are 0.

    With a bias of zero every label begins at a probability of one half. Where most are rare, the
    gradients of the first steps all say "less", and backbone and head learn that before anything
    about the signals (Lin et al., "Focal Loss for Dense Object Detection", 2017, section 4.1, for
    a detector's head).

    Parameters
    ----------
    head : nn.Linear
        A head of query attention has no biases.
    targets : numpy.ndarray, shape (records, labels)
        0 and 1, NaN where not known. Half a record is added on either side, so that no bias is
        infinite.
    form : {"labels", "classes", "values"}

    Raises
    ------
    BackboneError
        If the head has no biases.
    """
    if isinstance(head, QueryAttention):
        raise BackboneError("a head of query attention has no biases", remedy="use a linear head")
    present, absent = positives(targets) + 0.5, negatives(targets) + 0.5
    shares = {"labels": present / absent, "classes": present / present.sum()}
    biases = np.log(shares.get(form, np.ones(targets.shape[1])))
    with torch.no_grad():
        head.bias.copy_(torch.from_numpy(biases))


def create_classifier(
    name: str,
    *,
    labels: int | Sequence[str] = 71,
    leads: Sequence[str] | None = None,
    seed: int | None = None,
    head: HeadKind = "linear",
    head_dropout: float = 0.0,
    head_init: HeadInit = "stock",
    **overrides: Any,
) -> Classifier:
    """Build a registered backbone with fresh weights and a head.

    `einthoven.load_backbone` gives one with pretrained weights, for `Classifier`.

    Parameters
    ----------
    name : str
        A registered backbone.
    labels, head, head_dropout, head_init
        See `Classifier`.
    leads : sequence of str, optional
        Leads that inputs will have; the twelve standard ones when left out.
    seed : int, optional
        Seed of all fresh weights; the caller's random state is left as it was.
    **overrides
        Fields of the backbone's config.

    Returns
    -------
    Classifier
        In training mode.

    Raises
    ------
    BackboneError
        For an unknown name, lead or option.
    """
    if leads is not None:
        overrides["leads"] = tuple(leads)
    with seeded(seed):
        backbone = create_backbone(name, **overrides)
        classifier = Classifier(
            backbone, labels, head=head, head_dropout=head_dropout, head_init=head_init
        )
    return classifier.train()
