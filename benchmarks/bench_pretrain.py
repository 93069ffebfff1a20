"""Steps of the S4 encoder and of pretraining against straightforward PyTorch.

    python benchmarks/bench_pretrain.py
    python benchmarks/bench_pretrain.py --device cuda

The baseline of an S4 is the same network with the same weights as one would first write it: kernels
from the dynamics at every step, convolution by FFT in fp32, 1x1 convolutions on (batch, channels,
tokens), AdamW one parameter at a time. Its contrastive predictive coding, as published with 128
negatives of the same record, gathers the negatives' vectors where ours gathers scores. Masked
autoencoders (75 % hidden) are compared with the same network with attention written out. Inputs are
random. On a CPU the networks are `s4_small` and `mtecg_tiny_100hz` on crops of 2.5 s at 100 Hz and
`st_mem_tiny` on 9 s at 250 Hz; on a GPU the published `s4` on 2.5 s at 240 Hz and `st_mem_base`.
Losses are compared first, and both steps run in turn; some rows are ours in bf16 against ours in
fp32. On a GPU a step ends when the card has finished, and the note gives the share of the card's
peak that ours reaches (`flops.py` says what is counted).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
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

from bench_finetune import EagerAttention
from devices import CPU, add_device, finish
from einthoven.backbones.classifier import create_classifier
from einthoven.backbones.inference import Precision
from einthoven.backbones.layers.state_space import nplr_basis
from einthoven.objectives import create_pretraining
from einthoven.objectives.cpc import draw_negatives
from einthoven.training.loop import autocast
from einthoven.training.optim import adamw, parameter_groups
from flops import step_flops, utilisation
from table import Row, alternately, print_table, speed_row

BATCH, LABELS = 64, 71
LEARNING_RATE = 1e-4
Loss = Callable[[Any, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes
    ----------
    name, network : str
        What is measured, and on which backbone.
    ours, plain : nn.Module
        With the same weights.
    loss : callable
        Loss of a model on a batch.
    samples : int
        Samples of an input.
    batch : int
    whole : bool
        Whether it is a training step as there are, and not a part of one.
    """

    name: str
    network: str
    ours: Any
    plain: Any
    loss: Loss
    samples: int
    batch: int = BATCH
    whole: bool = True


class PlainBlock(nn.Module):
    """An S4 layer as one would first write it, on the parameters of ours."""

    def __init__(self, ours: Any) -> None:
        super().__init__()
        self.ours = ours

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, width) to the same shape."""
        ours, tokens = self.ours, x.shape[1]
        c = torch.view_as_complex(ours.kernel.C[0])
        impulse = 2 * torch.einsum("hn,hnl->hl", c, states(ours.kernel, tokens)).real
        u = x.transpose(1, 2).float()
        spectrum = torch.fft.rfft(u, 2 * tokens) * torch.fft.rfft(impulse, 2 * tokens)
        y = torch.fft.irfft(spectrum, 2 * tokens)[..., :tokens] + ours.D[:, None] * u
        y = conv1d(gelu(y), ours.output.weight[..., None], ours.output.bias)
        y = (u + glu(y, dim=1)).transpose(1, 2)
        return layer_norm(y, y.shape[-1:], ours.norm.weight, ours.norm.bias)


def states(kernel: Any, tokens: int) -> Tensor:
    """States after an impulse, (channels, pairs, tokens), computed afresh."""
    step, values = kernel.log_step.exp(), torch.view_as_complex(kernel.eigenvalues)
    if kernel.dynamics == "nplr":
        rest = (kernel.input_weights, kernel.correction)
        whole = (values, *(torch.view_as_complex(matrix) for matrix in rest))
        values, b, p = (torch.cat([part, part.conj()]).to(torch.complex128) for part in whole)
        return nplr_basis(step, values, b, p, tokens)[:, : kernel.pairs].to(torch.complex64)
    scaled = step[:, None] * values
    powers = torch.exp(scaled[..., None] * torch.arange(tokens, device=step.device))
    response: Tensor = ((scaled.exp() - 1) / values)[..., None] * powers
    return response


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
        truth = torch.arange(offset, tokens, device=x.device).expand(batch, -1)
        negatives = draw_negatives(truth, tokens, ours.config.negatives, generator)
        candidates = torch.cat([truth[..., None], negatives], dim=-1)
        index = candidates.flatten(1)[..., None].expand(-1, -1, width)
        vectors = z.gather(1, index).view(*candidates.shape, width)
        scores = (vectors * predicted.unsqueeze(2)).sum(-1).float().flatten(0, 1)
        zeros = torch.zeros(len(scores), dtype=torch.long, device=x.device)
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


def signals(case: Case, records: int, device: torch.device = CPU) -> Tensor:
    """The same random inputs every time."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(records, 12, case.samples, generator=generator).to(device)


def step_of(
    model: Any, optimizer: AdamW, precision: Precision, case: Case, device: torch.device
) -> Callable[[], None]:
    """A call that takes one training step, and returns when it is done."""
    x = signals(case, case.batch, device)

    def step() -> None:
        with autocast(device, precision):
            loss = case.loss(model, x)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        finish(device)

    return step


def supervised(model: Any, x: Tensor) -> Tensor:
    """The loss of fine-tuning."""
    # Some targets are 1: with none, the loss goes to zero and its gradients become denormal, slow.
    logits = model(x).float()
    ones = torch.rand(logits.shape, generator=torch.Generator().manual_seed(1)) < 0.05
    return binary_cross_entropy_with_logits(logits, ones.float().to(x.device))


def self_supervised(model: Any, x: Tensor) -> Tensor:
    """The loss of pretraining, its randomness the same every time."""
    loss: Tensor = model(x, generator=torch.Generator().manual_seed(0)).loss
    return loss


def cases(device: torch.device = CPU) -> list[Case]:
    """What is measured on a device; models are made on the CPU."""
    if device.type == "cuda":
        return [*_s4("s4", 600), _mae("st_mem_base", 2250, BATCH)]
    return [
        *_s4("s4_small", 250),
        _mae("mtecg_tiny_100hz", 250, BATCH),
        _mae("st_mem_tiny", 2250, 8),
    ]


def _s4(name: str, samples: int) -> list[Case]:
    options: dict[str, Any] = {"dropout": 0.0}  # the baseline has none
    classifier = create_classifier(name, labels=LABELS, seed=0, **options)
    cpc: Any = create_pretraining(
        name,
        objective="cpc",
        seed=0,
        backbone_options=options,
        preset="as-published",
        reduction="mean",
    )
    vectors = VectorNegatives(plain_s4(cpc))
    alone, gathered = deepcopy(cpc), VectorNegatives(deepcopy(cpc))
    part = f"  of that, scores of {cpc.config.negatives} negatives, not vectors"
    return [
        Case("S4 fine-tuning step", name, classifier, plain_s4(classifier), supervised, samples),
        Case("S4 with CPC, step", name, cpc, vectors, self_supervised, samples),
        Case(part, name, alone, gathered, self_supervised, samples, whole=False),
    ]


def _mae(name: str, samples: int, batch: int) -> Case:
    mae: Any = create_pretraining(name, seed=0, mask_ratio=0.75)
    what = f"masked autoencoder step, {name}"
    return Case(what, name, mae, eager_mae(mae), self_supervised, samples, batch)


def flops_of(case: Case) -> int:
    """Operations of a training step of ours."""
    return step_flops(lambda x: case.loss(case.ours, x), signals(case, 1), case.batch)


def deviation(case: Case, device: torch.device) -> float:
    """Relative difference of the two losses in fp32."""
    x = signals(case, case.batch, device)
    with torch.no_grad():
        expected = case.loss(case.plain, x)
        return float((case.loss(case.ours, x) - expected).abs() / expected.abs())


def run(rounds: int = 5, device: torch.device = CPU) -> list[Row]:
    """Measure every case in fp32 and bf16, then bf16 against fp32."""
    rows = []
    for case in cases(device):
        flops = flops_of(case) if device.type == "cuda" else 0
        case.ours.to(device), case.plain.to(device)
        apart, mine = deviation(case, device), {}
        precisions: tuple[Precision, ...] = ("fp32", "bf16")
        for precision in precisions:
            optimizers = optimisers(case.ours, case.plain)
            steps = [
                step_of(model, optimizer, precision, case, device)
                for model, optimizer in zip((case.ours, case.plain), optimizers, strict=True)
            ]
            steps[0](), steps[1]()  # the first makes the optimiser's state
            times = alternately(steps[0], steps[1], rounds)
            mine[precision] = times[0]
            note = f"batch {case.batch}, {case.batch / times[0].wall:.0f} crops/s; "
            note += f"losses {apart:.0e} apart"
            note += utilisation(flops, times[0].wall, device, precision)
            rows.append(speed_row(f"{case.name}, {precision}", *times, note=note))
        if case.whole:
            low, full = mine["bf16"], mine["fp32"]
            rows.append(speed_row(f"{case.name}, bf16 against fp32", low, full))
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    add_device(parser)
    options = parser.parse_args()
    print_table(run(options.rounds, options.device), title="Pretraining and S4 steps")


if __name__ == "__main__":
    main()
