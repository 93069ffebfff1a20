"""What a report says in plain words: its summary and its caveats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from einthoven.licences import is_non_commercial, terms_of
from einthoven.report import facts
from einthoven.report.format import confidence
from einthoven.report.markup import Html, definitions, element, fragment
from einthoven.report.results import NAMES, interval_name, main_pair
from einthoven.report.values import estimate, number, share, whole

Json = Mapping[str, Any]


def summary(report: Json) -> Html:
    """What was trained on what, how good it is, and how it differs from the reference."""
    pair = main_pair(report)
    return fragment(
        element("p", _trained(report["runs"][0]), class_="lead"),
        element("p", _found(report)),
        *(element("p", element("strong", f"{each}.")) for each in _seen(report["runs"][0])),
        element("p", _difference(report, pair)) if pair else None,
        definitions(_tiles(report, pair), class_="tiles"),
        *(element("p", note, class_="authors-note") for note in report["notes"]),
    )


def caveats(report: Json) -> Html:
    """What the numbers do not say."""
    return element("ul", *(element("li", each) for each in _caveats(report)))


def _trained(run: Json) -> Html:
    asked = facts.asked_of(run["about"])
    if members := asked.get("members"):
        named = ", ".join(f"{each['backbone']} ({each['recipe']})" for each in members)
        return fragment(
            element("strong", run["name"]),
            f" is the unweighted mean of the probabilities of {len(members)} runs on "
            f"{facts.cohort_sentence(asked)}: {named}.",
        )
    return fragment(
        element("strong", run["name"]),
        " trains ",
        element("code", facts.text(asked.get("backbone"))),
        f" on {facts.cohort_sentence(asked)} by the recipe “{facts.recipe_name(asked)}”: ",
        f"{facts.recipe_sentence(asked)}.",
    )


def _found(report: Json) -> Html:
    run = report["runs"][0]
    score = run["score"]
    patients = fragment(" of ", whole(run["patients"]), " patients") if run["patients"] else None
    return fragment(
        "On the ",
        whole(score["records"]),
        " test records",
        patients,
        " it reaches a macro AUROC of ",
        estimate(score["macro_auroc"], score["macro_auroc_interval"]),
        " and a macro AUPRC of ",
        estimate(score["macro_auprc"], score["macro_auprc_interval"]),
        f"; in brackets {interval_name(score)}." if score["resamples"] else ".",
    )


def _difference(report: Json, pair: Json) -> Html:
    auroc, auprc = pair["auroc"], pair["auprc"]
    return fragment(
        f"The difference to {pair['reference']}, on the same records, is ",
        estimate(auroc["macro"], auroc["macro_interval"], signed=True),
        " in macro AUROC, ",
        share(auroc["relative_gain"], signed=True),
        " in relative terms, and ",
        estimate(auprc["macro"], auprc["macro_interval"], signed=True),
        " in macro AUPRC, ",
        share(auprc["relative_gain"], signed=True),
        " in relative terms. ",
        _verdict("AUROC", auroc["macro_interval"]),
        _verdict("AUPRC", auprc["macro_interval"]),
        _labels("AUROC", auroc, pair["labels"]),
        _labels("AUPRC", auprc, pair["labels"]),
        _passing(report),
    )


def _verdict(metric: str, limits: list[float | None] | None) -> str | None:
    low, high = limits or (None, None)
    if low is None or high is None:
        return f"No resamples were drawn, so nothing is said about chance in macro {metric}. "
    if low <= 0 <= high:
        return f"The interval of the {metric} difference holds zero: no difference is shown. "
    return None


def _labels(metric: str, found: Json, labels: int) -> Html:
    improved = fragment(
        f"{metric} improves for ", whole(found["improved"]), " of ", whole(labels), " labels"
    )
    if found["significantly_better"] is None:
        return fragment(improved, ". ")
    better, worse = found["significantly_better"], found["significantly_worse"]
    return fragment(
        improved, ", significantly for ", whole(better), "; it is significantly worse for ",
        whole(worse), ". ",
    )  # fmt: skip


def _passing(report: Json) -> Html | None:
    epoch = report["runs"][0]["training"]["passes_reference_in_epoch"]
    if epoch is None:
        return None
    return fragment(
        f"In validation it passes the best epoch of {report['reference']} in epoch ",
        whole(epoch),
        ".",
    )


def _tiles(report: Json, pair: Json | None) -> list[tuple[str, Html]]:
    score = report["runs"][0]["score"]
    tiles = [(f"macro {NAMES[m]}", number(score[f"macro_{m}"])) for m in NAMES]
    if pair:
        tiles += [
            (f"{NAMES[m]} against {pair['reference']}", number(pair[m]["macro"], signed=True))
            for m in NAMES
        ]
        improved = fragment(whole(pair["auroc"]["improved"]), " / ", whole(pair["labels"]))
        tiles.append(("labels with a higher AUROC", improved))
    return tiles


def _caveats(report: Json) -> list[Html]:
    return [
        fragment(
            element("strong", "Not a medical device."),
            " These models are for research. Nothing here was validated for the diagnosis or the "
            "treatment of patients.",
        ),
        fragment(
            f"Intervals ({confidence(report['runs'][0]['score']['level'])}) say how the numbers "
            "depend on which records were drawn for the test. They say nothing about other seeds, "
            "other hospitals, other devices or other populations.",
        ),
        *_few(report),
        *_units(report),
        *_multiplicity(report),
        *_terms(report),
        *_contaminated(report),
    ]


def _seen(run: Json) -> list[str]:
    asked = facts.asked_of(run["about"])
    return facts.seen_before(asked, facts.cohort_of(asked).get("name"))


def _contaminated(report: Json) -> list[Html]:
    return [
        fragment(element("strong", "Perhaps not unseen."), f" {run['name']}: {each}.")
        for run in report["runs"]
        for each in _seen(run)
    ]


def _terms(report: Json) -> list[Html]:
    terms = {run["name"]: terms_of(facts.asked_of(run["about"])) for run in report["runs"]}
    bound = {name: said for name, said in terms.items() if is_non_commercial(said)}
    return [
        fragment(element("strong", "Not for commercial use."), f" {name}: {said}.")
        for name, said in bound.items()
    ]


def _few(report: Json) -> list[Html]:
    labels = report["labels"]
    if not labels["few"]:
        return []
    few = [
        whole(labels["few"]), " of ", whole(labels["all"]), " labels have fewer than ",
        whole(labels["few_limit"]), " positives in the test split; their values are rough.",
    ]  # fmt: skip
    return [fragment(*few)]


def _units(report: Json) -> list[Html]:
    if report["runs"][0]["score"]["unit"] != "record":
        return []
    return [
        fragment(
            "Resamples draw records, as is usual. Where patients have several records, intervals "
            "are a little too narrow for statements about patients."
        )
    ]


def _multiplicity(report: Json) -> list[Html]:
    if not report["comparisons"]:
        return []
    return [
        fragment(
            "Significance by label is judged one label at a time. With many labels, some intervals "
            "leave out zero by chance."
        )
    ]
