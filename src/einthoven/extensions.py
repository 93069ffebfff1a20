"""Extensions: modules of other packages that register backbones, formats and objectives.

A package declares them as entry points of the group `einthoven`. They are imported before the first
look-up of a name, so that the command line finds what they register.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from einthoven.errors import EinthovenError

GROUP = "einthoven"


@cache
def import_extensions() -> None:
    """Import the declared modules, once.

    Raises
    ------
    EinthovenError
        If one cannot be imported.
    """
    for point in entry_points(group=GROUP):
        try:
            point.load()
        except Exception as error:
            package = point.dist.name if point.dist else point.value
            raise EinthovenError(
                f"the extension {point.name} of {package} cannot be imported: {error!r}",
                remedy=f"correct, update or uninstall {package}",
            ) from error
