"""Settings as TOML: read from the file a user names, and written as they are in force.

The file is read by pydantic-settings' source, as variables are. Flags are typer's: its help has all
commands in one style, and pydantic-settings' own command line would parse them a second way.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import orjson
from pydantic_settings import TomlConfigSettingsSource

from service.settings import Settings, SettingsError


def read_file(path: Path) -> dict[str, Any]:
    """Read a flat table whose keys are fields of `Settings`.

    Raises:
        SettingsError: it cannot be read, is not TOML, or has a key that is no setting.
    """
    try:
        with path.open("rb"):  # the source would pass over a file that is not there
            table: dict[str, Any] = TomlConfigSettingsSource(Settings, path).toml_data
    except OSError as error:
        raise SettingsError(f"--settings: {path}: {error.strerror}") from None
    except ValueError as error:
        # Bad TOML, or bad UTF-8.
        reason = str(error).splitlines()[0]
        raise SettingsError(f"--settings: {path}: not TOML: {reason}") from None
    for key in table:
        if key not in Settings.model_fields:
            close = get_close_matches(key, Settings.model_fields, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise SettingsError(f"{path}: {key:.40}: there is no such setting{hint}")
    return table


def render(settings: Settings, origins: Mapping[str, str]) -> str:
    """Write settings as `read_file` reads them, each with where it comes from; no secrets.

    What is unset has no value in TOML: it stands there as a comment.
    """
    lines = []
    for field, value in settings.model_dump(mode="json").items():
        origin = origins.get(field, "default")
        if value is None:
            lines.append(f"# {field} is unset  # {origin}")
        else:
            # Numbers, truths, texts and lists of texts look the same in JSON and TOML.
            lines.append(f"{field} = {orjson.dumps(value).decode()}  # {origin}")
    return "\n".join(lines)
