"""Steps of every objective against the passes of its networks alone.

    python benchmarks/bench_objectives.py

A step computes the loss, its gradients and the update of weights, teachers and codebooks. The
baseline runs the same networks forward and backward on the same inputs, without masks, negatives,
targets, clusters or updates: the encoder once, the teacher once without gradients where there is
one, and the layers that predict. The limit is a step of 1.3 times the baseline, a ratio of 0.77.
Networks are `s4_small` on 2.5 s at 100 Hz, `mtecg_tiny_100hz` for the masked autoencoder, and two
layers of `ecg_fm` on 10 s for its objectives; inputs are random.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from devices import CPU, add_device, finish
from einthoven.objectives import create_pretraining, objective_names
from einthoven.objectives.cmsc import halves
from einthoven.objectives.masks import draw_masking, gather_patches
from einthoven.objectives.objective import SteppedObjective
from einthoven.signals.random import ShareGenerator
from einthoven.training.optim import adamw, parameter_groups
from table import Row, alternately, print_table, speed_row

LIMIT = 1.3


@dataclass(frozen=True)
class Setting:
    """Network, its options, batch and samples of an objective."""

    network: str
    options: dict[str, Any]
    batch: int
    samples: int


S4 = Setting("s4_small", {}, 64, 250)
ECG_FM = Setting("ecg_fm", {"depth": 2}, 4, 5000)
SETTINGS = {
    "mae": Setting("mtecg_tiny_100hz", {}, 64, 250),
    "wav2vec2": ECG_FM,
    "ecg_fm": ECG_FM,
}


def predicted(objective: Any, x: Tensor) -> Tensor:
    """What the networks of an objective compute from signals, as many tokens as in a step."""
    backbone = objective.backbone
    if hasattr(objective, "decoder"):
        grid = backbone.embed_grid(x)
        masking = draw_masking(tuple(grid.shape[:3]), objective.config.mask_ratio)
        encoded = backbone.encode_grid(gather_patches(grid, masking.keep))
        decoded: Tensor = objective.decoder(encoded, masking.restore)
        return decoded
    if hasattr(objective, "quantiser"):
        x = halves(x) if objective.config.cmsc_weight else x
        local = backbone.extract(x)
        context: Tensor = objective.context_projection(
            backbone.contextualise(backbone.projection(local))
        )
        return context
    if hasattr(objective, "encoded_samples"):
        features: Tensor = backbone.features(halves(x, objective.encoded_samples(x.shape[-1])))
        return features
    if hasattr(objective, "teacher"):
        with torch.no_grad():
            objective.teacher.network.tokens(x)
    tokens: Tensor = backbone.contextualise(backbone.embed(x))
    heads = getattr(objective, "heads", None)
    if heads is not None:
        return torch.stack([head(tokens) for head in heads])
    head = getattr(objective, "head", None) or objective.projection
    out: Tensor = head(tokens)
    return out


def calls(
    objective: Any, setting: Setting, device: torch.device
) -> tuple[Callable[[], None], Callable[[], None]]:
    """A training step, and the passes of its networks alone."""
    shape = setting.batch, 12, setting.samples
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    objective.to(device).train()
    optimiser = adamw(parameter_groups(objective, weight_decay=0.01), betas=(0.9, 0.999))
    for group in optimiser.param_groups:
        group["lr"] = 1e-5
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1
        objective(x, generator=ShareGenerator(steps)).loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if isinstance(objective, SteppedObjective):
            objective.after_step(steps)
        finish(device)

    def passes() -> None:
        predicted(objective, x).float().square().mean().backward()  # type: ignore[no-untyped-call]
        for parameter in objective.parameters():
            parameter.grad = None
        finish(device)

    return step, passes


def run(rounds: int = 5, device: torch.device = CPU, names: list[str] | None = None) -> list[Row]:
    """Measure every objective."""
    rows = []
    for name in names or objective_names():
        setting = SETTINGS.get(name, S4)
        objective = create_pretraining(
            setting.network, objective=name, seed=0, backbone_options=setting.options
        )
        step, passes = calls(objective, setting, device)
        step(), passes()  # the first makes the optimiser's state
        times = alternately(step, passes, rounds)
        ratio = times[0].cpu / times[1].cpu
        note = f"{setting.network}, batch {setting.batch}; {ratio:.2f} times the passes in CPU time"
        rows.append(speed_row(f"step, {name}", *times, target=1 / LIMIT, note=note))
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", help="objectives to measure")
    add_device(parser)
    options = parser.parse_args()
    rows = run(options.rounds, options.device, options.only)
    print_table(rows, title="Steps of objectives")


if __name__ == "__main__":
    main()
