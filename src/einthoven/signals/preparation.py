"""The value `Preparation`: leads and steps, in order; `prepare` carries it out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from einthoven.errors import PreparationError
from einthoven.records.limb_leads import derivable_leads, derivation
from einthoven.signals import plan
from einthoven.signals.released_steps import Baseline, Derive, Fir, MinMax
from einthoven.signals.steps import (
    Centre,
    Filter,
    Resample,
    Standardise,
    Step,
    Window,
    step_from_dict,
    step_to_dict,
)

__all__ = ["Preparation"]


@dataclass(frozen=True)
class Preparation:
    """Leads and steps, in order.

    Parameters
    ----------
    leads : tuple of str
        Names of the leads that the network is given, in its order.
    steps : tuple of Step
        What is done, in this order. Exactly one `Window`, and at least one `Resample`, which
        declares the rate (it costs nothing where the record has that rate already).

    Raises
    ------
    PreparationError
        When the leads or the steps contradict each other.
    """

    leads: tuple[str, ...]
    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        if not self.leads or len(set(self.leads)) != len(self.leads):
            raise PreparationError(
                f"leads = {self.leads!r}", remedy="Name at least one lead, and none twice."
            )
        object.__setattr__(self, "leads", tuple(self.leads))
        object.__setattr__(self, "steps", tuple(self.steps))
        plan.check_steps(self.steps)
        if self.derived and not set(self.derived) <= set(self.leads):
            raise PreparationError(
                f"derive: {', '.join(self.derived)} for leads {', '.join(self.leads)}",
                remedy="Name only leads of the preparation.",
            )

    @property
    def derived(self) -> tuple[str, ...]:
        """Those of `leads` that are computed from two others and not read; none as a rule."""
        return self._derive.leads if self._derive else ()

    @property
    def sources(self) -> tuple[str, ...]:
        """Leads that are read from a record, in this order; `leads` when none are computed."""
        read = [lead for lead in self.leads if lead not in self.derived]
        needed = self._derive.of if self._derive else ()
        return (*read, *(lead for lead in needed if lead not in read))

    @property
    def rate(self) -> float:
        """Rate of the prepared signal, in Hz."""
        return plan.prepared_shape(self.steps).rate

    @property
    def window(self) -> int:
        """Length of the prepared signal, in samples at `rate`."""
        return plan.prepared_shape(self.steps).samples

    @property
    def evaluation_crops(self) -> int:
        """How many stretches of a record are used in evaluation, at most."""
        return self._window.evaluation_crops

    @property
    def passes_offsets(self) -> bool:
        """Whether a constant that is added to a lead reaches the network."""
        return not any(
            isinstance(step, Centre | Fir | Baseline | MinMax)
            or (isinstance(step, Filter) and step.kind in ("highpass", "bandpass"))
            or (isinstance(step, Standardise) and step.over == "lead")
            for step in self.steps
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, hexadecimal."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` gives back an equal value."""
        return {"leads": list(self.leads), "steps": [step_to_dict(step) for step in self.steps]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preparation:
        """Read what `to_dict` wrote.

        Raises
        ------
        PreparationError
            For a missing or an unknown key.
        """
        # A string would pass for a sequence of one-letter leads.
        whole = set(values) == {"leads", "steps"} and not isinstance(values["leads"], str)
        if not whole:
            raise PreparationError(
                f"a preparation has the keys leads and steps, two lists, but this is {values!r}",
                remedy="Use the dictionary that Preparation.to_dict wrote.",
            )
        steps = tuple(step_from_dict(step) for step in values["steps"])
        return cls(leads=tuple(values["leads"]), steps=steps)

    def with_window(self, *, seconds: float) -> Preparation:
        """A copy with shorter or longer crops; they must be a whole number of samples."""
        samples = seconds * self._window_rate
        if samples < 1 or abs(samples - round(samples)) > 1e-6:
            raise PreparationError(
                f"a window of {seconds} s is {samples:g} samples at {self._window_rate:g} Hz",
                remedy="Give a length that is a whole number of samples.",
            )
        return self._with(replace(self._window, samples=round(samples)))

    def with_evaluation_crops(self, count: int) -> Preparation:
        """A copy that evaluates on another number of crops."""
        return self._with(replace(self._window, evaluation_crops=count))

    def centred(self) -> Preparation:
        """A copy that takes each lead's mean over the whole record out first; itself if it does."""
        if any(isinstance(step, Centre) for step in self.steps):
            return self
        first = 1 if self._derive else 0
        return replace(self, steps=(*self.steps[:first], Centre(), *self.steps[first:]))

    def with_leads(self, leads: Sequence[str]) -> Preparation:
        """A copy for some of the leads; those that are computed still are."""
        kept = tuple(lead for lead in self.derived if lead in leads)
        return self._deriving(kept, leads=tuple(leads))

    def deriving(self, available: Sequence[str]) -> Preparation:
        """A copy that computes what a record lacks, where the law of the limb leads gives it.

        Parameters
        ----------
        available : sequence of str
            Leads of the record, in their standard spelling.

        Returns
        -------
        Preparation
            The preparation itself when nothing is lacking that two of the record's limb leads
            give; `derived` says what is computed. What cannot be is still among `sources`.
        """
        absent = [lead for lead in self.sources if lead not in available]
        if not set(absent) & set(derivable_leads(available) if absent else ()):
            return self
        pair, _ = derivation(available)
        wanted = {*self.derived, *absent} & set(derivable_leads(pair))
        return self._deriving(tuple(lead for lead in self.leads if lead in wanted), of=pair)

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

    def describe(self) -> str:
        """One line for people."""
        return f"{len(self.leads)} leads; " + "; ".join(str(step) for step in self.steps)

    @property
    def _derive(self) -> Derive | None:
        first = self.steps[0] if self.steps else None
        return first if isinstance(first, Derive) else None

    @property
    def _window(self) -> Window:
        return next(step for step in self.steps if isinstance(step, Window))

    @property
    def _window_rate(self) -> float:
        """Rate at which the window is cut, in Hz."""
        before = self.steps[: self.steps.index(self._window)]
        return [step.rate for step in before if isinstance(step, Resample)][-1]

    def _with(self, window: Window) -> Preparation:
        steps = tuple(window if isinstance(step, Window) else step for step in self.steps)
        return replace(self, steps=steps)
