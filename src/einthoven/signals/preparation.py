"""The value `Preparation`: leads and steps, in order; `prepare` applies it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from einthoven.errors import PreparationError
from einthoven.records.limb_leads import derivable_leads, derivation
from einthoven.signals.steps import (
    Centre,
    Derive,
    Frame,
    Resample,
    Step,
    Window,
    step_from_dict,
)


@dataclass(frozen=True)
class Preparation:
    """Leads and steps, in order.

    Parameters
    ----------
    leads : tuple of str
        Names of the network's leads, in its order.
    steps : tuple of Step
        The steps, in order. Exactly one `Window`, and at least one `Resample` before it, which
        declares the rate (records of that rate do not change).

    Raises
    ------
    PreparationError
        If the leads or the steps contradict each other.
    """

    leads: tuple[str, ...]
    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        if not self.leads or len(set(self.leads)) != len(self.leads):
            raise PreparationError(
                f"leads = {self.leads!r}", remedy="name at least one lead, and none twice"
            )
        object.__setattr__(self, "leads", tuple(self.leads))
        object.__setattr__(self, "steps", tuple(self.steps))
        _check_order(self.steps)
        if self.derived and not set(self.derived) <= set(self.leads):
            raise PreparationError(
                f"derive: {', '.join(self.derived)} for leads {', '.join(self.leads)}",
                remedy="name only leads of the preparation",
            )
        frame = Frame(self.sources)
        for step in self.steps:
            step.check(frame)
            frame = step.after(frame)

    @cached_property
    def derived(self) -> tuple[str, ...]:
        """Leads that are computed from two others instead of read; usually none."""
        return self._derive.leads if self._derive else ()

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Leads that are read from a record, in this order; `leads` if none are computed."""
        read = [lead for lead in self.leads if lead not in self.derived]
        needed = self._derive.of if self._derive else ()
        return (*read, *(lead for lead in needed if lead not in read))

    @property
    def rate(self) -> float:
        """Rate of the prepared signal, in Hz."""
        return self._after(self.steps).rate

    @property
    def window(self) -> int:
        """Length of the prepared signal, in samples at `rate`."""
        return self._after(self.steps).samples

    @property
    def evaluation_crops(self) -> int:
        """Largest number of crops of a record that are used in evaluation."""
        return self.crop.evaluation_crops

    @cached_property
    def crop(self) -> Window:
        """The window step."""
        return next(step for step in self.steps if isinstance(step, Window))

    @cached_property
    def before_window(self) -> tuple[Step, ...]:
        """Steps that work on whole records."""
        return self.steps[: self.steps.index(self.crop)]

    @cached_property
    def after_window(self) -> tuple[Step, ...]:
        """Steps that work on crops."""
        return self.steps[self.steps.index(self.crop) + 1 :]

    @cached_property
    def cropped(self) -> Frame:
        """The signal right after the window."""
        return self._after(self.steps[: self.steps.index(self.crop) + 1])

    @property
    def passes_offsets(self) -> bool:
        """Whether a constant that is added to a lead reaches the network."""
        return not any(step.removes_offsets for step in self.steps)

    @cached_property
    def fills_missing(self) -> bool:
        """Whether a step replaces NaN; otherwise records with NaN are refused."""
        return any(step.fills_missing for step in self.steps)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, hexadecimal."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` gives back an equal value."""
        return {"leads": list(self.leads), "steps": [step.to_dict() for step in self.steps]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preparation:
        """Read what `to_dict` wrote.

        Raises
        ------
        PreparationError
            If a key is missing or unknown, or a value has another type.
        """
        valid = isinstance(values, Mapping) and set(values) == {"leads", "steps"}
        valid = valid and all(isinstance(value, list | tuple) for value in values.values())
        if not (valid and all(isinstance(lead, str) for lead in values["leads"])):
            raise PreparationError(
                f"a preparation has the keys leads and steps, two lists, but this is {values!r}",
                remedy="use the dictionary that Preparation.to_dict wrote",
            )
        steps = tuple(step_from_dict(step) for step in values["steps"])
        return cls(leads=tuple(values["leads"]), steps=steps)

    def with_window(self, *, seconds: float) -> Preparation:
        """Return a copy with shorter or longer crops of a whole number of samples."""
        rate = [step.rate for step in self.before_window if isinstance(step, Resample)][-1]
        samples = seconds * rate
        if not 1 <= samples < math.inf or abs(samples - round(samples)) > 1e-6:
            raise PreparationError(
                f"a window of {seconds} s is {samples:g} samples at {rate:g} Hz",
                remedy="use a length that is a whole number of samples",
            )
        return self._with(replace(self.crop, samples=round(samples)))

    def with_evaluation_crops(self, count: int) -> Preparation:
        """Return a copy that evaluates on another number of crops."""
        return self._with(replace(self.crop, evaluation_crops=count))

    def padding(self) -> Preparation:
        """Return a copy that adds zeros at the end of records shorter than the window."""
        return self._with(replace(self.crop, short="pad"))

    @property
    def is_centred(self) -> bool:
        """Whether each lead's mean over the record is subtracted."""
        return any(isinstance(step, Centre) for step in self.steps)

    def centred(self) -> Preparation:
        """Return a copy that first subtracts each lead's mean over the record, unless one does."""
        if self.is_centred:
            return self
        first = 1 if self._derive else 0
        return replace(self, steps=(*self.steps[:first], Centre(), *self.steps[first:]))

    def with_leads(self, leads: Sequence[str]) -> Preparation:
        """Return a copy for some of the leads; those that are computed still are."""
        derived = tuple(lead for lead in self.derived if lead in leads)
        return self._deriving(derived, leads=tuple(leads))

    def deriving(self, available: Sequence[str]) -> Preparation:
        """Return a copy that computes missing limb leads from two of a record's available leads.

        It is the preparation itself if no missing lead follows from the record's limb leads.
        Missing leads that do not follow stay in `sources`.
        """
        missing = [lead for lead in self.sources if lead not in available]
        if not missing or not set(missing) & set(derivable_leads(available)):
            return self
        pair, _ = derivation(available)
        computed = {*self.derived, *missing} & set(derivable_leads(pair))
        return self._deriving(tuple(lead for lead in self.leads if lead in computed), of=pair)

    def describe(self) -> str:
        """One-line description."""
        return f"{len(self.leads)} leads; " + "; ".join(str(step) for step in self.steps)

    def _deriving(
        self,
        derived: tuple[str, ...],
        *,
        leads: tuple[str, ...] | None = None,
        of: tuple[str, str] | None = None,
    ) -> Preparation:
        steps: tuple[Step, ...] = self.steps[1:] if self._derive else self.steps
        pair = of or (self._derive.of if self._derive else None)
        if derived and pair:
            steps = (Derive(derived, pair), *steps)
        return replace(self, leads=leads or self.leads, steps=steps)

    @property
    def _derive(self) -> Derive | None:
        first = self.steps[0] if self.steps else None
        return first if isinstance(first, Derive) else None

    def _after(self, steps: Sequence[Step]) -> Frame:
        frame = Frame(self.sources)
        for step in steps:
            frame = step.after(frame)
        return replace(frame, leads=self.leads)

    def _with(self, window: Window) -> Preparation:
        steps = tuple(window if isinstance(step, Window) else step for step in self.steps)
        return replace(self, steps=steps)


def _check_order(steps: Sequence[Step]) -> None:
    windows = [place for place, step in enumerate(steps) if isinstance(step, Window)]
    if len(windows) != 1:
        raise PreparationError(
            f"{len(windows)} windows among the steps, but a preparation has exactly one",
            remedy="use one Window step",
        )
    if not any(isinstance(step, Resample) for step in steps[: windows[0]]):
        raise PreparationError(
            "no Resample before the Window, so the window has no duration",
            remedy="declare the rate with a Resample step first",
        )
    late = [place for place, step in enumerate(steps) if isinstance(step, Derive) and place]
    if late:
        raise PreparationError(
            f"derive is step {late[0] + 1}, but leads can only be computed from voltages as "
            "recorded",
            remedy="put it first",
        )
