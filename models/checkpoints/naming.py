"""Names of models: a model is called as its folder is, and a server takes only some names."""

import re
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
# A number alone is a version: NAME/2 is version 2 of the model NAME.
_VERSION = re.compile(r"[0-9]{1,9}", re.ASCII)


def is_version(name: str) -> bool:
    """Whether a folder of this name is a version of a model, and not a model of its own."""
    return _VERSION.fullmatch(name) is not None


def name_of(folder: Path) -> str:
    """What a model in this folder is called."""
    return folder.resolve().name if folder.name in ("", "..") else folder.name


def describe_bad_name(name: str) -> str | None:
    """Why a model cannot be served under a name, in words to follow the folder; None if it can."""
    if _NAME.fullmatch(name) and not is_version(name):
        return None
    return (
        f"{name!r} cannot be a model's name; expected letters, digits, '.', '_' and '-', a letter "
        "or digit first, at most 128, and not a number alone"
    )


def warn_of_name(folder: Path) -> str | None:
    """What to tell whoever is about to write a model to a folder; None where it can be served.

    Args:
        folder: of the model, or of a version of it, which is called as the folder above.
    """
    name = name_of(folder)
    if is_version(name):
        name = name_of(folder.absolute().parent)
    reason = describe_bad_name(name)
    return reason and f"{folder}: a server refuses this folder: {reason}; rename it to serve it"
