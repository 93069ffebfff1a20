"""Configurations of networks: pydantic dataclasses whose fields users override by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from einthoven.backbones.leads import canonical_leads
from einthoven.errors import BackboneError, first_fault, plain
from einthoven.records.record import STANDARD_LEADS

TYPICAL_DEVIATION_MV = 0.25


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("Input should be an odd number")
    return value


Count = Annotated[int, Field(gt=0)]
Counts = Annotated[tuple[Count, ...], Field(min_length=1)]
Odd = Annotated[int, Field(gt=0), AfterValidator(_odd)]
OddCounts = Annotated[tuple[Odd, ...], Field(min_length=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
"""A probability below 1, such as a dropout."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(strict=True, extra="forbid"))
class BackboneConfig:
    """Fields that all networks have; subclasses are frozen pydantic dataclasses too.

    Attributes
    ----------
    name : str
        Registry name.
    leads : tuple of str
        Leads that records have, in any spelling.
    init : {"scratch", "pretraining"}
        How fresh weights are drawn; most networks draw the same ones for both.
    """

    name: str
    leads: Annotated[tuple[str, ...], AfterValidator(canonical_leads)] = STANDARD_LEADS
    init: Literal["scratch", "pretraining"] = "scratch"

    @property
    def options(self) -> dict[str, Any]:
        """Fields that can be overridden, with their values: all but `name`."""
        fields = [field.name for field in dataclasses.fields(self) if field.name != "name"]
        return {field: getattr(self, field) for field in fields}

    def override(self, options: Mapping[str, Any]) -> Self:
        """Copy the configuration with some fields replaced; a list serves as a tuple.

        Raises BackboneError if an option is not a field, or its value is of another type or
        impossible.
        """
        unknown = sorted(set(options) - set(self.options))
        if unknown:
            close = get_close_matches(unknown[0], self.options, n=3, cutoff=0.65)
            raise BackboneError(
                f"unknown option {', '.join(unknown)} of {self.name}",
                remedy=(f"did you mean {' or '.join(close)}? " if close else "")
                + f"choose among {', '.join(self.options)}",
            )
        try:
            return dataclasses.replace(self, **{key: plain(options[key]) for key in options})
        except ValidationError as error:
            problem, remedy = first_fault(error, list(self.options))
            raise BackboneError(f"{self.name}: {problem}", remedy=remedy) from error

    def require(self, condition: bool, field: str, remedy: str) -> None:
        """Raise BackboneError if a field's value does not fit the other fields."""
        if not condition:
            raise BackboneError(f"{self.name}: {field} = {getattr(self, field)!r}", remedy=remedy)
