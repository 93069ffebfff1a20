from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from einthoven.backbones.classifier import create_classifier
from einthoven.backbones.ecgfounder import ECGFounder
from einthoven.backbones.registry import create_backbone
from einthoven.errors import BackboneError
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.prepare import Preparation, prepare_batch
from einthoven.stages.finetune import regularise
from einthoven.stages.recipe import Stage2

TINY: dict[str, Any] = {"stem_width": 16, "widths": (16, 32), "depths": (1, 2)}
LIMB, CHEST = STANDARD_LEADS[:6], STANDARD_LEADS[6:]
EIGHT = ("I", "II", *CHEST)


def _tiny(name: str = "ecgfounder_12lead", **options: Any) -> ECGFounder:
    built = create_backbone(name, seed=0, **(TINY | options))
    assert isinstance(built, ECGFounder)
    return built.eval()


@pytest.fixture
def record() -> Tensor:
    """Two 12-lead records in mV, 10 s at 500 Hz, offset and drifting, limb leads by the law."""
    generator = torch.Generator().manual_seed(0)
    wave = 0.2 * torch.randn(2, 12, 5000, generator=generator).cumsum(-1) / 10 + 0.3
    one, two = wave[:, 0], wave[:, 1]
    limb = (one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2)
    wave[:, :6] = torch.stack(limb, dim=1)
    return wave


def _prepared(preparation: Preparation, record: Tensor) -> Tensor:
    rows = [STANDARD_LEADS.index(lead) for lead in preparation.sources]
    starts = torch.zeros(len(record), dtype=torch.long)
    return prepare_batch(preparation, record[:, rows], rate=500, starts=starts)


# ---------------------------------------------------------------------- fewer leads


@pytest.mark.parametrize(
    "leads",
    [EIGHT, EIGHT[::-1], ("II", "III", *CHEST), ("V6", "aVF", *CHEST[:5], "aVR", "I")],
    ids=["I-II", "reversed", "II-III", "three limb leads"],
)
def test_derived_leads_are_what_twelve_would_have_been(
    leads: tuple[str, ...], record: Tensor
) -> None:
    whole, reduced = _tiny(), _tiny(leads=leads)
    reduced.load_state_dict(whole.state_dict())
    twelve = _prepared(whole.preparation, record)
    assert set(reduced.preparation.sources) == set(leads)
    assert reduced.leads == reduced.preparation.leads == STANDARD_LEADS
    few = _prepared(reduced.preparation, record)
    assert torch.allclose(few, twelve, atol=1e-4)
    assert torch.allclose(reduced(few), whole(twelve), atol=1e-4)
    # which zeros in the place of derived leads are not
    zeros = twelve.clone()
    zeros[:, [row for row in range(6) if STANDARD_LEADS[row] not in leads]] = 0.0
    assert not torch.allclose(whole(zeros), whole(twelve), atol=1e-2)


def test_limb_leads_alone_are_standardised_among_themselves(record: Tensor) -> None:
    """Six leads, two of them or all: the same input, the chest leads zero."""
    six, two, whole = _tiny(leads=LIMB), _tiny(leads=("I", "II")), _tiny()
    assert two.preparation.sources == ("I", "II")
    x = _prepared(six.preparation, record)
    assert torch.allclose(x.mean((1, 2)), torch.zeros(2), atol=1e-5)
    assert torch.allclose(x.std((1, 2), correction=0), torch.ones(2), atol=1e-5)
    filled = torch.cat([x, torch.zeros(2, 6, 5000)], dim=1)
    assert torch.allclose(six(x), whole(filled), atol=1e-5)
    assert torch.allclose(two(_prepared(two.preparation, record)), six(x), atol=1e-4)


@pytest.mark.parametrize("lead", ["I", "II", "V4"])
def test_a_single_lead_stands_in_its_own_channel(lead: str, record: Tensor) -> None:
    one, whole = _tiny(leads=(lead,)), _tiny()
    x = _prepared(one.preparation, record)
    assert x.shape == (2, 1, 5000)
    filled = torch.zeros(2, 12, 5000)
    filled[:, STANDARD_LEADS.index(lead)] = x[:, 0]
    assert torch.allclose(one(x), whole(filled), atol=1e-5)


def test_leads_are_computed_first_where_any_follow_and_never_else() -> None:
    first = {leads: _tiny(leads=leads).preparation.steps[0] for leads in (
        STANDARD_LEADS, EIGHT, LIMB, ("I", "II"), ("II", "V1"), ("III",),
    )}  # fmt: skip
    assert [step.name for step in first.values()] == [
        "fill", "derive", "fill", "derive", "fill", "fill",
    ]  # fmt: skip
    assert str(first[EIGHT]) == "III, aVR, aVL, aVF computed from I and II, in mV"


def test_leads_named_at_the_call() -> None:
    net = _tiny()
    x = torch.zeros(2, 12, 300)
    x[:, [1, 6]] = torch.randn(2, 2, 300)
    assert torch.allclose(net(x[:, [6, 1]], leads=("v1", "II")), net(x), atol=1e-5)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0)).tolist()
    names = [STANDARD_LEADS[row] for row in order]
    assert torch.allclose(net(x[:, order], leads=names), net(x), atol=1e-5)
    limb = _tiny(leads=("II", "I"))
    y = torch.randn(2, 6, 300)
    assert limb.leads == LIMB
    assert torch.allclose(limb(y.flip(1), leads=LIMB[::-1]), limb(y), atol=1e-5)


def test_refuses_leads_that_lack_others_whose_mean_is_gone() -> None:
    with pytest.raises(BackboneError, match=r"follow III, aVR, aVL, aVF[\s\S]*leads=\('I', 'II'\)"):
        _tiny()(torch.randn(1, 2, 300), leads=("I", "II"))
    with pytest.raises(BackboneError, match="follow III, aVR, aVL, aVF"):
        _tiny(leads=("I", "II", "V1"))(torch.randn(1, 2, 300), leads=("I", "II"))


def test_the_single_lead_network_takes_any_one_lead() -> None:
    net = _tiny("ecgfounder_1lead")
    x = torch.randn(2, 1, 300)
    assert net.leads == net.preparation.leads == ("I",)
    assert torch.equal(net(x, leads=("V2",)), net(x))
    assert _tiny("ecgfounder_1lead", leads=("aVF",)).preparation.leads == ("aVF",)
    with pytest.raises(BackboneError, match=r"reads one lead, not 2: I, II[\s\S]*12lead"):
        _tiny("ecgfounder_1lead", leads=("I", "II"))
    with pytest.raises(BackboneError, match="reads one lead, not 12"):
        net(torch.randn(1, 12, 300), leads=STANDARD_LEADS)
    with pytest.raises(BackboneError, match="for 1 leads"):
        net(torch.randn(1, 12, 300))


# ---------------------------------------------------------------------- the network


@pytest.mark.parametrize(
    ("samples", "tokens"), [(1, 1), (256, 1), (257, 2), (1250, 5), (4999, 20), (5000, 20)]
)
def test_takes_any_length_with_a_token_for_every_256_samples_begun(
    samples: int, tokens: int
) -> None:
    deep = {"widths": (16,) * 7, "depths": (1,) * 7, "stem_width": 16}
    net = _tiny(**deep)
    x = torch.randn(1, 12, samples)
    found = net.tokens(x)
    assert found.shape == (1, tokens, 16)
    assert torch.allclose(net(x), found.mean(1), atol=1e-6)


def test_twenty_branches_behind_squeeze_and_excitation_in_seven_stages() -> None:
    with torch.device("meta"):
        net = create_backbone("ecgfounder_12lead")
    assert [len(stage) for stage in net.stages] == [2, 2, 2, 3, 3, 4, 4]
    assert [len(block) for block in net.residual_branches()] == [1] * 20
    assert [b[0].conv1.stride for b in net.stages] == [(1,)] * 7
    assert [[block.stride for block in stage] for stage in net.stages] == [
        [2] + [1] * (depth - 1) for depth in (2, 2, 2, 3, 3, 4, 4)
    ]
    assert {block.conv2.groups for stage in net.stages for block in stage} == {4, 10, 25, 64}
    sizes = [
        sum(dict(net.named_parameters())[name].numel() for name in group)
        for group in net.layer_groups()
    ]
    # The sheet's counts with the batch norms, less those: twice each norm's width.
    block_5 = 3_418_624 - 2 * 3 * 1024
    assert sizes[:3] == [12_352, 29_344 - 2 * 3 * 64, 29_344 - 2 * 3 * 64]
    assert sizes[-2:] == [block_5, 0]
    # The first block's input is activated already: two dropouts there, three elsewhere.
    assert len(net.feedforward_dropouts()) == 39
    assert len(net.other_dropouts()) == 20


def test_batch_norm_is_a_choice() -> None:
    net = _tiny(use_bn=True)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm1d)]
    assert len(norms) == 1 + 3 * 3 - 1
    assert not any(isinstance(m, nn.BatchNorm1d) for m in _tiny().modules())
    groups = net.layer_groups()
    assert sorted(n for group in groups for n in group) == sorted(dict(net.named_parameters()))
    net.train()(torch.randn(4, 12, 300)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_bf16_stays_close_to_fp32() -> None:
    """A wrong convolution would be off by the features' own size."""
    net = create_backbone("ecgfounder_12lead", seed=0, widths=(64, 160), depths=(2, 2)).eval()
    x = torch.randn(2, 12, 1000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = net(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = net(x)
    assert rough.dtype is torch.float32
    assert (rough - exact).abs().max() < 0.02 * exact.abs().max()


def test_lists_from_a_file_do_for_tuples() -> None:
    net = _tiny(widths=[16, 32], depths=[1, 2], leads=["ii"])
    assert net.config == _tiny(leads=("II",)).config


WINDOW = "window of 5000 samples (3 evaluation crops)"
STANDARDISED = "standardised over each record"


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        (
            {},
            [
                "0 for values that are not numbers",
                "linear resampling to 500 Hz",
                "notch 50 Hz (order 2)",
                "bandpass 0.67-40 Hz (order 4)",
                "minus a running median of 0.4 s",
                WINDOW,
                STANDARDISED,
            ],
        ),
        (
            {"preparation": "evaluation"},
            [STANDARDISED, "linear resampling to 500 Hz", WINDOW],
        ),
        (
            {"preparation": "paper"},
            [
                "linear resampling to 500 Hz",
                "highpass 0.5 Hz (order 2)",
                "lowpass 50 Hz (order 2)",
                "notch 50 Hz (order 2)",
                "notch 60 Hz (order 2)",
                WINDOW,
                STANDARDISED,
            ],
        ),
    ],
    ids=["fine-tuning", "evaluation", "paper"],
)
def test_the_published_preparations(options: dict[str, Any], steps: list[str]) -> None:
    preparation = _tiny(**options).preparation
    assert (preparation.rate, preparation.window) == (500, 5000)
    assert [str(step) for step in preparation.steps] == steps
    assert _tiny(window=1250, **options).preparation.window == 1250


def test_single_lead_is_standardised_alone(record: Tensor) -> None:
    one = _tiny("ecgfounder_1lead")
    x = _prepared(one.preparation, record)
    assert torch.allclose(x.std((1, 2), correction=0), torch.ones(2), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ecgfounder_12lead", "ecgfounder_1lead"])
def test_a_probe_step_and_a_fine_tuning_step_at_full_size(name: str) -> None:
    net = create_classifier(name, labels=71, seed=0)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, len(net.backbone.leads), 5000, generator=generator)
    y = (torch.rand(4, 71, generator=generator) < 0.1).float()

    def step() -> tuple[float, list[str]]:
        optimiser = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-4)
        loss = binary_cross_entropy_with_logits(net(x), y)
        optimiser.zero_grad()
        loss.backward()
        lost = [
            name
            for name, p in net.named_parameters()
            if p.requires_grad and (p.grad is None or not p.grad.isfinite().all())
        ]
        optimiser.step()
        return loss.item(), lost

    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    net.backbone.requires_grad_(False).eval()
    loss, lost = step()
    assert 0.5 < loss < 1.0
    assert lost == []
    changed = {n for n, p in net.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {"head.weight", "head.bias"}
    net.train().requires_grad_(True)
    regularise(net, Stage2(drop_path=0.1, dropout=0.1))
    loss, lost = step()
    assert 0.5 < loss < 1.0
    assert lost == []
    same = [n for n, p in net.named_parameters() if torch.equal(p, before[n])]
    assert same == []
