"""`pushforward serve`: its flags are the fields of `Settings`."""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo

from pushforward.cli.settings_file import read_file, render
from service.settings import FILE_VARIABLE, Settings, SettingsError, flag_name, origins, read

EXIT_BAD_SETTING = 3

Folders = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="FOLDER",
        help="Models or folders of models, or URIs of them (hf://, s3://, gs://, https://, ...), "
        "instead of --model-repository; without either, the models that ship with the package are "
        "served.",
    ),
]


File = Annotated[
    str | None,
    typer.Option(
        "--settings",
        metavar="FILE",
        envvar=FILE_VARIABLE,
        help="TOML file of settings, as max_batch_size = 64; paths in it are relative to where "
        "the service is started.",
    ),
]
OnlyPrint = Annotated[
    bool,
    typer.Option(
        "--print-settings",
        help="Print the settings in force and where each comes from, secrets masked, and stop.",
    ),
]


def serve(
    folders: Folders = None,
    settings_file: File = None,
    only_print: OnlyPrint = False,
    **flags: str | None,
) -> None:
    """Serve models over HTTP.

    Every flag is a variable too: --max-batch-size is PUSHFORWARD_MAX_BATCH_SIZE. A flag wins over a
    variable, a variable over the file of settings.
    """
    # Here, so that the help does without what keys need.
    from service.auth import auth_of, check_exposure

    given: dict[str, Any] = {field: text for field, text in flags.items() if text is not None}
    if folders:
        given["model_repository"] = folders
    try:
        file = read_file(Path(settings_file)) if settings_file else {}
        settings = read(given, file, settings_file or "")
        check_exposure(settings)
        # Only to see that its file can be read: every process makes its own.
        auth_of(settings)
    except SettingsError as error:
        print(f"pushforward: {error}", file=sys.stderr)
        raise typer.Exit(EXIT_BAD_SETTING) from None
    if only_print:
        print(render(settings, origins(given, file, settings_file or "")))
        return
    from service.launch.main import run

    raise typer.Exit(run(settings))


def _parameters() -> Iterator[inspect.Parameter]:
    """What `serve` names, then one flag a field.

    They are texts, so that flags and variables are parsed alike.
    """
    named = inspect.signature(serve).parameters
    yield from (named[name] for name in ("folders", "settings_file", "only_print"))
    for name, field in Settings.model_fields.items():
        option = typer.Option(
            flag_name(name),
            metavar=name.rpartition("_")[2].upper(),
            help=_help(field),
            show_default=False,
        )
        yield inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[str | None, option],
        )


def _help(field: FieldInfo) -> str:
    default = "" if field.default in (None, ()) else f" ({field.default})"
    return f"{field.description}{default}"


# typer reads the flags from here: they are written down once, in `Settings`.
vars(serve)["__signature__"] = inspect.Signature([*_parameters()])
