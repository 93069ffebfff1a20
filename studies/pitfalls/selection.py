"""The best of several models, chosen on the records that are reported."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import Linear
from torch.nn.functional import binary_cross_entropy_with_logits

from data import Study
from features import Singles, probe, standardised
from scoring import METRICS, Effect, Finding, Floats, Scored, Targets, mean, middle

EPOCHS, SEEDS = 50, 20
HALVINGS = 200
BATCH, RATE = 256, 1e-3
COMMON = 10  # positives of a label in either fold
QUANTITIES = (*METRICS, f"macro AUROC, labels with at least {COMMON} positives per fold")


def best_of(study: Study, features: Singles) -> Finding:
    """Epochs of one probe, and twenty equally good probes, chosen on the reported records."""
    x, matrix = features.mean(axis=1), study.cohort.matrix
    folds = study.validation.rows, study.test.rows
    train, evaluation = (study.folds <= 8) & matrix.any(axis=1), np.concatenate(folds)
    is_test = np.repeat([False, True], [len(rows) for rows in folds])
    halves = halved(study.patients[evaluation], HALVINGS, seed=study.seed)
    sides = np.concatenate([halves, ~halves, is_test[None], ~is_test[None]]).astype(np.uint8)
    common = np.min([matrix[rows].sum(axis=0) for rows in folds], axis=0) >= COMMON
    fitting = x[train], matrix[train], x[evaluation]
    families = {
        "epochs of one probe": (_epochs(*fitting, seed=study.seed), (10, EPOCHS)),
        "probes on different random features": (_seeds(*fitting, seed=study.seed), (5, SEEDS)),
    }
    effects: list[Effect] = []
    notes = [
        f"The records of folds 9 and 10 are split into halves of whole patients {HALVINGS} times. "
        "Right: the model is selected on one half and evaluated on the other; wrong: selected on "
        "the half on which it is evaluated. Values are the mean over the splits and the central "
        "95 % of them. A half is as large as a fold, so this is what one such selection adds on "
        "average."
    ]
    for family, (candidates, counts) in families.items():
        scores = []
        for probabilities in candidates:
            areas, precisions = Scored.of_records(matrix[evaluation], probabilities).resampled(
                sides
            )
            scores.append([mean(areas), mean(precisions), mean(areas[:, common])])
        values = np.array(scores)  # (candidates, quantities, sides)
        for count in counts:
            effects += _effects(family, values[-count:])
        notes.append(_on_the_folds(family, values[:, 0, -2], values[:, 0, -1]))
    title = "Epoch or seed selected on the test fold"
    headlines = [f"best of {counts[-1]} {family}" for family, (_, counts) in families.items()]
    return Finding("selection", title, effects, notes, headlines=headlines)


def halved(patients: NDArray[np.str_], draws: int, *, seed: int) -> NDArray[np.bool_]:
    """`(draws, records)`: random halves of the patients."""
    names, owner = np.unique(patients, return_inverse=True)
    random = np.random.default_rng(np.random.SeedSequence([seed, 0x4A1F]))
    return np.stack([random.permutation(len(names))[owner] < len(names) / 2 for _ in range(draws)])


def honest_and_best(reported: Floats, other: Floats) -> tuple[Floats, Floats]:
    """Reported score of the candidate that is best on the other half, and the best reported one.

    Parameters
    ----------
    reported, other : arrays, shape (candidates, draws)
    """
    draws = np.arange(reported.shape[1])
    return reported[other.argmax(axis=0), draws], reported.max(axis=0)


def _effects(family: str, values: Floats) -> Iterator[Effect]:
    draws = (values.shape[-1] - 2) // 2
    for place, metric in enumerate(QUANTITIES):
        first, second = values[:, place, :draws], values[:, place, draws : 2 * draws]
        # Either half may be the one that is reported.
        right, wrong = honest_and_best(np.hstack([first, second]), np.hstack([second, first]))
        what, interval = f"best of {len(values)} {family}", middle(wrong - right)
        yield Effect(what, metric, float(right.mean()), float(wrong.mean()), interval)


def _on_the_folds(family: str, test: Floats, validation: Floats) -> str:
    right, wrong = honest_and_best(test[:, None], validation[:, None])
    return (
        f"On the original folds, {family}: fold 9 selects number {validation.argmax() + 1}, "
        f"which has {right[0]:.4f} on fold 10; the best there is number {test.argmax() + 1}, with "
        f"{wrong[0]:.4f}."
    )


def _epochs(x: Singles, targets: Targets, evaluation: Singles, *, seed: int) -> Iterator[Floats]:
    """Probabilities of the evaluation records after each epoch of a probe (AdamW, cosine)."""
    inside, outside = (torch.from_numpy(values) for values in standardised(x, evaluation))
    labels = torch.from_numpy(targets.astype(np.float32))
    generator = torch.Generator().manual_seed(seed)
    head = Linear(x.shape[1], targets.shape[1])
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    optimiser = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=0.05)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS)
    for _ in range(EPOCHS):
        for rows in torch.split(torch.randperm(len(x), generator=generator), BATCH):
            loss = binary_cross_entropy_with_logits(head(inside[rows]), labels[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        cosine.step()
        with torch.no_grad():
            yield head(outside).double().sigmoid().numpy()


def _seeds(x: Singles, targets: Targets, evaluation: Singles, *, seed: int) -> Iterator[Floats]:
    """Probabilities of probes on different random halves of the features."""
    random = np.random.default_rng(np.random.SeedSequence([seed, 0x5EED]))
    for _ in range(SEEDS):
        half = np.sort(random.permutation(x.shape[1])[: x.shape[1] // 2])
        yield probe(x[:, half], targets, evaluation[:, half])
