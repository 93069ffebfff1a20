"""Names of the tensors in files of the PTB-XL benchmark's own runs.

Its code (helme/ecg_ptbxl_benchmarking, on fastai 1) saves ``{"model": state_dict, "opt": ...}``;
the state dict alone is read too. The networks are sequences there, so that most names are numbers:
``3.4.weight`` is the hidden linear map of fcn_wang and part of a block in xresnet1d101. Which
network a file is of is told by its names, and then what each of ours is called in it.

* xresnets register their convolutions twice, as `convs` and as `convpath`; the latter is left out.
* The last linear map is part of the sequence there and `head` here. `load_backbone` leaves it out,
  `load_classifier` keeps it.
* What is not in the file: the networks were trained on signals that one mean and one deviation had
  standardised, which that code keeps in another file. Give them to the network, for example
  ``load_classifier("xresnet1d101", weights=FILE, standardiser=(-0.00077717, 0.23895642))`` for the
  one that it publishes (in mV, fitted at 500 Hz); otherwise the network reads signals of another
  size than it was trained on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from einthoven.errors import WeightsError
from einthoven.weights.fit import Parts, Shape

__all__ = ["encoder_parts", "encoder_state", "parts_of"]

_INCEPTION_MODULES = 3  # between two shortcuts


@dataclass(frozen=True)
class _Dense:
    """Where the dense layers are in a sequence: its name, and the place of the hidden map in it."""

    sequence: str
    linear: int

    def renamed(self, key: str) -> str:
        """Public name of one of our dense layers' tensors."""
        place = {"norm1": self.linear - 2, "linear": self.linear, "norm2": self.linear + 2}
        _, layer, tensor = key.split(".")
        return f"{self.sequence}.{place[layer]}.{tensor}"

    @property
    def head(self) -> str:
        """Public name of the last linear map."""
        return f"{self.sequence}.{self.linear + 4}."


@dataclass(frozen=True)
class _Network:
    """How one of the networks is named.

    Attributes
    ----------
    ours, theirs : pattern
        A tensor that no other network has, in our naming and in the public one.
    renamed : tuple of (pattern, replacement)
        From our name to the public one.
    dense : callable
        Where its dense layers are, by its number of blocks (or stages) in our naming.
    """

    ours: re.Pattern[str]
    theirs: re.Pattern[str]
    renamed: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...]
    dense: Callable[[int], _Dense]


def _rule(
    pattern: str, to: Callable[..., str]
) -> tuple[re.Pattern[str], Callable[[re.Match[str]], str]]:
    """A pattern, and what its groups become; numbers come as numbers."""

    def replaced(match: re.Match[str]) -> str:
        return to(*(int(group) if group.isdigit() else group for group in match.groups()))

    return re.compile(pattern), replaced


_CONV_NORM = {"conv": 0, "norm": 1}

_NETWORKS = {
    "fcn_wang": _Network(
        ours=re.compile(r"blocks\.0\.conv\.weight"),
        theirs=re.compile(r"0\.0\.0\.weight"),
        renamed=(_rule(r"^blocks\.(\d+)\.(conv|norm)\.", lambda i, n: f"{i}.0.{_CONV_NORM[n]}."),),
        dense=lambda blocks: _Dense(f"{blocks}", 4),
    ),
    "resnet1d_wang": _Network(
        ours=re.compile(r"stem\.conv\.weight"),
        theirs=re.compile(r"3\.0\.conv1\.weight"),
        renamed=(
            _rule(r"^stem\.(conv|norm)\.", lambda n: f"{_CONV_NORM[n]}."),
            _rule(r"^blocks\.(\d+)\.", lambda i: f"{i + 3}.0."),
            _rule(r"\.conv(\d)\.conv\.", lambda i: f".conv{i}."),
            _rule(r"\.conv(\d)\.norm\.", lambda i: f".bn{i}."),
            _rule(r"\.shortcut\.(conv|norm)\.", lambda n: f".downsample.{_CONV_NORM[n]}."),
        ),
        dense=lambda blocks: _Dense(f"{blocks + 3}", 4),
    ),
    "xresnet1d": _Network(
        ours=re.compile(r"stages\.0\.0\.conv1\.conv\.weight"),
        theirs=re.compile(r"4\.0\.convs\.0\.0\.weight"),
        renamed=(
            _rule(r"^stem\.(\d+)\.(conv|norm)\.", lambda i, n: f"{i}.{_CONV_NORM[n]}."),
            _rule(r"^stages\.(\d+)\.", lambda i: f"{i + 4}."),
            _rule(r"\.conv(\d)\.(conv|norm)\.", lambda i, n: f".convs.{i - 1}.{_CONV_NORM[n]}."),
            _rule(r"\.project\.(conv|norm)\.", lambda n: f".idpath.0.{_CONV_NORM[n]}."),
        ),
        dense=lambda stages: _Dense(f"{stages + 4}", 4),
    ),
    "inception1d": _Network(
        ours=re.compile(r"blocks\.0\.layers\.0\.bottleneck\.weight"),
        theirs=re.compile(r"layers\.0\.im\.0\.bottleneck\.weight"),
        renamed=(
            _rule(r"^blocks\.(\d+)\.shortcut\.conv\.", lambda i: f"layers.0.sk.{i}.conv."),
            _rule(r"^blocks\.(\d+)\.shortcut\.norm\.", lambda i: f"layers.0.sk.{i}.bn."),
            _rule(
                r"^blocks\.(\d+)\.layers\.(\d+)\.",
                lambda i, j: f"layers.0.im.{i * _INCEPTION_MODULES + j}.",
            ),
            _rule(r"\.pooled\.", lambda: ".conv_bottle.1."),
            _rule(r"\.norm\.", lambda: ".bn_relu.0."),
        ),
        dense=lambda blocks: _Dense("layers.1", 4),
    ),
    "lstm": _Network(
        ours=re.compile(r"lstm\.weight_ih_l0"),
        theirs=re.compile(r"2\.weight_ih_l0"),
        renamed=(_rule(r"^lstm\.", lambda: "2."),),
        dense=lambda blocks: _Dense("5", 3),
    ),
}
_PUBLISHED_BLOCKS = {"fcn_wang": 3, "resnet1d_wang": 3, "xresnet1d": 4}
_LINEAR = re.compile(r"((?:layers\.)?\d+)\.(\d+)\.weight")
_TWICE = re.compile(r"^(\d+\.\d+)\.convpath\.0\.")


def encoder_parts(network: str, dense: _Dense, key: str, shape: Shape) -> tuple[list[str], Shape]:
    """Public name and shape of one of our encoder's (or classifier's) tensors.

    Convolutions are images of height one here and lines there.
    """
    if key.startswith("dense."):
        return [dense.renamed(key)], shape
    for pattern, name in _NETWORKS[network].renamed:
        key = pattern.sub(name, key)
    return [key], (*shape[:2], shape[3]) if len(shape) == 4 else shape


def parts_of(state: Mapping[str, Tensor]) -> Parts:
    """The names of the network that a public file is of."""
    return partial(encoder_parts, _network(state), _dense(state))


def encoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries of a public file once each, its last linear map under our name for it.

    Raises
    ------
    WeightsError
        When two entries that are one tensor there are not the same.
    """
    head = _dense(state).head
    for key, tensor in state.items():
        first = _TWICE.sub(r"\1.convs.", key)
        if first in state and not torch.equal(state[first], tensor):
            raise WeightsError(
                f"{key} is not the same as {first}, though they are one tensor in the benchmark",
                remedy="save the network's state_dict() again; one of them was changed.",
            )
    return {
        f"head.{key.removeprefix(head)}" if key.startswith(head) else key: tensor
        for key, tensor in state.items()
        if not _TWICE.match(key)
    }


def _network(state: Mapping[str, Tensor]) -> str:
    for network, names in _NETWORKS.items():
        if any(map(names.theirs.fullmatch, state)):
            return network
    raise WeightsError(
        f"{next(iter(state))}: the PTB-XL benchmark's networks have nothing in front of the names",
        remedy="save the state_dict() of the network itself, not of what is around it.",
    )


def _dense(state: Mapping[str, Tensor]) -> _Dense:
    """Where a file's first linear map is; where the published network has it, if there is none."""
    matches = [_LINEAR.fullmatch(key) for key, tensor in state.items() if tensor.ndim == 2]
    found = [_Dense(match[1], int(match[2])) for match in matches if match]
    network = _network(state)
    published = _NETWORKS[network].dense(_PUBLISHED_BLOCKS.get(network, 0))
    return min(found, key=lambda dense: dense.linear, default=published)
