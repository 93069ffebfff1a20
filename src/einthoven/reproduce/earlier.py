"""Rows of table 1 whose runs are elsewhere: their numbers, from the page as it was.

Runs may be made on machines that are lent for hours and share no folder. What their rows were is in
the JSON beside the page that was written there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from einthoven.errors import ReproduceError
from einthoven.files import read_json
from einthoven.reproduce.sections import FIGURES

WHAT_IT_IS = ("name", "arm", "members", "backbone", "short_schedule", "changes", "recipes")
"""What has to be the same of a row, for its numbers to be those of the row of now. Pages of earlier
versions lack `recipes`."""


@dataclass(frozen=True)
class Earlier:
    """Table 1 as a page has it, ready from JSON; of no page: nothing."""

    numbers: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def beside(cls, page: Path, name: str) -> Earlier:
        """Of a page's section; nothing where it has none yet.

        Raises
        ------
        ReproduceError
            When the file beside the page is no table 1.
        """
        file = page.parent / FIGURES / f"{name}.json"
        if not file.is_file():
            return cls()
        numbers = read_json(file)
        if not isinstance(numbers, dict) or not {"rows", "best_post_trained"} <= numbers.keys():
            raise ReproduceError(
                f"{file} holds no table 1 whose rows could be kept",
                remedy="leave --keep-rows out: the page then has what is in --out",
            )
        return cls(numbers)

    def row(self, about: Mapping[str, Any], task: str) -> dict[str, Any] | None:
        """Numbers of a row on a task; None where it has none, or was something else."""
        for each in self.numbers.get("rows", []):
            if all(each.get(key, about[key]) == about[key] for key in WHAT_IT_IS):
                found: dict[str, Any] | None = each["tasks"].get(task)
                return found if found and found["auroc"] else None
        return None

    def best(self, task: str) -> dict[str, Any] | None:
        """Which post-trained model the rows were held against."""
        found: dict[str, Any] | None = self.numbers.get("best_post_trained", {}).get(task)
        return found

    def best_on(self, task: str) -> dict[str, Any] | None:
        """That model's numbers, where no row was that model."""
        found: dict[str, Any] | None = self.numbers.get("best_post_trained_on", {}).get(task)
        return found

    def is_held_against(self, now: Mapping[str, Any], task: str) -> bool:
        """Whether the rows were held against the model of now: the same runs, since another
        training has another value on fold 9."""
        return self.best(task) == now


def tupled(found: Any) -> Any:
    """What JSON gives, its lists as the tuples that they were."""
    if isinstance(found, dict):
        return {key: tupled(each) for key, each in found.items()}
    return tuple(map(tupled, found)) if isinstance(found, list) else found
