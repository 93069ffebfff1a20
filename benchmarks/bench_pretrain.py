"""Steps of the S4 encoder and of pretraining against straightforward PyTorch.

    python benchmarks/bench_pretrain.py

The baseline of `s4_small` is the same network with the same weights as one would first write it:
kernels from complex exponentials at every step, convolution by FFT in fp32, 1x1 convolutions on
(batch, channels, tokens), AdamW one parameter at a time. Its contrastive predictive coding gathers
the negatives' vectors where ours gathers scores. The masked autoencoder (`mtecg_tiny_100hz`, 75 %
hidden) is compared with the same network with attention written out. Inputs are random 2.5 s crops
at 100 Hz. Losses are compared first, and both steps run in turn; some rows are ours in bf16 against
ours in fp32.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    conv1d,
    cross_entropy,
    gelu,
    glu,
    layer_norm,
)
from torch.optim import AdamW

from bench_finetune import CPU, EagerAttention
from einthoven.backbones.classifier import create_classifier
from einthoven.objectives import create_pretraining
from einthoven.objectives.cpc import draw_negatives
from einthoven.training.loop import Precision, autocast
from einthoven.training.optim import adamw, parameter_groups
from table import Row, alternately, print_table, speed_row

BATCH, SAMPLES, LABELS = 64, 250, 71
NEGATIVES = 64
LEARNING_RATE = 1e-4


class PlainBlock(nn.Module):
    """An S4 layer as one would first write it, on the parameters of ours."""

    def __init__(self, ours: Any) -> None:
        super().__init__()
        self.ours = ours

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, width) to the same shape."""
        ours, tokens = self.ours, x.shape[1]
        kernel = ours.kernel
        step, c = kernel.log_step.exp()[:, None], torch.view_as_complex(kernel.C[0])
        values = torch.view_as_complex(kernel.eigenvalues)
        scaled = step * values
        states = torch.exp(scaled[..., None] * torch.arange(tokens))
        weights = c * (scaled.exp() - 1) / values
        impulse = 2 * torch.einsum("hn,hnl->hl", weights, states).real
        u = x.transpose(1, 2).float()
        spectrum = torch.fft.rfft(u, 2 * tokens) * torch.fft.rfft(impulse, 2 * tokens)
        y = torch.fft.irfft(spectrum, 2 * tokens)[..., :tokens] + ours.D[:, None] * u
        y = conv1d(gelu(y), ours.output.weight[..., None], ours.output.bias)
        y = (u + glu(y, dim=1)).transpose(1, 2)
        return layer_norm(y, y.shape[-1:], ours.norm.weight, ours.norm.bias)


class VectorNegatives(nn.Module):
    """Contrastive predictive coding that gathers the vectors of the negatives."""

    def __init__(self, ours: Any) -> None:
        super().__init__()
        self.ours = ours

    def forward(self, x: Tensor, *, generator: torch.Generator | None = None) -> Any:
        """The same loss as ours, with one offset."""
        ours = self.ours
        z = ours.backbone.embed(x)
        offset, (batch, tokens, width) = ours.offsets[0], z.shape
        predicted = ours.heads[0](ours.backbone.contextualise(z)[:, :-offset])
        truth = torch.arange(offset, tokens).expand(batch, -1)
        drawn = draw_negatives(truth, tokens, ours.config.negatives, generator)
        chosen = torch.cat([truth[..., None], drawn], dim=-1)
        index = chosen.flatten(1)[..., None].expand(-1, -1, width)
        vectors = z.gather(1, index).view(*chosen.shape, width)
        scores = (vectors * predicted.unsqueeze(2)).sum(-1).float().flatten(0, 1)
        zeros = torch.zeros(len(scores), dtype=torch.long)
        return type("Loss", (), {"loss": cross_entropy(scores, zeros)})()


def plain_s4(model: Any) -> Any:
    """A copy of a classifier or objective whose S4 layers are the baseline's."""
    copy = deepcopy(model)
    copy.backbone.blocks = nn.ModuleList(PlainBlock(block) for block in copy.backbone.blocks)
    return copy


def eager_mae(model: Any) -> Any:
    """A copy of a masked autoencoder with attention written out."""
    copy = deepcopy(model)
    for block in [*copy.backbone.blocks, *copy.decoder.blocks]:
        block.attn = EagerAttention(block.attn)
    return copy


def optimisers(ours: nn.Module, plain: nn.Module) -> tuple[AdamW, AdamW]:
    """The fused one, and one parameter after the other."""
    fused = adamw(parameter_groups(ours, weight_decay=0.01), betas=(0.9, 0.999))
    for group in fused.param_groups:
        group["lr"] = LEARNING_RATE
    looped = AdamW(plain.parameters(), lr=LEARNING_RATE, foreach=False, fused=False)
    return fused, looped


def signals() -> Tensor:
    """The same random crops every time."""
    return torch.randn(BATCH, 12, SAMPLES, generator=torch.Generator().manual_seed(0))


def step_of(model: Any, optimizer: AdamW, precision: Precision, loss_of: Any) -> Callable[[], None]:
    """A call that takes one training step."""
    x = signals()

    def step() -> None:
        with autocast(CPU, precision):
            loss = loss_of(model, x)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def supervised(model: Any, x: Tensor) -> Tensor:
    """The loss of fine-tuning."""
    # Some targets are 1: with none, the loss goes to zero and its gradients become denormal, slow.
    logits = model(x).float()
    ones = torch.rand(logits.shape, generator=torch.Generator().manual_seed(1)) < 0.05
    return binary_cross_entropy_with_logits(logits, ones.float())


def self_supervised(model: Any, x: Tensor) -> Tensor:
    """The loss of pretraining, its randomness the same every time."""
    loss: Tensor = model(x, generator=torch.Generator().manual_seed(0)).loss
    return loss


def cases() -> list[tuple[str, Any, Any, Any]]:
    """Name, our network, its baseline, the loss."""
    classifier = create_classifier("s4_small", labels=LABELS, seed=0)
    published = {"preset": "published", "negatives": NEGATIVES, "reduction": "mean"}
    cpc: Any = create_pretraining("s4_small", objective="cpc", seed=0, **published)
    vectors = VectorNegatives(plain_s4(cpc))
    mae: Any = create_pretraining("mtecg_tiny_100hz", seed=0, mask_ratio=0.75)
    return [
        ("S4 fine-tuning step", classifier, plain_s4(classifier), supervised),
        ("S4 with CPC, step", cpc, vectors, self_supervised),
        (
            "  of that, scores not vectors",
            deepcopy(cpc),
            VectorNegatives(deepcopy(cpc)),
            self_supervised,
        ),
        ("masked autoencoder step", mae, eager_mae(mae), self_supervised),
    ]


def run(rounds: int = 5) -> list[Row]:
    """Measure every case in fp32 and bf16, then bf16 against fp32."""
    rows = []
    for name, ours, plain, loss_of in cases():
        with torch.no_grad():
            expected = loss_of(plain, signals())
            apart = float((loss_of(ours, signals()) - expected).abs() / expected.abs())
        mine = {}
        for precision in ("fp32", "bf16"):
            fast, slow = optimisers(ours, plain)
            steps = (
                step_of(ours, fast, precision, loss_of),
                step_of(plain, slow, precision, loss_of),
            )
            steps[0](), steps[1]()  # the first makes the optimiser's state
            times = alternately(*steps, rounds)
            mine[precision] = times[0]
            note = f"batch {BATCH}, {BATCH / times[0].wall:.0f} crops/s; losses {apart:.0e} apart"
            rows.append(speed_row(f"{name}, {precision}", *times, note=note))
        if not name.startswith(" "):
            low, full = mine["bf16"], mine["fp32"]
            rows.append(speed_row(f"{name}, bf16 against fp32", low, full))
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    print_table(run(parser.parse_args().rounds), title="Pretraining and S4 steps")


if __name__ == "__main__":
    main()
