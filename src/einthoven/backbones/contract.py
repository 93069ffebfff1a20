"""The contract of a backbone; tests check it for every registered name.

Abstract classes rather than `typing.Protocol`s, because a Protocol cannot require an `nn.Module`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from einthoven.backbones.layers.stochastic_depth import StochasticDepth, stochastic_depths
from einthoven.backbones.layers.transformer import Attention, FeedForward
from einthoven.backbones.leads import canonical_leads, check_leads
from einthoven.errors import BackboneError

if TYPE_CHECKING:
    from einthoven.backbones.config import BackboneConfig
    from einthoven.signals.preparation import Preparation


class UnfittedWarning(UserWarning):
    """Warning about a network without measured statistics; see `Backbone.fit_statistics`."""


class Backbone(nn.Module, ABC):
    """A network that turns prepared signals into tokens and features.

    The defaults suit a network with a list `blocks` whose features are the mean of the tokens.

    Parameters
    ----------
    config : BackboneConfig
        Its shape; ``create_backbone(name, **overrides)`` takes the same fields.
    feature_dim : int
        Size of a feature vector.

    Attributes
    ----------
    token_dim : int
        Size of a token; `feature_dim` unless a network sets another.
    name : str
        Registry name.
    family : str
        Family of networks that share tensor names and a reader.
    reader : str
        Tensor names in public checkpoints: an `einthoven.weights.fit.Naming`, as `module:NAME`,
        which is imported when a checkpoint is read. Empty if there are no public checkpoints.
    leads : tuple of str
        Leads of an input when `leads` is not given.
    shortest, longest, multiple : int
        An input has a multiple of `multiple` samples, `shortest` or more and, unless None,
        `longest` or fewer.
    final_parameters : tuple of str
        Name prefixes of the parameters in the last group of `layer_groups`.
    fits_statistics : bool
        Whether it has numbers to measure before it is trained from random weights.
    """

    fits_statistics: ClassVar[bool] = False
    reader: ClassVar[str] = ""
    final_parameters: tuple[str, ...] = ()
    shortest: int = 1
    longest: int | None = None
    multiple: int = 1

    family: str
    blocks: Any

    def __init__(self, config: BackboneConfig, feature_dim: int) -> None:
        super().__init__()
        self.config: Any = config
        self.name, self.leads = config.name, config.leads
        self.feature_dim = self.token_dim = feature_dim

    @property
    @abstractmethod
    def preparation(self) -> Preparation:
        """The preparation that turns a record into an input."""

    def forward(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Compute the features; arguments as for `features`."""
        return self.features(x, leads=leads)

    @abstractmethod
    def tokens(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Tokens after the final norm, (batch, tokens, token_dim).

        Parameters
        ----------
        x : Tensor, shape (batch, leads, samples)
            Prepared signals.
        leads : sequence of str, optional
            Names of the input's rows, in their order; `self.leads` when left out.

        Raises
        ------
        BackboneError
            If the network does not read an input of that shape, or needs further leads.
        """

    def features(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Mean of the tokens, (batch, feature_dim); arguments as for `tokens`."""
        return self.tokens(x, leads=leads).mean(1)

    def input_leads(self, x: Tensor, leads: Sequence[str] | None) -> tuple[str, ...]:
        """Names of an input's rows in their standard spelling, once its shape is checked.

        Raises
        ------
        BackboneError
            If names and rows disagree, or the network does not take inputs of that length.
        """
        names = self.leads if leads is None else canonical_leads(leads)
        check_leads(x, names)
        self.check_samples(x.shape[-1])
        return names

    def check_samples(self, samples: int) -> None:
        """Refuse a length that the network does not take.

        Raises
        ------
        BackboneError
            Naming the length and what the network takes.
        """
        longest = samples if self.longest is None else self.longest
        if samples % self.multiple or not self.shortest <= samples <= longest:
            multiple = "" if self.multiple == 1 else f"a multiple of {self.multiple}, "
            most = "" if self.longest is None else f" and at most {self.longest}"
            raise BackboneError(
                f"{self.name}: input of {samples} samples; it takes {multiple}"
                f"at least {max(self.shortest, self.multiple)}{most}",
                remedy="prepare the signal with the backbone's Preparation, or crop it",
            )

    def residual_branches(self) -> list[list[StochasticDepth]]:
        """Stochastic-depth holders: one inner list for each block, in depth order.

        Every block has some, or none has: the inner lists of a network without residual branches
        are empty.
        """
        return [stochastic_depths(block) for block in self.blocks]

    def feedforward_dropouts(self) -> list[nn.Dropout]:
        """Dropouts that the recipe sets, if any: both of every feed-forward by default."""
        parts = [part for part in self.modules() if isinstance(part, FeedForward)]
        return [dropout for part in parts for dropout in (part.drop1, part.drop2)]

    def other_dropouts(self) -> list[nn.Dropout]:
        """Dropouts on embedding and attention (`stage2.dropout_where = "stmem-all"`)."""
        return [part.output_dropout for part in self.modules() if isinstance(part, Attention)]

    def layer_prefixes(self) -> list[tuple[str, ...]]:
        """Name prefixes of each layer's parameters, embeddings first, the final norm last.

        The longest matching prefix applies; the empty one takes the rest. There is a
        layer for each list of `residual_branches`, and one more at either end; the last is without
        prefixes where a network has no final norm.
        """
        blocks = [(f"blocks.{index}.",) for index in range(len(self.blocks))]
        return [("",), *blocks, self.final_parameters]

    def layer_groups(self) -> list[list[str]]:
        """Parameter names by layer: a partition of them all by `layer_prefixes`."""
        groups = {prefix: group for group in self.layer_prefixes() for prefix in group}
        names: dict[tuple[str, ...], list[str]] = {group: [] for group in self.layer_prefixes()}
        for name, _ in self.named_parameters():
            names[groups[max(filter(name.startswith, groups), key=len)]].append(name)
        return list(names.values())

    def adapted(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of this network's names, of a file that was saved under other options.

        A tensor that needs no change, or cannot be adapted, stays as it is.
        """
        return tensors

    def no_weight_decay(self) -> set[str]:
        """Parameter names that the source exempts from weight decay; none by default."""
        return set()

    def fit_statistics(self, batches: Iterable[Tensor]) -> None:
        """Measure the statistics of the standardisation and keep them in buffers.

        Called once, where `fits_statistics`, before training from random weights. Such a network
        warns once (`UnfittedWarning`) where `features` is called before.

        Parameters
        ----------
        batches : iterable of Tensor
            (batch, leads, samples): one prepared crop, not augmented, of every training record.
        """

    def pooling_parameters(self) -> list[str]:
        """Parameter names between tokens and features, which a head on tokens leaves unused."""
        return []

    def extractor_parameters(self) -> list[str]:
        """Parameter names of the convolutional extractor, which `freeze_extractor` freezes."""
        return []

    def position_parameters(self) -> list[str]:
        """Parameter names of the position embedding, which `freeze_positions` freezes."""
        return []


class PatchBackbone(Backbone):
    """A backbone whose input is a grid of patches, any part of which it can encode.

    A grid is (batch, rows, patches, ...): ST-MEM has a row for each lead, MTECG one row for all.

    Attributes
    ----------
    patch : int
        Samples in a patch.
    max_patches : int
        Patches in a row of the longest input.
    rate : float
        Sampling rate of the input, Hz.
    special_tokens : (int, int)
        Special tokens in front of and behind the patches of a row.
    """

    patch: int
    max_patches: int
    rate: float
    special_tokens: tuple[int, int]

    @abstractmethod
    def patch_grid(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Map (batch, leads, samples) to (batch, rows, patches, values), values lead-major."""

    @abstractmethod
    def embed_grid(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Map (batch, leads, samples) to (batch, rows, patches, dim), positions added."""

    @abstractmethod
    def encode_grid(self, grid: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Map (batch, rows, kept, dim) to (batch, rows, special + kept, dim), after the norm."""


class SequenceBackbone(Backbone):
    """A backbone that is a local stem and, on top of it, a model of the sequence.

    ``tokens(x)`` is ``contextualise(embed(x))``.

    Attributes
    ----------
    causal : bool
        Whether a token of `contextualise` depends on no later one.
    token_rate : float
        Tokens per second.
    channels_first : bool
        Whether `blocks` map (batch, channels, tokens) instead of (batch, tokens, channels).
    """

    channels_first: ClassVar[bool] = False
    causal: bool
    token_rate: float

    @property
    @abstractmethod
    def input_scale(self) -> float | None:
        """Millivolts per unit of the input; None for plain millivolts."""

    @abstractmethod
    def scale_inputs(self, millivolts: float) -> None:
        """Set the millivolts per unit of the input, in `config` and `preparation`."""

    @abstractmethod
    def embed(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Map (batch, leads, samples) to (batch, tokens, token_dim), from local samples."""

    @abstractmethod
    def contextualise(self, z: Tensor) -> Tensor:
        """Map (batch, tokens, token_dim) to the same shape, in context."""

    def tokens(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Tokens in context, (batch, tokens, token_dim); arguments as in `Backbone.tokens`."""
        return self.contextualise(self.embed(x, leads=leads))
