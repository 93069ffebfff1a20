"""Published S4 encoders (ECG-CPC and its relatives), told by their structure.

The authors train with Lightning, whose files keep their tensors under `state_dict`. What is known
of these files is their structure: shapes, layers, what is trained and what is a buffer. **Names of
tensors are inferred here; no public file was at hand to check them.** So nothing hangs on a name
but the letters C and D of the paper. The rest is told by shapes, by values and by the numbers in
names, and what can be told in two ways is refused with a list.

=========  ========================================================================================
stem       convolutions (width, 12, 3) and (width, width, 1), and as many batch norms
kernels    C, (directions, width, pairs) complex; beside it the step sizes and HiPPO-LegS' own
           eigenvalues, B and P, and perhaps how many tokens C is corrected for
layers     D in a module around each kernel, and one linear map (2 width, width) in that module
norms      one for each layer
=========  ========================================================================================

What lies outside the modules of these (the head of a pretraining) is left out, as the authors do.
C is stored with a correction for the length of the kernel (see `s4_kernel`), which `used` takes
away. Where the file does not say that length, `S4Config.corrected_tokens` does, with a warning.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from itertools import takewhile

import torch
from torch import Tensor

from einthoven.backbones.s4 import S4, S4Config
from einthoven.errors import WeightsError
from einthoven.records.record import STANDARD_LEADS
from einthoven.weights.fit import own_parts
from einthoven.weights.s4_kernel import (
    complex_of,
    legs,
    length_of,
    refuse,
    step_sizes,
    without_correction,
)

__all__ = ["AssumedLengthWarning", "encoder_parts", "encoder_state", "to_public", "used"]

State = Mapping[str, Tensor]
encoder_parts = own_parts  # `encoder_state` gives our names already

# An entry beside the tensors: for how many tokens C is corrected, 0 where the file does not say.
_LENGTH = "corrected_tokens"
_NORM = ("weight", "bias", "running_mean", "running_var")


class AssumedLengthWarning(UserWarning):
    """A file that does not say for how many tokens its C is corrected."""


def encoder_state(state: State) -> dict[str, Tensor]:
    """The encoder of a published file in our names, C as it is stored.

    Raises
    ------
    WeightsError
        When a part is absent, there twice, or can be told in more than one way.
    """
    left = dict(state)
    stem, around_stem = _stem(left)
    layers, around_layers = _layers(left, width=len(stem["stem.0.weight"]))
    for module in (around_stem, around_layers):
        unknown = [name for name in left if _is_within(name, module)]
        if unknown:
            refuse(f"tensors in {module or 'the file'} that have no place there", unknown)
    return stem | layers


def used(state: State, config: S4Config) -> dict[str, Tensor]:
    """The encoder with the C of the state-space model, in as many directions as `config` asks for.

    A causal encoder that is asked for as bidirectional (``causal=False``) gets kernels of the
    future that are zero: it answers what it answered until it is trained.

    Raises
    ------
    WeightsError
        When the file says another length than the one that is asked for.
    """
    if _LENGTH not in state:  # a file of our own
        return _directed(dict(state), config)
    ours = {name: tensor for name, tensor in state.items() if name != _LENGTH}
    tokens = _tokens(int(state[_LENGTH]), config)
    for name in [name for name in ours if name.endswith(".kernel.C")]:
        dynamics = {key: ours[name[:-1] + key] for key in ("log_step", "eigenvalues", "correction")}
        ours[name] = without_correction(ours[name], **dynamics, tokens=tokens)
    return _directed(ours, config)


def _directed(state: dict[str, Tensor], config: S4Config) -> dict[str, Tensor]:
    if config.causal:
        return state
    for name, tensor in state.items():
        if name.endswith(".kernel.C") and len(tensor) == 1:
            state[name] = torch.cat([tensor, torch.zeros_like(tensor)])
    return state


def _tokens(said: int, config: S4Config) -> int:
    asked = config.corrected_tokens
    if said and asked not in (None, said):
        raise WeightsError(
            f"the file's C is corrected for {said} tokens, not for corrected_tokens = {asked}",
            remedy="leave corrected_tokens out.",
        )
    if said or asked:
        return said or int(asked or 0)
    tokens = config.window // S4.STRIDE
    warnings.warn(
        f"the file does not say for how many tokens its C is corrected; {tokens} are taken, the "
        f"window of {config.name}. If its kernels were made for others, such as the 1200 of 10 s, "
        "load it with corrected_tokens=1200",
        AssumedLengthWarning,
        stacklevel=5,
    )
    return tokens


def to_public(state: State) -> dict[str, Tensor]:
    """Refused: what the authors' own code calls its tensors is not known here.

    Raises
    ------
    WeightsError
        Always.
    """
    raise WeightsError(
        "the public names of S4 encoders are not known, only their structure",
        remedy="save it in our own naming: einthoven.save_model(model, folder).",
    )


# ---------------------------------------------------------------------- stem and layers


def _stem(left: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Take the stem's tensors out of `left`: them in our names, and the module around them."""
    leads = len(STANDARD_LEADS)
    firsts = [key for key, tensor in left.items() if tensor.shape[1:] == (leads, S4.TAPS)]
    if len(firsts) != 1:
        refuse(f"{len(firsts)} convolutions of shape (width, {leads}, {S4.TAPS})", firsts)
    width = len(left[firsts[0]])
    later = [key for key, tensor in left.items() if tensor.shape == (width, width, 1)]
    convs = firsts + _numbered(later, "convolutions of the stem")
    means = [k for k, t in left.items() if _last(k) == "running_mean" and t.shape == (width,)]
    norms = _numbered([_module(key) for key in means], "batch norms")
    if len(convs) != len(norms):
        refuse(f"{len(convs)} convolutions and {len(norms)} batch norms", convs + norms)
    inside = _around(convs + norms)
    ours = {f"stem.{i}.weight": left.pop(key) for i, key in enumerate(convs)}
    for i, norm in enumerate(norms):
        ours |= {f"stem.{i}.norm.{part}": _taken(left, f"{norm}.{part}") for part in _NORM}
        counted = left.pop(f"{norm}.num_batches_tracked", torch.tensor(0))
        ours[f"stem.{i}.norm.num_batches_tracked"] = counted
    return ours, inside


def _layers(left: dict[str, Tensor], *, width: int) -> tuple[dict[str, Tensor], str]:
    """Take the state-space layers out of `left`, as `_stem` does; and how C is corrected."""
    cs = [key for key, tensor in left.items() if _last(key) == "C" and _is_c(tensor, width)]
    kernels = _numbered([_module(key) for key in cs], "state-space kernels")
    if not kernels:
        refuse(f"no C of shape (directions, {width}, pairs)", [k for k in left if _last(k) == "C"])
    skips = {
        _module(key): key for key, t in left.items() if _last(key) == "D" and t.numel() == width
    }
    modules = [_owner(kernel, skips) for kernel in kernels]
    norms = _norms(left, width, modules)
    inside = _around([*modules, *norms])
    ours: dict[str, Tensor] = {}
    lengths = []
    for i, (kernel, module, norm) in enumerate(zip(kernels, modules, norms, strict=True)):
        found, length = _kernel(left, kernel, width)
        lengths.append(length)
        found |= {
            "D": left.pop(skips[module]).reshape(width),
            "norm.weight": _taken(left, f"{norm}.weight"),
            "norm.bias": _taken(left, f"{norm}.bias"),
        }
        found["output.weight"], found["output.bias"] = _projection(left, module, width)
        ours |= {f"blocks.{i}.{name}": tensor for name, tensor in found.items()}
    if len(set(lengths)) > 1:
        refuse(f"C corrected for {', '.join(map(str, lengths))} tokens in its layers", kernels)
    return ours | {_LENGTH: torch.tensor(lengths[0])}, inside


def _kernel(left: dict[str, Tensor], prefix: str, width: int) -> tuple[dict[str, Tensor], int]:
    """A layer's kernel in our names, C as stored, and for how many tokens that is corrected."""
    c = complex_of(left.pop(f"{prefix}.C"))
    assert c is not None
    if not bool(c.isfinite().all()):
        refuse("a C that holds NaN or infinity", [f"{prefix}.C"])
    beside = {key: left.pop(key) for key in list(left) if _module(key) == prefix}
    step, log_step = step_sizes(beside, width, prefix)
    length, said = length_of(beside)
    systems = {key: tensor for key, tensor in beside.items() if key not in (step, *said)}
    found = legs(systems, c.shape[-1], prefix) | {
        "C": torch.view_as_real(c.to(torch.complex64)),
        "log_step": log_step,
    }
    return {f"kernel.{name}": tensor for name, tensor in found.items()}, length


def _is_c(tensor: Tensor, width: int) -> bool:
    c = complex_of(tensor)
    return c is not None and c.ndim == 3 and c.shape[1] == width


def _owner(kernel: str, skips: Mapping[str, str]) -> str:
    """The module around a kernel that has a D."""
    found = [module for module in skips if f"{kernel}.".startswith(f"{module}.")]
    if len(found) != 1:
        refuse(f"{len(found)} D of the kernel {kernel}", [skips[module] for module in found])
    return found[0]


def _norms(left: State, width: int, modules: Sequence[str]) -> list[str]:
    """Layer norms: those in the innermost module around all layers that has as many."""
    every = [
        _module(key)
        for key, tensor in left.items()
        if _last(key) == "weight" and tensor.shape == (width,) and f"{_module(key)}.bias" in left
    ]
    around = _around(modules)
    while around and sum(_is_within(name, around) for name in every) < len(modules):
        around = _module(around)
    found = [name for name in every if _is_within(name, around)]
    if len(found) != len(modules):
        refuse(f"{len(found)} norms for {len(modules)} state-space layers", found)
    return _numbered(found, "norms")


def _projection(left: dict[str, Tensor], module: str, width: int) -> tuple[Tensor, Tensor]:
    """Weight and bias of the linear map to twice the width, be it a convolution or not."""
    shapes = ((2 * width, width), (2 * width, width, 1))
    found = [key for key, t in left.items() if _is_within(key, module) and t.shape in shapes]
    if len(found) != 1 or _last(found[0]) != "weight":
        refuse(f"{len(found)} linear maps from {width} to {2 * width} in {module}", found)
    bias = _taken(left, f"{_module(found[0])}.bias")
    if bias.numel() != 2 * width:
        refuse(f"a bias of {bias.numel()} values for {2 * width} outputs", found)
    return left.pop(found[0]).reshape(shapes[0]), bias.reshape(-1)


# ---------------------------------------------------------------------- names


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _around(names: Sequence[str]) -> str:
    """The innermost module that all of these are in, or that they are."""
    levels = zip(*(name.split(".") for name in names), strict=False)
    return ".".join(level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels))


def _is_within(name: str, module: str) -> bool:
    return not module or name.startswith(f"{module}.")


def _numbered(names: Sequence[str], what: str) -> list[str]:
    """Names that differ in their numbers alone, in the order of these."""
    if len({re.sub(r"\d+", "#", name) for name in names}) > 1:
        refuse(f"{what} whose order cannot be told", names)
    return sorted(names, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])


def _taken(left: dict[str, Tensor], name: str) -> Tensor:
    if name not in left:
        refuse("a tensor is missing", [name])
    return left.pop(name)
