"""Every operation against a plain statement of its rule, and how often each is used."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from einthoven.errors import RecipeError
from einthoven.signals import augment
from einthoven.signals.augment import (
    OPERATIONS,
    Mixing,
    RandAugment,
    RandomLeadMask,
    create_augmentation,
)

T = 400


def _generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(5, 3, T, generator=_generator(9))


def _wave(amplitude: float, period: float) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * np.arange(T) / T / period)


def test_shift_moves_all_leads_and_fills_with_zeros(x: Tensor) -> None:
    for record, moved in zip(x, OPERATIONS["shift"](x, 1.0, _generator()), strict=True):
        expected = [
            torch.cat([torch.zeros(3, max(by, 0)), record, torch.zeros(3, max(-by, 0))], dim=1)
            for by in range(-T // 3, T // 3)
        ]
        shifts = zip(range(-T // 3, T // 3), expected, strict=True)
        assert any(torch.equal(moved, e[:, :T] if by > 0 else e[:, -T:]) for by, e in shifts)


@pytest.mark.parametrize("name", ["cutout", "drop", "erase"])
def test_samples_are_zeroed_and_the_others_stay(x: Tensor, name: str) -> None:
    changed = OPERATIONS[name](x, 1.0, _generator(2))
    zeros = changed == 0
    assert torch.equal(changed[~zeros], x[~zeros])
    if name == "erase":
        assert (zeros.all(2).sum(1) == 1).all()
        assert zeros.sum() == 5 * T
        erased = OPERATIONS["erase"](torch.ones(3000, 3, 4), 1.0, _generator()) == 0
        np.testing.assert_allclose(erased[:, :, 0].double().mean(0), 1 / 3, atol=0.05)
    else:
        assert torch.equal(zeros, zeros[:, :1].expand_as(zeros))
    if name == "cutout":
        assert (zeros[:, 0].int().diff().abs().sum(1) <= 2).all()


def test_partial_sines_and_noise_fill_one_stretch(x: Tensor) -> None:
    wave = _wave(0.3, 0.5)
    np.testing.assert_allclose(
        OPERATIONS["sine"](x, 1.0, _generator()), x.numpy() + wave, atol=1e-6
    )
    added = OPERATIONS["partial_sine"](0 * x, 1.0, _generator(2))[:, 0].numpy()
    noisy = OPERATIONS["partial_white_noise"](x, 1.0, _generator(2)) != x
    assert torch.equal(noisy, noisy[:, :1].expand_as(noisy))
    for record, stretch in zip(added, noisy[:, 0].numpy(), strict=True):
        places = np.flatnonzero(stretch)
        assert (np.diff(places) == 1).all()
        expected = np.zeros(T)
        expected[places] = wave[: len(places)]
        np.testing.assert_allclose(record, expected, atol=1e-6)


def _lengths_of_zeros(level: float, name: str) -> Tensor:
    ones = torch.ones(4000, 2, T)
    out = OPERATIONS[name](ones, level / 10, _generator(3))
    assert torch.equal(out[:, 0], out[:, 1])
    return (out[:, 0] == 0).sum(1)


@pytest.mark.parametrize("name", ["shift", "cutout", "drop"])
@pytest.mark.parametrize("level", [10, 5])
def test_zeroed_lengths_are_uniform_up_to_the_levels_limit(name: str, level: float) -> None:
    longest = math.floor(0.3 * level / 10 * T)
    lengths = _lengths_of_zeros(level, name)
    assert int(lengths.min()) == 0
    assert int(lengths.max()) == longest - 1
    # The mean of a uniform draw on 0 ... longest - 1, within five standard errors.
    tolerance = 5 * longest / math.sqrt(12 * 4000)
    assert float(lengths.double().mean()) == pytest.approx((longest - 1) / 2, abs=tolerance)


def test_each_operation_is_used_as_often_as_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    used: dict[str, int] = {}

    def counting(name: str) -> augment.Operation:
        def operation(x: Tensor, strength: float, generator: Generator) -> Tensor:
            used[name] = used.get(name, 0) + len(x)
            return x + (1 << list(OPERATIONS).index(name))

        return operation

    counted = {name: counting(name) for name in OPERATIONS}
    monkeypatch.setattr(augment, "OPERATIONS", counted)
    out = RandAugment(level=10)(torch.zeros(8000, 1, 1), _generator())
    # Two of eight, each with probability 0.5: one in eight; four standard errors.
    for name in counted:
        assert used[name] / 8000 == pytest.approx(0.125, abs=4 * math.sqrt(0.125 * 0.875 / 8000))
    # Powers of two show what each record got: none twice, and none or one or two.
    bits = [bin(int(value)).count("1") for value in out.flatten()]
    assert sum(bits) == sum(used.values())
    assert np.bincount(bits) / 8000 == pytest.approx([0.25, 0.5, 0.25], abs=0.025)


@pytest.mark.parametrize(
    "augmentation", [RandAugment(), RandAugment(operations=8, probability=1.0), RandomLeadMask()]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batches_keep_shape_and_type_and_follow_the_generator(
    augmentation: augment.Augmentation, dtype: torch.dtype
) -> None:
    x = torch.randn(16, 12, 300, generator=_generator(), dtype=dtype)
    before = x.clone()
    state = torch.get_rng_state()
    first, again = augmentation(x, _generator(4)), augmentation(x, _generator(4))
    assert torch.equal(first, again)
    assert not torch.equal(first, augmentation(x, _generator(5)))
    assert (first.shape, first.dtype) == (x.shape, dtype)
    assert torch.isfinite(first).all()
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_level_zero_changes_nothing(x: Tensor) -> None:
    assert torch.equal(RandAugment(level=0, probability=1.0)(x, _generator()), x)
    assert torch.equal(RandAugment(operations=0)(x, _generator()), x)


def test_leads_are_masked_whole_and_independently() -> None:
    x = torch.randn(4096, 12, 5, generator=_generator())
    out = RandomLeadMask(0.25)(x, _generator())
    masked = (out == 0).all(2)
    assert torch.equal(out[~masked], x[~masked])
    np.testing.assert_allclose(masked.double().mean(0), 0.25, atol=0.03)
    assert float(masked.double().sum(1).var()) == pytest.approx(12 * 0.25 * 0.75, rel=0.1)


def test_names_build_augmentations_and_mistakes_are_refused() -> None:
    assert create_augmentation("rand-augment", level=5) == RandAugment(level=5)
    assert create_augmentation("lead-mask") == RandomLeadMask()
    for name, options in [
        ("mixup", {}),
        ("rand-augment", {"levl": 3}),
        ("rand-augment", {"level": 11}),
        ("rand-augment", {"operations": 9}),
        ("rand-augment", {"operations": 1.5}),
        ("rand-augment", {"probability": -0.1}),
        ("lead-mask", {"probability": float("nan")}),
    ]:
        with pytest.raises(RecipeError):
            create_augmentation(name, **options)


def test_no_flip_leaves_the_sign(x: Tensor) -> None:
    ones = torch.ones(400, 2, 50)
    for name, flips in (("rand-augment", True), ("rand-augment-no-flip", False)):
        changed = create_augmentation(name, level=1e-9)(ones, _generator())
        assert bool((changed < -0.5).any()) == flips


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixes_have_the_targets_of_both_records_by_their_shares(kind: str) -> None:
    """Of signals that are constant, the mean of a mixed one is the mean of its targets."""
    values = torch.arange(64.0)
    x = values[:, None, None].expand(64, 3, T).contiguous()
    mixed, targets = Mixing(**{kind: 1.0})(x, values[:, None], _generator())
    torch.testing.assert_close(mixed.mean(dim=(1, 2)), targets[:, 0], rtol=1e-4, atol=1e-4)
    share = ((targets[:, 0] - values.roll(1)) / (values - values.roll(1))).numpy()
    assert share.min() >= 0.5
    assert len(set(share.round(3))) > 32  # each record its own
    if kind == "cutmix":
        assert torch.equal(mixed[:, :1].expand_as(mixed), mixed)
        assert set((mixed == x).flatten().tolist()) == {False, True}
        others = mixed == x.roll(1, 0)
        assert (others[:, 0].int().diff().abs().sum(1) <= 2).all()
        assert ((mixed == x) | others).all()
    else:
        assert (mixed == mixed[:, :, :1]).all()


def test_mixes_draw_a_kind_a_batch_and_keep_what_is_not_known() -> None:
    x, targets = torch.randn(8, 2, T, generator=_generator()), torch.zeros(8, 1)
    targets[3] = torch.nan
    cuts = []
    for seed in range(60):
        mixed, mixes = Mixing(mixup=1.0, cutmix=1.0)(x, targets, _generator(seed))
        cuts.append(bool((mixed == x).any()))
        assert mixes[:, 0].isnan().nonzero().flatten().tolist() == [3, 4]
    assert 15 < sum(cuts) < 45
