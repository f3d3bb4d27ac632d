"""Where a model is, and what changes when its files do."""

from pathlib import Path

from service.launch.exits import StartupError
from service.repository.folders import ModelLocation, Stamp, find_models, stamp


def stamp_of(model: Path) -> Stamp:
    """What changes when the files of a model do.

    Raises:
        ValueError: there is no model, or there are several.
    """
    try:
        return stamp(locate(model))
    except StartupError as error:
        raise ValueError(str(error)) from None


def locate(model: Path) -> ModelLocation:
    """Find the one model of a folder.

    Raises:
        ValueError: it holds several.
        StartupError: it holds none.
    """
    found = find_models([model])
    if len(found) > 1:
        names = ", ".join(location.name for location in found)
        raise ValueError(f"{model}: expected the folder of one model, it holds {names}")
    return found[0]
