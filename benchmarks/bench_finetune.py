"""One fine-tuning step against the same network in plain PyTorch.

    python benchmarks/bench_finetune.py
    python benchmarks/bench_finetune.py --device cuda

A step is forward, loss, backward and optimiser on 16 random inputs of `st_mem_tiny` (12 leads of
9 s: 384 tokens), or on 64 of `st_mem_base` on a GPU, with 71 labels and a drop path of 0.1,
constant over depth. The baseline is the same network with the same weights whose attention is
written out (a softmax of Q K^T times V), whose residual branches are computed for every sample and
then multiplied by a mask, and whose AdamW goes through the parameters one by one. Under bf16 both
run in autocast, which keeps the baseline's softmax in fp32; the last row is our bf16 against the
baseline in fp32. Both run in turn, and the fastest of each counts. Outputs in evaluation are
compared first. On a GPU a step ends when the card has finished, and the note gives the share of the
card's peak that ours reaches (`flops.py` says what is counted; branches that stochastic depth drops
count as if they were computed).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim import AdamW

from devices import CPU, add_device, finish
from einthoven.backbones.classifier import Classifier, create_classifier
from einthoven.backbones.inference import Precision
from einthoven.backbones.layers.stochastic_depth import StochasticDepth
from einthoven.backbones.layers.transformer import Attention
from einthoven.stages.finetune import set_drop_path
from einthoven.training.loop import autocast
from einthoven.training.optim import adamw, parameter_groups
from flops import step_flops, utilisation
from table import Row, alternately, print_table, speed_row

LABELS, SAMPLES = 71, 2250
SIZES = {"cpu": ("st_mem_tiny", 16), "cuda": ("st_mem_base", 64)}  # network and batch
DROP_PATH = 0.1
LEARNING_RATE, WEIGHT_DECAY = 6.25e-5, 0.05


class EagerAttention(nn.Module):
    """Attention written out, with the layers of ours."""

    def __init__(self, ours: Attention) -> None:
        super().__init__()
        self.heads, self.qkv, self.proj = ours.heads, ours.qkv, ours.proj

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, width) in and out."""
        batch, tokens, width = x.shape
        shape = (batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = self.qkv(x).reshape(shape).permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) / (width // self.heads) ** 0.5
        mixed = scores.softmax(-1) @ value
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return out


class MaskedDepth(nn.Module):
    """Drop path that computes the branch for all samples and multiplies it by a mask."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
        """`x + branch(x)`, masked in training."""
        update = branch(x)
        if self.training:
            mask = torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device) >= self.rate
            update = update * mask / (1 - self.rate)
        return x + update


def plain(classifier: Classifier) -> Classifier:
    """A copy of the network with the baseline's attention and drop path."""
    copy = deepcopy(classifier)
    blocks: Any = copy.backbone.blocks
    for block in blocks:
        block.attn = EagerAttention(block.attn)
        for name in ("drop_path1", "drop_path2"):
            ours: StochasticDepth = getattr(block, name)
            setattr(block, name, MaskedDepth(ours.rate))
    return copy


def step_of(
    model: nn.Module, optimizer: AdamW, precision: Precision, batch: int, device: torch.device
) -> Callable[[], None]:
    """A call that takes one training step on the same inputs every time, and waits for it."""
    generator = torch.Generator().manual_seed(0)
    signals = torch.randn(batch, 12, SAMPLES, generator=generator).to(device)
    targets = (torch.rand(batch, LABELS, generator=generator) < 0.05).float().to(device)

    def step() -> None:
        with autocast(device, precision):
            logits = model(signals)
            loss = binary_cross_entropy_with_logits(logits.float(), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        finish(device)

    return step


def ours_and_plain(
    precision: Precision, baseline: Precision, device: torch.device
) -> tuple[Any, Any]:
    """A step of either network, from the same weights."""
    name, batch = SIZES[device.type]
    model = create_classifier(name, labels=LABELS, seed=0).to(device)
    set_drop_path(model.backbone, DROP_PATH, schedule="constant")
    other = plain(model)
    fused = adamw(parameter_groups(model, weight_decay=WEIGHT_DECAY), betas=(0.9, 0.999))
    for group in fused.param_groups:
        group["lr"] = LEARNING_RATE
    looped = AdamW(
        other.parameters(),
        lr=LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
        foreach=False,
        fused=False,
    )
    return (
        step_of(model, fused, precision, batch, device),
        step_of(other, looped, baseline, batch, device),
    )


def deviation(device: torch.device) -> float:
    """Largest difference between the two networks' fp32 logits, relative to the largest logit."""
    model = create_classifier(SIZES[device.type][0], labels=LABELS, seed=0).to(device).eval()
    signals = torch.randn(2, 12, SAMPLES, generator=torch.Generator().manual_seed(1)).to(device)
    with torch.no_grad():
        expected = plain(model).eval()(signals)
        return float((model(signals) - expected).abs().max() / expected.abs().max())


def flops_of(name: str, batch: int) -> int:
    """Operations of a training step."""
    model = create_classifier(name, labels=LABELS, seed=0)
    return step_flops(model, torch.zeros(1, 12, SAMPLES), batch)


def run(rounds: int = 6, device: torch.device = CPU) -> list[Row]:
    """Measure fp32, bf16, and our bf16 against the baseline's fp32."""
    network, batch = SIZES[device.type]
    flops = flops_of(network, batch) if device.type == "cuda" else 0
    note = f"batch {batch}, drop path {DROP_PATH}; "
    note += f"deviation in evaluation {deviation(device):.0e}"
    rows = []
    pairs: tuple[tuple[Precision, Precision], ...] = (
        ("fp32", "fp32"),
        ("bf16", "bf16"),
        ("bf16", "fp32"),
    )
    for precision, baseline in pairs:
        ours, theirs = ours_and_plain(precision, baseline, device)
        ours(), theirs()  # the first step makes the optimiser's state
        name = f"fine-tuning step of {network}, {precision}"
        if precision != baseline:
            name += f" (baseline {baseline})"
        times = alternately(ours, theirs, rounds)
        reached = utilisation(flops, times[0].wall, device, precision)
        rows.append(speed_row(name, *times, note=note + reached))
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    add_device(parser)
    options = parser.parse_args()
    print_table(run(options.rounds, options.device), title="A fine-tuning step")


if __name__ == "__main__":
    main()
