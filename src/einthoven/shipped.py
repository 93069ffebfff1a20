"""The bundle that comes with einthoven, found by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from einthoven.bundle import ABOUT, WEIGHTS, read_about
from einthoven.errors import BundleError

SHIPPED = "einthoven-small"

_FOLDER = Path(__file__).resolve().parent / "shipped_bundles"


@dataclass(frozen=True)
class Start:
    """Where training begins.

    Attributes
    ----------
    backbone : str
        A registered name.
    weights : path or None
        Its pretrained weights.
    options : dict
        Fields of its config.
    """

    backbone: str
    weights: str | Path | None = None
    options: dict[str, Any] = field(default_factory=dict)


def shipped_bundle(name: str = SHIPPED) -> Path:
    """Folder of a bundle that was installed with einthoven.

    Raises
    ------
    BundleError
        When there is none of that name.
    """
    folder = _FOLDER / name
    if not (folder / ABOUT).is_file():
        known = sorted(path.parent.name for path in _FOLDER.glob(f"*/{ABOUT}"))
        raise BundleError(
            f"no bundle {name!r} was installed with einthoven",
            remedy=f"choose {' or '.join(known)}" if known else "install einthoven again",
        )
    return folder


def bundle_folder(bundle: str | Path | None) -> Path:
    """Folder of a bundle: a path, the name of a shipped one, or the default for None."""
    if bundle is None:
        return shipped_bundle()
    path = Path(bundle)
    if not path.exists() and (_FOLDER / path.name / ABOUT).is_file() and len(path.parts) == 1:
        return _FOLDER / path.name
    return path


def start_from(backbone: str, weights: str | Path | None = None) -> Start:
    """What a backbone's name stands for: itself, or the shipped bundle's encoder.

    Parameters
    ----------
    backbone : str
        A registered backbone, or the name of a shipped bundle.
    weights : path, optional
        Pretrained weights; a shipped bundle has its own.

    Raises
    ------
    BundleError
        When weights are given for a bundle that has them.
    """
    if backbone != SHIPPED:
        return Start(backbone, weights)
    if weights is not None:
        raise BundleError(
            f"{SHIPPED} has weights of its own; {weights} would replace them",
            remedy="leave --weights out, or name the backbone that the weights belong to",
        )
    folder = shipped_bundle(backbone)
    about = read_about(folder)
    return Start(about["backbone"], folder / WEIGHTS, dict(about["backbone_options"]))
