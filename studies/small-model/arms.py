"""Arms of the ladder: what each changes in the recipe of `einthoven-small`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Arm:
    """One change of the recipe.

    Attributes
    ----------
    rung : str
        Group of changes.
    about : str
        The change in words.
    flags : tuple of str
        Assignments of recipe keys, as `--set` takes them.
    backbone, recipe : str
        Network, and the recipe that the flags change; only the S4 starts from the given encoder.
    teachers : tuple of str
        Arms whose mean out-of-fold prediction of the training records is half of the target.
    """

    rung: str
    about: str
    flags: tuple[str, ...] = ()
    backbone: str = "s4_small"
    recipe: str = "s4-100hz-cpu/post-training"
    teachers: tuple[str, ...] = ()


BASE = ("stage2.drop_path=0", "stage2.keep=always")
_MIX = ("stage2.mixup=0.2", "stage2.cutmix=0.2")
_LAST = "stage2.select=last"


def _arm(rung: str, about: str, *flags: str, teachers: tuple[str, ...] = ()) -> Arm:
    return Arm(rung, about, (*BASE, *flags), teachers=teachers)


def _peer(backbone: str) -> Arm:
    about = f"{backbone} from random weights"
    return Arm("teacher", about, ("precision=bf16",), backbone, "strodthoff")


ARMS = {
    "base": _arm("-", "recipe of einthoven-small: no stochastic depth, dropout 0.01"),
    "mix": _arm("e", "mixup and CutMix along time, beta 0.2", *_MIX),
    "cutmix": _arm("e", "CutMix along time, beta 1", "stage2.cutmix=1"),
    "gentle": _arm(
        "e",
        "RandAugment without change of sign, level 3",
        "data.augmentation=rand-augment-no-flip",
        "data.augmentation_level=3",
    ),
    "query-attention": _arm("e", "head of query attention", "head=query-attention"),
    "ema": _arm("f", "moving average of weights, decay 0.999", "stage2.ema=0.999"),
    "dropout-0.1": _arm("a", "tied dropout 0.1", "stage2.dropout=0.1"),
    "dropout-0.2": _arm("a", "tied dropout 0.2", "stage2.dropout=0.2"),
    "rate-0.004": _arm("a", "base rate 0.004", "stage2.base_lr=0.004"),
    "rate-0.016": _arm("a", "base rate 0.016", "stage2.base_lr=0.016"),
    "rate-0.032": _arm("a", "base rate 0.032", "stage2.base_lr=0.032"),
    "rate-0.064": _arm("a", "base rate 0.064", "stage2.base_lr=0.064"),
    "self": _arm("d", "targets half of teachers alike", teachers=("base",)),
    "distilled": _arm("d", "self-distillation, the share of MTECG", "stage2.distillation=0.7"),
    "unlike": _arm(
        "d", "targets half of teachers alike and xresnet1d50", teachers=("base", "xresnet1d50")
    ),
    "unlike-mix": _arm(
        "d, e", "`unlike` and `mix` together", *_MIX, teachers=("base", "xresnet1d50")
    ),
    "three": _arm(
        "d",
        "targets half of teachers alike, xresnet1d50 and inception1d",
        teachers=("base", "xresnet1d50", "inception1d"),
    ),
    "xresnet1d50": _peer("xresnet1d50"),
    "inception1d": _peer("inception1d"),
}
"""Arms by name."""

# The mean over crops, because the highest probability of them is too high for a target.
_MEAN = "data.aggregate=probability"

TEACHER_FLAGS = {
    "base": ("stage1.select=last", _LAST, "stage2.epochs=8"),
    "xresnet1d50": (_MEAN, "stage2.epochs=15"),
    "inception1d": (_MEAN, "stage2.epochs=15"),
}
"""Further flags of an arm as a teacher: short, and without a choice by fold 9."""
