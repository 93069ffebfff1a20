"""Where a verb that predicts computes."""

from __future__ import annotations

from typing import Annotated

import typer

from einthoven.errors import EvaluationError

DeviceOption = Annotated[str, typer.Option(help="auto, cpu, or a GPU such as cuda or cuda:1.")]


def device_of(name: str) -> str:
    """The device of that name; `auto` is the first GPU, or the CPU where there is none.

    Raises
    ------
    EvaluationError
        When there is no such device.
    """
    import torch

    there = {f"cuda:{i}" for i in range(torch.cuda.device_count())}
    if there:
        there |= {"cuda"}
    if name == "auto":
        return "cuda" if there else "cpu"
    if name != "cpu" and name not in there:
        raise EvaluationError(
            f"device {name!r} is not there; the GPUs are {', '.join(sorted(there)) or 'none'}",
            remedy="use --device auto or cpu",
        )
    return name
