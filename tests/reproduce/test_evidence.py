"""Numbers of several seeds, against the single comparison that everybody can repeat."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from einthoven.errors import EvaluationError
from einthoven.evaluate import compare
from einthoven.evaluate.estimate import estimate
from einthoven.files import read_json
from einthoven.predictions import Predictions
from einthoven.reproduce.evidence import METRICS, Evidence, Group
from einthoven.reproduce.experiments import OURS, PLAIN, SCRATCH
from einthoven.reproduce.folders import Request

BACKBONE = "mtecg_tiny_100hz"
MAIN = {arm: Group(BACKBONE, arm, "all-71") for arm in (OURS, PLAIN, SCRATCH)}


@pytest.fixture(scope="module")
def evidence(whole: Request) -> Evidence:
    return Evidence(whole)


def predictions(whole: Request, arm: str, seed: int, split: str = "test") -> Predictions:
    folder = whole.run_folder(MAIN[arm].cell(seed))
    return Predictions.load(folder / "predictions" / f"{split}.parquet")


def test_a_run_s_value_and_interval_are_those_of_its_own_metrics(
    whole: Request, evidence: Evidence
) -> None:
    for split in ("test", "validation"):
        for metric in METRICS:
            found = evidence.macro(MAIN[SCRATCH], metric, split)
            own = read_json(whole.run_folder(MAIN[SCRATCH].cell(0)) / "metrics.json")[split]
            assert found is not None
            assert found.mean == pytest.approx(own[f"macro_{metric}"], abs=1e-12)
            assert found.interval == pytest.approx(own[f"macro_{metric}_interval"], abs=1e-12)
            assert found.bias == pytest.approx(own[f"macro_{metric}_bias"], abs=1e-12)
            assert found.spread is None


def test_one_seed_s_difference_is_compare_s(whole: Request, evidence: Evidence) -> None:
    reference = compare(
        predictions(whole, OURS, 0), predictions(whole, SCRATCH, 0),
        resamples=20, undefined_labels=evidence._grounds["all-71", "test"].plan.undefined_labels,
    )  # fmt: skip
    found = evidence.comparison(MAIN[OURS], MAIN[SCRATCH])
    assert found is not None
    assert found.to_dict() == reference.to_dict()
    pooled = evidence.difference(MAIN[OURS], MAIN[SCRATCH], "auprc")
    assert pooled is not None
    assert pooled.mean == pytest.approx(reference.auprc.macro, abs=1e-12)
    assert pooled.interval == pytest.approx(reference.auprc.macro_interval, abs=1e-12)
    assert pooled.seeds == (0,)  # post-training has two; scratch has one


def test_several_seeds_are_pooled_on_the_same_resamples(whole: Request, evidence: Evidence) -> None:
    single = [
        compare(
            predictions(whole, OURS, seed), predictions(whole, PLAIN, seed),
            resamples=20,
            undefined_labels=evidence._grounds["all-71", "test"].plan.undefined_labels,
        )
        for seed in (0, 1)
    ]  # fmt: skip
    found = evidence.difference(MAIN[OURS], MAIN[PLAIN], "auroc")
    whole_comparison = evidence.comparison(MAIN[OURS], MAIN[PLAIN])
    assert found is not None
    assert whole_comparison is not None
    values = [each.auroc.macro for each in single]
    assert found.values == pytest.approx(values, abs=1e-12)
    assert found.intervals[1] == pytest.approx(single[1].auroc.macro_interval, abs=1e-12)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-12)
    assert found.spread == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    assert found.mean == pytest.approx(whole_comparison.auroc.macro, abs=1e-12)
    assert found.interval == pytest.approx(whole_comparison.auroc.macro_interval, abs=1e-12)
    labels = np.mean([each.auroc.per_label for each in single], axis=0)
    np.testing.assert_allclose(whole_comparison.auroc.per_label, labels, atol=1e-12)
    f_maxes = [each.a.f_max for each in single]
    assert whole_comparison.a.f_max == pytest.approx(np.mean(f_maxes), nan_ok=True)


def test_strata_hold_each_label_that_has_a_positive_once(
    whole: Request, evidence: Evidence
) -> None:
    table = predictions(whole, OURS, 0)
    assert table.targets is not None
    counts = dict(zip(table.labels, table.targets.sum(axis=0, dtype=int), strict=True))
    strata = evidence.strata(MAIN[OURS])
    held = [label for each in strata for label in each.labels]
    assert sorted(held) == sorted(label for label in counts if counts[label])
    assert len(strata) > 1
    for each in strata:
        within = [counts[label] for label in each.labels]
        assert min(within) >= each.low
        assert each.high is None or max(within) <= each.high
    assert evidence.strata(Group(BACKBONE, "without-probe", "all-71", 0.25)) == []


def test_a_stratum_s_difference_is_that_of_its_labels_on_all_labels_resamples(
    whole: Request, evidence: Evidence
) -> None:
    stratum = evidence.strata(MAIN[OURS])[-1]
    found = evidence.difference(MAIN[OURS], MAIN[SCRATCH], "auroc", among=stratum)
    value = evidence.macro(MAIN[OURS], "auroc", among=stratum)
    assert found is not None
    assert value is not None
    ground = evidence._grounds["all-71", "test"]
    columns = [ground.truth.labels.index(label) for label in stratum.labels]
    ours, theirs = (
        estimate(ground.truth, predictions(whole, arm, 0).probabilities, ground.draws, ground.plan)
        for arm in (OURS, SCRATCH)
    )
    points = [each[0].point[columns].mean() for each in (ours, theirs)]
    drawn = (ours[0].replicates - theirs[0].replicates)[:, columns].mean(axis=1)
    assert value.values[0] == pytest.approx(points[0], abs=1e-12)
    assert found.mean == pytest.approx(points[0] - points[1], abs=1e-12)
    assert found.interval == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=1e-12)


def test_the_pooled_interval_is_that_of_the_mean_over_seeds(
    whole: Request, evidence: Evidence
) -> None:
    """Made again from every seed's own replicates."""
    found = evidence.difference(MAIN[OURS], MAIN[PLAIN], "auprc")
    assert found is not None
    ground = evidence._grounds["all-71", "test"]
    differences = []
    for seed in (0, 1):
        ours, plain = (
            estimate(
                ground.truth, predictions(whole, arm, seed).probabilities, ground.draws, ground.plan
            )[1]
            for arm in (OURS, PLAIN)
        )
        differences.append(np.nanmean(ours.replicates - plain.replicates, axis=1))
    assert not np.allclose(*differences)
    limits = np.percentile(np.mean(differences, axis=0), [2.5, 97.5])
    assert found.interval == pytest.approx(tuple(limits), abs=1e-12)
    assert found.bias == pytest.approx(np.mean(differences) - found.mean, abs=1e-12)


def test_what_is_not_finished_is_not_there(whole: Request) -> None:
    evidence = Evidence(replace(whole, out=whole.out / "nowhere"))
    assert evidence.finished(MAIN[OURS], MAIN[PLAIN]) == ()
    assert evidence.macro(MAIN[OURS], "auroc") is None
    assert evidence.difference(MAIN[OURS], MAIN[PLAIN], "auroc") is None
    assert evidence.comparison(MAIN[OURS], MAIN[PLAIN]) is None
    assert evidence.seconds(MAIN[OURS]) is None


def test_cells_of_other_records_are_refused(whole: Request) -> None:
    evidence = Evidence(whole)
    assert evidence.macro(MAIN[OURS], "auroc")
    ground = evidence._grounds["all-71", "test"]
    ground.records[0] = "another"
    with pytest.raises(EvaluationError, match="other records"):
        evidence.macro(MAIN[SCRATCH], "auroc")
