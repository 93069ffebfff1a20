"""What a model and its exported file say about themselves, from their config."""

from __future__ import annotations

from einthoven.files import Json
from einthoven.licences import Licence
from einthoven.tasks import Task


class Described:
    """Entries of a model's config.json as attributes; base class."""

    config: Json

    @property
    def task(self) -> Task:
        """What the model predicts: kind, unit, and mean and scale of numbers."""
        return Task(**(self.config.get("task") or {}))

    @property
    def licence(self) -> Licence:
        """Licence of the weights."""
        return Licence.from_dict(self.config)

    @property
    def descriptions(self) -> dict[str, str]:
        """Wording of the labels that have one."""
        descriptions: dict[str, str] = self.config.get("descriptions", {})
        return descriptions
