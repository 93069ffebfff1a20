"""The kernel of a published state-space layer: its dynamics told from values, its C set right.

The stored C is not the C of the state-space model: it is ``C (I - A_bar**L)`` for the L tokens that
the kernel was made for, so that the generating function at the L roots of unity is that of the
kernel's first L values (Gu et al., ICLR 2022, section 3). Eigenvalues, B, P and step sizes are
never trained; they are taken from the file, after they were found to be HiPPO-LegS up to the phases
and the order of its eigenvectors, which a file is free to choose.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn

import torch
from torch import Tensor

from einthoven.backbones.layers.state_space import nplr_system
from einthoven.errors import WeightsError

__all__ = ["complex_of", "legs", "length_of", "refuse", "step_sizes", "without_correction"]

State = Mapping[str, Tensor]
_STEPS = (math.log(1e-3), math.log(1e-1))  # where published step sizes were drawn
_LENGTHS = ("l", "l_max", "l_kernel", "length", "kernel_length")
_CLOSE = 1e-3


def step_sizes(beside: State, width: int, prefix: str) -> tuple[str, Tensor]:
    """The logarithms of the step sizes among the tensors beside C: their name and values."""
    low, high = _STEPS[0] - _CLOSE, _STEPS[1] + _CLOSE
    found = [
        key
        for key, t in beside.items()
        if t.is_floating_point() and t.numel() == width and bool(((t > low) & (t < high)).all())
    ]
    if len(found) != 1:
        refuse(f"{len(found)} times {width} step sizes, as logarithms, in {prefix}", beside)
    return found[0], beside[found[0]].reshape(width)


def length_of(beside: State) -> tuple[int, set[str]]:
    """Tokens that C is corrected for, 0 where nothing says it; and the names of what says it.

    It is said by a whole number that is called so, or by the roots of unity that the kernel is
    evaluated at.
    """
    said = {key: int(t) for key, t in beside.items() if _is_length(key, t)}
    roots = {key: length for key, t in beside.items() if (length := _roots(t))}
    lengths = {*said.values(), *roots.values()}
    if len(lengths) > 1 or any(length < 2 for length in lengths):
        refuse("lengths of a kernel that contradict each other", [*said, *roots])
    nodes = {key for root in roots for key, t in beside.items() if _are_nodes(t, beside[root])}
    return next(iter(lengths), 0), {*said, *roots, *nodes}


def _is_length(name: str, tensor: Tensor) -> bool:
    whole = tensor.numel() == 1 and not tensor.is_floating_point() and not tensor.is_complex()
    return whole and name.rpartition(".")[2].lower() in _LENGTHS


def _roots(tensor: Tensor) -> int:
    """L when these are its roots of unity in order, through half a turn; otherwise 0."""
    z = complex_of(tensor)
    if z is None or z.ndim != 1 or len(z) < 2:
        return 0
    angle = float(z[1].to(torch.complex128).angle())
    length = round(2 * math.pi / abs(angle)) if angle else 0
    if length // 2 + 1 != len(z):
        return 0
    turns = torch.arange(len(z)).double() * math.copysign(2 * math.pi / length, angle)
    expected = torch.polar(torch.ones_like(turns), turns)
    return length if torch.allclose(z.to(expected.dtype), expected, atol=_CLOSE) else 0


def _are_nodes(tensor: Tensor, roots: Tensor) -> bool:
    """Whether these are 2 (1 - root) / (1 + root), where a Cauchy kernel is evaluated."""
    z, omega = complex_of(tensor), complex_of(roots)
    if z is None or omega is None or z.shape != omega.shape:
        return False
    finite = slice(0, len(z) // 2)  # towards the last one they grow beyond all bounds
    return torch.allclose(z[finite] * (1 + omega[finite]), 2 * (1 - omega[finite]), atol=_CLOSE)


def legs(beside: State, pairs: int, prefix: str) -> dict[str, Tensor]:
    """Eigenvalues, B and P as a file has them, found to be those of HiPPO-LegS.

    Parameters
    ----------
    beside : mapping
        Complex tensors, one value for each conjugate pair, all channels alike.
    pairs : int
        Half the size of the state.
    prefix : str
        Named in errors.

    Returns
    -------
    dict
        `eigenvalues`, `input_weights` and `correction`, each (pairs, 2).

    Raises
    ------
    WeightsError
        For tensors that are no part of it, or not in one basis.
    """
    values, b, p = (part[:pairs] for part in nplr_system(2 * pairs))
    rows = {key: row for key, t in beside.items() if (row := _one_row(t, pairs)) is not None}
    if len(rows) < len(beside):
        refuse(f"unknown tensors beside C in {prefix}", [key for key in beside if key not in rows])
    found = _only(rows, f"eigenvalues of HiPPO-LegS in {prefix}", lambda z: _are(z, values))
    by_frequency = rows.pop(found)
    order = by_frequency.imag.abs().argsort(descending=True)
    inputs = _only(rows, f"B of HiPPO-LegS in {prefix}", lambda z: _sized(z[order], b))
    b_there = rows.pop(inputs)
    corrections = [key for key, row in rows.items() if _sized(row[order], p)]
    if not corrections or len(corrections) < len(rows):
        refuse(f"B, P and others in {prefix} that are not HiPPO-LegS together", [inputs, *rows])
    p_there = rows[corrections[0]]
    same = [_close(rows[key], p_there) or _close(rows[key], p_there.conj()) for key in corrections]
    # An eigenvector's phase, whatever it is, is in both: B is P times the root of 2.
    if not all(same) or not _close(b_there, p_there * 2**0.5):
        refuse(f"B, P and Q in {prefix} are in different bases", [inputs, *corrections])
    real = {"eigenvalues": by_frequency, "input_weights": b_there, "correction": p_there}
    return {name: torch.view_as_real(row.to(torch.complex64)) for name, row in real.items()}


def _are(z: Tensor, values: Tensor) -> bool:
    """Whether these are one eigenvalue of each conjugate pair, in any order."""
    frequencies = z.imag.abs().sort().values, values.imag.sort().values
    return bool(torch.allclose(*frequencies, rtol=_CLOSE) and _close(z.real, values.real))


def _sized(z: Tensor, like: Tensor) -> bool:
    return torch.allclose(z.abs(), like.abs(), rtol=_CLOSE)


def _close(z: Tensor, like: Tensor) -> bool:
    return torch.allclose(z, like, atol=_CLOSE)


def _one_row(tensor: Tensor, pairs: int) -> Tensor | None:
    """What all channels have in common, (pairs,) complex128; None where there is no such thing."""
    z = complex_of(tensor)
    if z is None or z.shape[-1] != pairs:
        return None
    rows = z.reshape(-1, pairs).to(torch.complex128)
    return rows[0] if _close(rows, rows[:1].expand_as(rows)) else None


def _only(rows: State, what: str, fits: Callable[[Tensor], bool]) -> str:
    found = [key for key, row in rows.items() if fits(row)]
    if len(found) != 1:
        refuse(f"{len(found)} tensors that are the {what}", found or rows)
    return found[0]


def without_correction(
    c: Tensor, *, log_step: Tensor, eigenvalues: Tensor, correction: Tensor, tokens: int
) -> Tensor:
    """C from ``C (I - A_bar**tokens)``, computed in double precision.

    Parameters
    ----------
    c : Tensor, shape (directions, channels, pairs, 2)
        As stored.
    log_step : Tensor, shape (channels,)
    eigenvalues, correction : Tensor, shape (pairs, 2)
        ``A = diag(eigenvalues) - P P*`` with the conjugates, P being the correction.
    tokens : int

    Returns
    -------
    Tensor, shape (directions, channels, pairs, 2)
    """
    halves = (torch.view_as_complex(t.double().contiguous()) for t in (eigenvalues, correction))
    values, p = (torch.cat([half, half.conj()]) for half in halves)
    a = torch.diag(values) - torch.outer(p, p.conj())
    identity = torch.eye(len(values), dtype=a.dtype)
    rate = (2.0 / log_step.double().exp())[:, None, None] * identity
    a_bar = torch.linalg.solve(rate - a, rate + a)  # the bilinear rule
    factor = identity - torch.linalg.matrix_power(a_bar, tokens)
    half = torch.view_as_complex(c.double().contiguous())
    stored = torch.cat([half, half.conj()], dim=-1)  # (directions, channels, state)
    whole = torch.linalg.solve(factor.mT, stored.unsqueeze(-1)).squeeze(-1)
    return torch.view_as_real(whole[..., : half.shape[-1]]).float()


def complex_of(tensor: Tensor) -> Tensor | None:
    """A complex tensor, or one of real and imaginary parts as complex; None for any other."""
    if tensor.is_complex():
        return tensor
    if tensor.is_floating_point() and tensor.ndim > 1 and tensor.shape[-1] == 2:
        return torch.view_as_complex(tensor.contiguous())
    return None


def refuse(problem: str, names: Iterable[str]) -> NoReturn:
    """Say what cannot be told, with the names of the tensors that it is about.

    Raises
    ------
    WeightsError
        Always.
    """
    listed = list(names)
    more = f" and {len(listed) - 8} more" if len(listed) > 8 else ""
    raise WeightsError(
        f"no S4 encoder of a known structure: {problem}"
        + (f": {', '.join(listed[:8])}{more}" if listed else ""),
        remedy="leave the stem and the state-space layers of one encoder in the file, without "
        "teachers or other copies.",
    )
