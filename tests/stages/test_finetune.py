"""Fine-tuning: where drop rates, dropouts, frozen positions and layer decay go."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch

from einthoven.backbones.classifier import Classifier, create_classifier
from einthoven.files import read_tensors
from einthoven.stages.finetune import distillation_loss, regularise, set_drop_path
from einthoven.stages.posttrain import PosttrainResult
from einthoven.stages.recipe import Stage2
from einthoven.training.loop import BEST, Loop, Result
from einthoven.weights import load_backbone

SIZE = {"depth": 3, "width": 32, "heads": 1}


@pytest.fixture(params=["mtecg_tiny_100hz", "st_mem_tiny"])
def classifier(request: pytest.FixtureRequest) -> Classifier:
    return create_classifier(request.param, labels=4, seed=0, **SIZE)


def rates(classifier: Classifier) -> list[list[float]]:
    return [[branch.rate for branch in block] for block in classifier.backbone.residual_branches()]


def test_drop_path_rises_over_depth_or_is_constant(classifier: Classifier) -> None:
    assert set_drop_path(classifier.backbone, 0.2) == pytest.approx([0.0, 0.1, 0.2])
    assert rates(classifier) == [pytest.approx([r, r]) for r in (0.0, 0.1, 0.2)]
    assert set_drop_path(classifier.backbone, 0.2, schedule="constant") == [0.2, 0.2, 0.2]
    assert rates(classifier) == [[0.2, 0.2]] * 3


@pytest.mark.parametrize(("depth", "expected"), [(3, [0.0, 0.2]), (2, [0.2]), (1, [])])
def test_drop_path_without_residual_branches(depth: int, expected: list[float]) -> None:
    plain = create_classifier("lstm", labels=4, width=4, depth=depth)
    assert set_drop_path(plain.backbone, 0.2) == pytest.approx(expected)
    assert rates(plain) == [[]] * (depth - 1)


@pytest.mark.parametrize(("where", "elsewhere"), [("feed-forward", 0.0), ("stmem-all", 0.3)])
def test_dropout_follows_dropout_where(
    classifier: Classifier, where: Any, elsewhere: float
) -> None:
    for dropout in classifier.backbone.other_dropouts():
        dropout.p = 0.9
    regularise(classifier, Stage2(dropout=0.3, dropout_where=where, head_dropout=0.4))
    assert {dropout.p for dropout in classifier.backbone.feedforward_dropouts()} == {0.3}
    assert {dropout.p for dropout in classifier.backbone.other_dropouts()} == {elsewhere}
    assert classifier.head_dropout.p == 0.4


def test_plain_fine_tuning_has_no_regularisation(classifier: Classifier) -> None:
    regularise(classifier, Stage2(drop_path=0.5, dropout=0.5))
    regularise(classifier, Stage2())
    assert rates(classifier) == [[0.0, 0.0]] * 3
    assert all(d.p == 0.0 for d in classifier.modules() if isinstance(d, torch.nn.Dropout))
    assert all(parameter.requires_grad for parameter in classifier.parameters())


Train = Callable[..., PosttrainResult]


def test_frozen_positions_are_not_trained(tmp_path: Path, train: Train) -> None:
    fixed = {"freeze_positions": True, "weight_decay": 0.05, "epochs": 2, "select": "last"}
    run = train(tmp_path, stage1=None, stage2=fixed)
    encoder = load_backbone(
        "mtecg_tiny_100hz", weights=run.run.request["weights"]["path"], depth=2, width=32, heads=1
    )
    before = Classifier(encoder, 1).state_dict()
    for name, value in run.classifier.state_dict().items():
        if not name.startswith("head"):
            assert torch.equal(value, before[name]) == (name == "backbone.pos_embed"), name


Groups = Callable[[dict[str, Any]], dict[str, tuple[float, float]]]


@pytest.fixture
def groups_of(tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch) -> Groups:
    """Learning rate scale and weight decay of every parameter by settings of stage 2."""

    def groups(stage2: dict[str, Any]) -> dict[str, tuple[float, float]]:
        loops: list[Loop[Any]] = []

        def stop(loop: Loop[Any]) -> Result:
            loops.append(loop)
            raise InterruptedError

        monkeypatch.setattr(Loop, "run", stop)
        with pytest.raises(InterruptedError):
            train(tmp_path, stage1=None, stage2=stage2)
        names = {id(p): name for name, p in loops[0].model.named_parameters()}
        values = {
            names[id(p)]: (group["lr_scale"], group["weight_decay"])
            for group in loops[0].groups
            for p in group["params"]
        }
        assert values.keys() == set(names.values())
        return values

    return groups


def test_layer_decay_scales_the_learning_rate_by_layer(groups_of: Groups) -> None:
    """MAE's rule: norm and head have the whole rate, the last block one factor less."""
    scale = groups_of({"layer_decay": 0.5, "decay_exempt": "1d"})
    assert scale["head.weight"] == (1.0, 0.05)
    assert scale["head.bias"] == (1.0, 0.0)
    assert scale["backbone.norm.weight"] == (1.0, 0.0)
    assert {v[0] for k, v in scale.items() if k.startswith("backbone.blocks.1.")} == {0.5}
    assert {v[0] for k, v in scale.items() if k.startswith("backbone.blocks.0.")} == {0.25}
    assert scale["backbone.pos_embed"] == (0.125, 0.05)
    assert scale["backbone.patch_embed.weight"] == (0.125, 0.05)


def test_weight_decay_exemptions_of_the_backbone(groups_of: Groups) -> None:
    values = groups_of({"decay_exempt": "backbone"})
    undecayed = {name for name, (_, decay) in values.items() if decay == 0.0}
    assert undecayed == {"backbone.pos_embed", "backbone.cls_token"}


def test_gradient_clipping_changes_training(tmp_path: Path, train: Train) -> None:
    base = {"epochs": 1, "weight_decay": 0.0, "select": "last", "warmup_epochs": 0}
    free = train(tmp_path / "free", stage1=None, stage2=base)
    clipped = train(tmp_path / "clipped", stage1=None, stage2=base | {"clip": 1e-9})
    pairs = zip(free.classifier.parameters(), clipped.classifier.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)


def test_mixes_and_the_moving_average_are_those_of_the_recipe(tmp_path: Path, train: Train) -> None:
    base = {"epochs": 1, "select": "last", "warmup_epochs": 0}
    states = []
    for name, keys in (
        ("plain", {}),
        ("mix", {"mixup": 1.0}),
        ("cut", {"cutmix": 1.0}),
        ("ema", {"ema": 0.9}),
    ):
        run = train(tmp_path / name, stage1=None, stage2=base | keys)
        states.append(run.classifier.head.weight.detach())
    assert all(not torch.equal(a, b) for a, b in combinations(states, 2))


def test_self_distillation_trains_a_second_network_from_the_same_start(
    tmp_path: Path, train: Train
) -> None:
    base = {"epochs": 1, "select": "last", "warmup_epochs": 0}
    plain = train(tmp_path / "plain", stage2=base)
    student = train(tmp_path / "student", stage2=base | {"distillation": 0.7})
    teacher, _ = read_tensors(tmp_path / "student" / "stage2" / "teacher" / BEST)
    for name, value in plain.classifier.state_dict().items():
        assert torch.equal(teacher[name], value)
    assert not torch.equal(student.classifier.head.weight, plain.classifier.head.weight)


def test_without_a_share_the_loss_of_a_student_is_that_of_the_task() -> None:
    student, teacher, loss = torch.randn(3, 5), torch.randn(3, 5), torch.tensor(0.5)
    keys: Any = {"temperature": 2.0, "form": "labels"}
    assert distillation_loss(loss, student, teacher, share=0.0, **keys) == loss
    assert distillation_loss(loss, teacher, teacher, share=1.0, **keys) == pytest.approx(
        0, abs=1e-6
    )


def test_divergence_of_exclusive_classes() -> None:
    """Against the sum by hand, for two records of three classes."""
    student, teacher = torch.tensor([[2.0, 0.0, -2.0], [0.0, 0.0, 4.0]]), torch.zeros(2, 3)
    p, q = teacher.softmax(1), (student / 2).softmax(1)
    expected = 4 * (p * (p / q).log()).sum(1).mean()
    keys: Any = {"share": 1.0, "temperature": 2.0, "form": "classes"}
    value = distillation_loss(torch.tensor(0.0), student, teacher, **keys)
    assert value == pytest.approx(float(expected), rel=1e-5)
