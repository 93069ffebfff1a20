"""Probabilities of single ECGs, calibrated if the model has a calibration."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from einthoven.errors import BackboneError, EinthovenError, PreparationError
from einthoven.files import Json
from einthoven.inference.runtimes import AnyModel, Runtime, runtime_of
from einthoven.predictions.calibration import ClassCalibration
from einthoven.predictions.missing_leads import answered_labels
from einthoven.predictions.sets import ClassSets, LabelSets, Sets, ValueIntervals
from einthoven.records import Record, canonical_lead
from einthoven.records.limb_leads import derivable_leads, repair_leads
from einthoven.records.quality import (
    Finding,
    by_level,
    findings,
    flat_leads,
    refuse_flat,
    warnings,
)
from einthoven.signals.preparation import Preparation
from einthoven.signals.prepare import evaluation_seconds, seconds_left_out

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class RecordPrediction:
    """A record and its predictions by label name.

    Attributes
    ----------
    record : Record
    probabilities : dict of str to float
        Calibrated if the model has a calibration; NaN for labels that are not answered without the
        missing leads. Those of numbers are in `values`.
    above_threshold : tuple of str, or None
        Labels at or above their decision threshold, most probable first; None if the model has no
        thresholds.
    without_call : tuple of str
        Labels that are not called, whatever their probability, because leads are missing or the
        recording is unusable.
    derived_leads : tuple of str
        Limb leads that the record lacked, computed from two others in mV.
    left_out_leads : tuple of str
        Leads of the model that were not used.
    seconds_left_out : float
        Duration of the record that is in none of the predicted crops, s.
    findings : tuple of Finding
        Findings on the recording (`einthoven.records.quality.findings`), the gravest first. An
        offset that the preparation does not remove is a doubt, and otherwise a note.
    warnings : tuple of str
        Findings that are more than notes, and missing leads: the probabilities may be unreliable.
    predicted_class : str or None
        The most probable class; None for labels and numbers.
    values : dict of str to float
        Predicted numbers, by name; empty for labels and classes.
    units : dict of str to str
        Their units, where stated.
    uncalibrated, thresholds : dict of str to float, or None
        Probabilities before calibration, and calibrated probabilities from which a label is called
        present; None if the model has no calibration.
    answers : dict of str to str
        `present`, `absent` or `cannot tell` by label (`einthoven.predictions.sets`), and the empty
        string for a label with too few calibration records. Empty, as are `class_set` and
        `intervals`, if the model has no prediction sets, leads are missing or the recording is
        unusable.
    class_set : tuple of str
        The classes that are not ruled out, most probable first.
    intervals : dict of str to (float, float)
        Lower and upper end of each number.
    """

    record: Record
    probabilities: dict[str, float]
    above_threshold: tuple[str, ...] | None = None
    without_call: tuple[str, ...] = ()
    derived_leads: tuple[str, ...] = ()
    left_out_leads: tuple[str, ...] = ()
    seconds_left_out: float = 0.0
    findings: tuple[Finding, ...] = ()
    warnings: tuple[str, ...] = ()
    predicted_class: str | None = None
    values: dict[str, float] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    uncalibrated: dict[str, float] | None = None
    thresholds: dict[str, float] | None = None
    answers: dict[str, str] = field(default_factory=dict)
    class_set: tuple[str, ...] = ()
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)

    def to_json(self, name: str) -> Json:
        """All fields but the record, for JSON; `name` is that of the record.

        Unbounded intervals are left out, because JSON has no infinite numbers.
        """
        above = self.above_threshold
        if self.values:
            outputs: Json = {"values": self.values, "units": self.units}
        else:
            outputs = {} if self.predicted_class is None else {"class": self.predicted_class}
        return {
            "record": name,
            **outputs,
            "probabilities": {
                label: None if math.isnan(value) else value
                for label, value in self.probabilities.items()
            },
            "uncalibrated": self.uncalibrated,
            "thresholds": self.thresholds,
            "answers": self.answers,
            "class_set": list(self.class_set),
            "intervals": {
                name: ends for name, ends in self.intervals.items() if math.isfinite(ends[0])
            },
            "above_threshold": None if above is None else list(above),
            "without_call": list(self.without_call),
            "derived_leads": list(self.derived_leads),
            "left_out_leads": list(self.left_out_leads),
            "seconds_left_out": self.seconds_left_out,
            "findings": [asdict(finding) for finding in self.findings],
            "warnings": list(self.warnings),
        }


def predict_record(
    model: AnyModel, record: Record, *, leads: Sequence[str] | None = None
) -> RecordPrediction:
    """Predict one ECG.

    Limb leads that the record lacks are computed if two of its leads determine them, which is
    exact; the prediction names them. Without other leads, those of `leads` or those that the record
    lacks or holds constant, labels are answered only where the measured accuracy allows it
    (`einthoven.predictions.missing_leads`). A model without such a measurement makes no calls, nor
    does one that is not accurate enough for any label with the leads that were chosen.

    Parameters
    ----------
    model : Model or OnnxModel
    record : Record
    leads : sequence of str, optional
        Use these leads only, as for a record that lacks the others; see
        `einthoven.backbones.leads`. Default: all leads of the model that the record has.

    Raises
    ------
    PreparationError
        If the record lacks one of `leads` or has none of the model's, is too short, flat in every
        lead, or not finite.
    BackboneError
        If the model does not read one of `leads`, or cannot go without the others; if no label is
        answered with the leads of the record, and none were chosen.
    """
    (prediction,) = Predictor(model, leads=leads)([lambda: record])
    if isinstance(prediction, Exception):
        raise prediction
    return prediction


class Predictor:
    """A model that predicts batches of records, on a device if one is named.

    Arguments and errors are those of `predict_record`; the caller's network stays in place.
    """

    def __init__(
        self,
        model: AnyModel,
        *,
        leads: Sequence[str] | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        self.model = model
        self._runtime: Runtime = runtime_of(model, device)
        self._routes: dict[tuple[str, ...] | None, _Route] = {}
        self.leads = None if leads is None else tuple(leads)
        self._route(self.leads)

    def __call__(
        self, readers: Sequence[Callable[[], Record]]
    ) -> list[RecordPrediction | EinthovenError | OSError]:
        """Predict the records that functions read; a record that is refused gives its error."""
        results: list[Any] = [self._prepared(read) for read in readers]
        routes: dict[_Route, list[int]] = {}
        for place, result in enumerate(results):
            if isinstance(result, _Prepared):
                routes.setdefault(result.route, []).append(place)
        for route, places in routes.items():
            signals = [results[place].signal for place in places]
            rows = self._runtime.outputs(route.network, signals)
            for place, values in zip(places, rows, strict=True):
                record, preparation = results[place].record, results[place].preparation
                results[place] = _prediction(self.model, record, preparation, values, route.gap)
        return results

    def _prepared(self, read: Callable[[], Record]) -> _Prepared | EinthovenError | OSError:
        try:
            record = repair_leads(read())
            refuse_flat(record)
            flat = flat_leads(record)
            usable = record.select([lead for lead in record.leads if lead not in flat])
            route = self._route_of(usable, flat)
            preparation = route.preparation.deriving(usable.leads)
            signal = self._runtime.prepare(preparation, usable)
            return _Prepared(record, preparation, signal, route)
        except (EinthovenError, OSError) as error:
            return error

    def _route_of(self, usable: Record, flat: Sequence[str]) -> _Route:
        """The route of a record without its flat leads; its error names these."""
        if not flat:
            try:
                return self._route(self.leads or self._present(usable))
            except BackboneError as error:
                name = f"{usable.source or usable.name} with leads {', '.join(usable.leads)}"
                raise BackboneError(f"{name}: {error.problem}", remedy=error.remedy) from error
        leads = self._present(usable)
        if self.leads is not None:
            missing = {*flat} - {*derivable_leads(usable.leads)}
            leads = tuple(lead for lead in self.leads if canonical_lead(lead) not in missing)
        name = f"{usable.source or usable.name}: {', '.join(flat)} constant over the whole record"
        if leads == ():
            raise PreparationError(name, remedy="leave out the record, or use other leads")
        try:
            return self._route(leads)
        except BackboneError as error:
            raise BackboneError(f"{name}; {error.problem}", remedy=error.remedy) from error

    def _present(self, record: Record) -> tuple[str, ...] | None:
        """Leads of the model that a record has, if others are missing and do not follow."""
        whole = self.model.preparation
        if set(whole.deriving(record.leads).sources) <= set(record.leads):
            return None
        return tuple(lead for lead in whole.leads if lead in record.leads) or None

    def _route(self, leads: tuple[str, ...] | None) -> _Route:
        if leads not in self._routes:
            network, preparation = self._runtime.route(leads)
            gap = _gap(self.model, preparation, is_chosen=self.leads is not None)
            self._routes[leads] = _Route(network, preparation, gap)
        return self._routes[leads]


@dataclass(frozen=True, eq=False)
class _Route:
    """Network and preparation for a set of leads, and what is not answered without the others."""

    network: Any
    preparation: Preparation
    gap: _Gap


class _Prepared(NamedTuple):
    """A record, its preparation, the result of it, and the route that it takes."""

    record: Record
    preparation: Preparation
    signal: Any
    route: _Route


class _Gap(NamedTuple):
    """Missing leads, labels without a probability and without a call, and the warning."""

    leads: tuple[str, ...] = ()
    unanswered: tuple[str, ...] = ()
    without_call: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def _gap(model: AnyModel, preparation: Preparation, *, is_chosen: bool) -> _Gap:
    """What a model does not answer without the leads that a preparation lacks.

    If that is every label, BackboneError is raised. Where the leads were chosen, there are
    probabilities without calls instead.
    """
    missing = tuple(lead for lead in model.preparation.leads if lead not in preparation.leads)
    if not missing:
        return _Gap()
    labels, accuracy = model.labels, model.config.get("lead_accuracy") or {}
    leads = ",".join(preparation.sources)
    remedy = f"train a model for these leads: einthoven posttrain COHORT --leads {leads} --out RUN"
    without = f"without {', '.join(missing)}"
    if not accuracy or accuracy["digest"] != model.config.get("digest"):
        reason = f"no calls, because {_unmeasured(model)}"
        if model.task.behaviour.form == "values":
            reason = "the error without them was not measured"
        return _Gap(missing, (), labels, (f"{without}: {reason}; {remedy}",))
    answered = answered_labels(accuracy, preparation.leads)
    if not answered:
        problem = f"{model.name} is not accurate enough for any label {without}"
        if is_chosen:
            return _Gap(missing, (), labels, (f"no calls: {problem}; {remedy}",))
        raise BackboneError(
            f"{problem}; the leads present are {', '.join(preparation.leads)}", remedy=remedy
        )
    unanswered = tuple(label for label in labels if label not in answered)
    reason = (
        f": no answer for {len(unanswered)} of {len(labels)} labels, which are not accurate "
        f"enough; {remedy}"
    )
    return _Gap(missing, unanswered, unanswered, (without + reason * bool(unanswered),))


def _unmeasured(model: AnyModel) -> str:
    """Why the accuracy without some leads was not measured, and the command if there is one."""
    recipe = (model.config.get("provenance") or {}).get("recipe") or {}
    if "selection" in model.config or recipe.get("refit") == "always":
        return "the model was trained on all records, and none are left to measure the accuracy on"
    return "the accuracy without them was not measured (einthoven card)"


def _prediction(
    model: AnyModel,
    record: Record,
    preparation: Preparation,
    values: NDArray[np.float64],
    gap: _Gap,
) -> RecordPrediction:
    above = uncalibrated = thresholds = None
    results = _findings(record, preparation)
    is_unusable = any(finding.level == "unusable" for finding in results)
    without_call = model.labels if is_unusable else gap.without_call
    task, outputs = model.task, dict(zip(model.labels, values.tolist(), strict=True))
    form = task.behaviour.form
    if model.calibration is not None:
        uncalibrated = outputs
    if isinstance(model.calibration, ClassCalibration):
        values = model.calibration.apply(values)
    elif model.calibration is not None:
        thresholds = dict(zip(model.labels, model.calibration.thresholds, strict=True))
        values = model.calibration.apply(values)
        decisions = zip(model.labels, values, model.calibration.decide(values), strict=True)
        present = [
            (label, value)
            for label, value, decision in decisions
            if decision and label not in without_call
        ]
        above = tuple(label for label, _ in sorted(present, key=lambda pair: -pair[1]))
    probabilities = dict(zip(model.labels, values.tolist(), strict=True))
    probabilities |= dict.fromkeys(gap.unanswered, np.nan)
    units = dict(zip(model.labels, task.units(len(model.labels)), strict=True))
    # The sets hold for recordings like those of the calibration: usable, with all leads.
    sets = None if gap.leads or is_unusable else model.sets
    return RecordPrediction(
        record,
        probabilities if form != "values" else {},
        above,
        without_call=without_call,
        predicted_class=model.labels[int(values.argmax())]
        if form == "classes" and not without_call
        else None,
        values=probabilities if form == "values" else {},
        units={name: unit for name, unit in units.items() if unit},
        derived_leads=preparation.derived,
        left_out_leads=gap.leads,
        seconds_left_out=round(max(0.0, seconds_left_out(preparation, record)), 3),
        findings=results,
        warnings=(*warnings(results), *_excerpt(record, preparation), *gap.warnings),
        uncalibrated=uncalibrated,
        thresholds=thresholds,
        **_sets_of(model, sets, values),
    )


def _excerpt(record: Record, preparation: Preparation) -> tuple[str, ...]:
    """Warning that a long recording was predicted from a part of it."""
    if "excerpt" not in record.metadata:
        return ()
    seconds = preparation.window / preparation.rate
    crops = f"{len(evaluation_seconds(preparation, record))} crops of {seconds:g} s"
    part = record.metadata["excerpt"]
    return (f"long recording: predicted from {crops} within {part}; nothing else was examined",)


def _sets_of(model: AnyModel, sets: Sets | None, values: NDArray[np.float64]) -> dict[str, Any]:
    """The fields of a prediction that `sets` give for calibrated values, `(labels,)`."""
    labels, calibration = model.labels, model.calibration
    if isinstance(sets, LabelSets) and calibration is not None:
        answers = sets.answers(values, calibration.decide(values))
        return {"answers": dict(zip(labels, answers.tolist(), strict=True))}
    if isinstance(sets, ClassSets):
        contained = sets.contains(values)
        order = np.argsort(-values, kind="stable")
        return {"class_set": tuple(labels[place] for place in order if contained[place])}
    if not isinstance(sets, ValueIntervals):
        return {}
    ends = zip(*(end.tolist() for end in sets.bounds(values)), strict=True)
    return {"intervals": dict(zip(labels, ends, strict=True))}


def _findings(record: Record, preparation: Preparation) -> tuple[Finding, ...]:
    """Findings on a record for a preparation, which may remove offsets; the gravest first."""

    def judged(finding: Finding) -> Finding:
        if finding.name != "offset" or not preparation.passes_offsets:
            return finding
        if set(finding.leads).isdisjoint(preparation.sources):
            return finding
        text = f"{finding.text}, and the preparation removes no offsets: subtract them"
        return replace(finding, level="doubt", text=text)

    return by_level(map(judged, findings(record)))
