"""Choosing the best of several models on the records that are reported."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import Linear
from torch.nn.functional import binary_cross_entropy_with_logits

from einthoven.reproduce.pitfalls.features import Probe, Singles
from einthoven.reproduce.pitfalls.material import Material, Targets
from einthoven.reproduce.pitfalls.scoring import (
    METRICS,
    Effect,
    Finding,
    Floats,
    Scored,
    limits_of,
    macros_of_subsets,
    mean,
)

EPOCHS, SEEDS = 50, 20
HALVINGS = 200
BATCH, RATE = 256, 1e-3
COMMON = 10  # positives of a label in either fold
QUANTITIES = (*METRICS, f"macro AUROC, labels of {COMMON} positives a fold")


def best_of(material: Material, features: Singles) -> Finding:
    """Epochs of one probe, and twenty probes of equal merit, chosen on the records reported."""
    x, cohort = features.mean(axis=1), material.cohort
    train = (material.folds <= 8) & cohort.matrix.any(axis=1)
    held = np.concatenate([material.validation.rows, material.test.rows])
    is_test = np.repeat([False, True], [len(material.validation.rows), len(material.test.rows)])
    halves = halved(material.patients[held], HALVINGS, seed=material.seed)
    sides = np.concatenate([halves, ~halves, is_test[None], ~is_test[None]])
    fitting: tuple[Singles, Targets, Singles] = (x[train], cohort.matrix[train], x[held])
    positives = [
        cohort.matrix[each.rows].sum(axis=0) for each in (material.validation, material.test)
    ]
    common = np.min(positives, axis=0) >= COMMON
    families: dict[str, tuple[Iterator[Floats], int, tuple[int, ...]]] = {
        "epochs of one probe": (_epochs(*fitting, seed=material.seed), EPOCHS, (10, EPOCHS)),
        "probes of other random features": (
            _seeds(*fitting, seed=material.seed), SEEDS, (5, SEEDS)
        ),
    }  # fmt: skip
    effects: list[Effect] = []
    notes = []
    for family, (candidates, _, counts) in families.items():
        found: list[Floats] = []
        for probabilities in candidates:
            scored = Scored(cohort.matrix[held], probabilities, np.arange(len(held)))
            by_label = macros_of_subsets(scored, sides)
            kept = (*by_label, by_label[0][:, common])
            found.append(np.stack([mean(each) for each in kept]))
        values = np.stack(found)  # (candidates, quantities, sides)
        effects += [
            effect for count in counts for effect in _effects(family, values[-count:], HALVINGS)
        ]
        notes.append(_on_the_folds(family, values[:, 0, -2], values[:, 0, -1]))
    notes.insert(
        0,
        f"Records of folds 9 and 10 are halved {HALVINGS} times, whole patients each. Right: the "
        "model is chosen on one half and reported on the other; wrong: chosen on the half that it "
        "is reported on. Mean over the halvings, and the middle 95 % of them. A half is as large "
        "as a fold, so this is what one such choice adds on average.",
    )
    title = "The epoch, or the seed, chosen on the test fold"
    headlines = tuple(
        f"best of {counts[-1]} {family}" for family, (_, _, counts) in families.items()
    )
    return Finding("selection", title, tuple(effects), tuple(notes), headlines=headlines)


def halved(patients: NDArray[np.str_], draws: int, *, seed: int) -> NDArray[np.bool_]:
    """`(draws, records)`: random halves of the patients."""
    names, owner = np.unique(patients, return_inverse=True)
    source = np.random.default_rng(np.random.SeedSequence([seed, 0x4A1F]))
    return np.stack([source.permutation(len(names))[owner] < len(names) / 2 for _ in range(draws)])


def chosen_here_or_there(here: Floats, there: Floats) -> tuple[Floats, Floats]:
    """Scores here of the candidate chosen there, and of the one chosen here.

    Parameters
    ----------
    here, there : arrays, shape (candidates, draws)
    """
    draws = np.arange(here.shape[1])
    return here[there.argmax(axis=0), draws], here.max(axis=0)


def _effects(family: str, values: Floats, draws: int) -> Iterator[Effect]:
    for place, metric in enumerate(QUANTITIES):
        first, second = values[:, place, :draws], values[:, place, draws : 2 * draws]
        # Either half may be the one that is reported.
        here, there = np.hstack([first, second]), np.hstack([second, first])
        right, wrong = chosen_here_or_there(here, there)
        what = f"best of {len(values)} {family}"
        yield Effect(what, metric, float(right.mean()), float(wrong.mean()),
                     limits_of(wrong - right))  # fmt: skip


def _on_the_folds(family: str, test: Floats, validation: Floats) -> str:
    right, wrong = chosen_here_or_there(test[:, None], validation[:, None])
    return (
        f"On the folds as they are, {family}: fold 9 chooses number {validation.argmax() + 1}, "
        f"which has {right[0]:.4f} on fold 10; the best there is number {test.argmax() + 1}, with "
        f"{wrong[0]:.4f}."
    )


def _epochs(
    x: Singles, targets: Targets, held: Singles, *, seed: int
) -> Iterator[NDArray[np.float64]]:
    """Probabilities of the held records after each epoch of a probe: AdamW, cosine to zero."""
    centre, scale = x.mean(axis=0), x.std(axis=0) + np.float32(1e-6)
    inside, outside = (torch.from_numpy((each - centre) / scale) for each in (x, held))
    wanted = torch.from_numpy(targets.astype(np.float32))
    generator = torch.Generator().manual_seed(seed)
    head = Linear(x.shape[1], targets.shape[1])
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    optimiser = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=0.05)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS)
    for _ in range(EPOCHS):
        for rows in _batches(len(x), generator):
            loss = binary_cross_entropy_with_logits(head(inside[rows]), wanted[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        cosine.step()
        with torch.no_grad():
            yield head(outside).double().sigmoid().numpy()


def _batches(count: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    order = torch.randperm(count, generator=generator)
    return (order[start : start + BATCH] for start in range(0, count, BATCH))


def _seeds(
    x: Singles, targets: Targets, held: Singles, *, seed: int
) -> Iterator[NDArray[np.float64]]:
    """Probes that differ in the random half of the features which they see."""
    source = np.random.default_rng(np.random.SeedSequence([seed, 0x5EED]))
    for _ in range(SEEDS):
        seen = np.sort(source.permutation(x.shape[1])[: x.shape[1] // 2])
        yield Probe.fit(x[:, seen], targets).probabilities(held[:, seen])
