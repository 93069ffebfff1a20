"""The loop: exact resume, selection, accumulation, refusals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from recorder import KilledError, Recorder
from torch import Tensor, nn

from einthoven.errors import FileError, TrainingError
from einthoven.signals.random import generator_for
from einthoven.training.checkpoint import load_weights
from einthoven.training.distributed import Processes
from einthoven.training.loop import BEST, CHECKPOINT, Loop
from einthoven.training.optim import Cycle, Schedule, Settings, parameter_groups, scaled_lr


@dataclass(frozen=True)
class Numbers:
    """Batches of a linear problem, each a function of (epoch, position)."""

    size: int = 8
    per_epoch: int = 6

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for position in range(start, self.per_epoch):
            x = torch.randn(self.size, 4, generator=generator_for(epoch, position))
            yield x, (x @ torch.tensor([1.0, -2.0, 0.5, 0.0]))[:, None]


def squared(model: nn.Module, batch: tuple[Tensor, Tensor], device: torch.device) -> Tensor:
    x, y = batch
    return (model(x.to(device)) - y.to(device)).square().mean()


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Dropout(0.2), nn.Linear(16, 1))


def loop(folder: Path, model: nn.Module, **changes: Any) -> Loop[Any]:
    settings = {"epochs": 4, "base_lr": 0.5, "batch_size": 8, "warmup_epochs": 1}
    settings |= changes.pop("settings", {})
    parts: dict[str, Any] = {
        "name": "test",
        "model": model,
        "loss": squared,
        "batches": Numbers(),
        "groups": parameter_groups(model, weight_decay=0.05),
        "settings": Settings(**settings),
        "folder": folder,
        "processes": Processes("cpu"),
    }
    return Loop(**(parts | changes))


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("after", [1, 5, 6, 7, 13, 23])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"checkpoint_seconds": 1e9},  # after every epoch only
        {"cycle": Cycle(), "betas": (0.95, 0.99)},
        {"optimiser": "adamax", "warmup_epochs": 0},
        {"optimiser": "adamax", "cycle": Cycle(warmup_share=0.5), "clip": 0.25},
        {"ema": 0.9},
    ],
)
def test_killed_run_resumes_to_the_same_weights(
    tmp_path: Path, after: int, settings: dict[str, Any]
) -> None:
    """With a checkpoint after every step, unless the settings say otherwise."""
    settings = {"checkpoint_seconds": 0.0} | settings
    whole, killed, again = network(), network(), network()

    def trained(name: str, model: nn.Module, **parts: Any) -> list[dict[str, Any]]:
        history = loop(tmp_path / name, model, settings=settings, **parts).run().history
        return [{key: line[key] for key in ("epoch", "train_loss", "lr")} for line in history]

    expected = trained("whole", whole)
    with pytest.raises(KilledError):
        trained("killed", killed, progress=Recorder(kill=("test", after)))
    assert trained("killed", again) == expected
    assert same(state(again), state(whole))
    kept, expected_kept = network(), network()
    load_weights(tmp_path / "killed" / BEST, kept)
    load_weights(tmp_path / "whole" / BEST, expected_kept)
    assert same(state(kept), state(expected_kept))


def test_moving_average_is_validated_and_kept(tmp_path: Path) -> None:
    """It follows the weights and buffers of every step; training itself does not change."""

    def with_norm() -> nn.Module:
        return nn.Sequential(network(), nn.BatchNorm1d(1))

    plain, model, kept, validated = with_norm(), with_norm(), with_norm(), []
    average = {name: value.double() for name, value in state(model).items()}

    def follow(step: int) -> None:
        decay = min(0.7, step / (9 + step))
        for name, value in model.state_dict().items():
            average[name] = decay * average[name] + (1 - decay) * value.double()

    def validate(selected: nn.Module) -> dict[str, float]:
        validated.append(state(selected))
        return {}

    loop(tmp_path / "plain", plain).run()
    parts: dict[str, Any] = {"after_step": follow, "validate": validate}
    loop(tmp_path / "average", model, settings={"ema": 0.7}, **parts).run()
    load_weights(tmp_path / "average" / BEST, kept)
    assert same(state(model), state(plain))
    assert same(state(kept), validated[-1])
    for name, value in state(kept).items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), average[name], rtol=1e-4, atol=1e-6)
        else:
            assert torch.equal(value, state(model)[name])


def test_one_cycle_uses_the_rate_and_the_momentum_of_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the optimiser holds when it steps, against the formula."""
    seen: list[tuple[float, float]] = []
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *arguments: Any) -> Any:
        group = self.param_groups[0]
        seen.append((group["lr"], group["betas"][0]))
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    settings = {"cycle": Cycle(), "betas": (0.95, 0.99)}
    loop(tmp_path, network(), settings=settings).run()
    schedule = Settings(4, 0.5, 8, cycle=Cycle()).schedule(6)
    assert seen == [(schedule.lr(i), schedule.momentum(i)) for i in range(24)]
    assert seen[0] == (pytest.approx(scaled_lr(0.5, 8) / 25), 0.95)
    assert seen[7] == (scaled_lr(0.5, 8), 0.85)


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = network()
    loop(tmp_path, first).run()
    again, recorder = network(), Recorder()
    loop(tmp_path, again, progress=recorder).run()
    assert not recorder.losses
    assert same(state(first), state(again))


def test_random_state_is_unchanged(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    loop(tmp_path, network()).run()
    assert torch.equal(before, torch.get_rng_state())


def test_accumulated_micro_batches_are_one_batch(tmp_path: Path) -> None:
    """Six batches of 8 as three of two micro-batches: the gradients of 16 samples."""

    @dataclass(frozen=True)
    class Doubled:
        per_epoch: int = 3

        def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
            small = list(Numbers().epoch(epoch))
            for p in range(start, 3):
                pair = small[2 * p : 2 * p + 2]
                yield torch.cat([x for x, _ in pair]), torch.cat([y for _, y in pair])

    def plain() -> nn.Module:
        model = network()
        model[2] = nn.Identity()
        return model

    micro, large = plain(), plain()
    settings = {"batch_size": 16, "base_lr": 0.5}
    loop(tmp_path / "micro", micro, settings=settings | {"accumulation": 2}).run()
    loop(tmp_path / "large", large, batches=Doubled(), settings=settings).run()
    for a, b in zip(state(micro).values(), state(large).values(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    ("metric", "lowest", "values"),
    [
        ("macro_auroc", False, [0.5, 0.9, 0.9, 0.7]),
        ("validation_loss", True, [0.5, 0.2, 0.2, 0.7]),
    ],
)
def test_best_epoch_is_selected_and_ties_go_to_the_earliest(
    tmp_path: Path, metric: str, lowest: bool, values: list[float]
) -> None:
    states: list[dict[str, Tensor]] = []

    def validate(model: nn.Module) -> dict[str, float]:
        states.append(state(model))
        return {metric: values[len(states) - 1]}

    settings = {"select": metric, "lowest": lowest}
    result = loop(tmp_path, network(), validate=validate, settings=settings).run()
    assert (result.best_epoch, result.best) == (2, values[1])
    best = network()
    load_weights(tmp_path / BEST, best)
    assert same(state(best), states[1])


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(
    tmp_path: Path,
) -> None:
    def breaking(model: nn.Module, batch: Any, device: torch.device) -> Tensor:
        loss = squared(model, batch, device)
        breaking.calls += 1  # type: ignore[attr-defined]
        return loss * float("nan") if breaking.calls == 9 else loss  # type: ignore[attr-defined]

    breaking.calls = 0  # type: ignore[attr-defined]
    model = network()
    with pytest.raises(TrainingError, match=r"loss .*nan .*2, step 3") as caught:
        loop(tmp_path, model, loss=breaking).run()
    assert "base_lr" in str(caught.value)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert (tmp_path / CHECKPOINT).is_file()


def test_a_gradient_that_is_not_finite_stops_before_it_is_used(tmp_path: Path) -> None:
    """The loss says nothing of it, and a checkpoint would hold weights without values."""

    def breaking(model: nn.Module, batch: Any, device: torch.device) -> Tensor:
        loss = squared(model, batch, device)
        weight = next(model.parameters())
        return loss + (weight.sum() * 0).sqrt()  # zero, with an infinite slope

    model = network()
    with pytest.raises(TrainingError, match=r"gradient .*nan .*1, step 1") as caught:
        loop(tmp_path, model, loss=breaking).run()
    assert "checkpoint" not in str(caught.value)  # there is none yet
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    loop(tmp_path, network()).run()
    other = nn.Sequential(nn.Linear(4, 1))
    with pytest.raises(TrainingError, match=CHECKPOINT):
        loop(tmp_path, other).run()


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    loop(tmp_path, network()).run()
    file = tmp_path / CHECKPOINT
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(FileError, match=CHECKPOINT):
        loop(tmp_path, network()).run()


def test_schedule_warms_up_and_falls_to_the_minimum() -> None:
    schedule = Schedule(peak_lr=1.0, min_lr=0.1, warmup_steps=10, total_steps=110)
    assert schedule.lr(0) == 0
    assert schedule.lr(5) == 0.5
    assert schedule.lr(10) == 1.0
    assert schedule.lr(60) == pytest.approx(0.55)
    assert schedule.lr(110) == pytest.approx(0.1)


def test_parameter_groups_scale_by_layer_and_spare_by_name() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1))
    model[1].bias.requires_grad_(False)
    groups = parameter_groups(
        model,
        weight_decay=0.1,
        layers=[["0.weight", "0.bias"], ["1.weight", "1.bias"]],
        layer_decay=0.5,
        exempt=["0.bias"],
    )
    found = {
        name: (group["lr_scale"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
        for name, candidate in model.named_parameters()
        if candidate is parameter
    }
    assert found == {
        "0.weight": (0.25, 0.1),
        "0.bias": (0.25, 0.0),
        "1.weight": (0.5, 0.1),
        "2.weight": (1.0, 0.1),
        "2.bias": (1.0, 0.1),
    }
