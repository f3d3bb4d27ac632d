"""`pushforward push`: the models of a folder, validated, to where servers fetch them from."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pushforward.cli.plain_errors import FAULT_EXIT_CODE, USAGE_EXIT_CODE, fail, plain_errors

if TYPE_CHECKING:
    from service.remote.push import PushedModel

Folder = Annotated[
    Path,
    typer.Argument(
        help="Model folder, or a folder of models or of versions.", exists=True, file_okay=False
    ),
]
Uri = Annotated[
    str,
    typer.Argument(
        metavar="URI",
        help="Where it is to be: s3://bucket/models/NAME/2, hf://org/name, gs://, az://, file://.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace another model that lies there.")]
Json = Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")]


def push(folder: Folder, uri: Uri, *, force: Force = False, json: Json = False) -> None:
    """Push a model folder to a URI: validated, with digests, the index last."""
    with plain_errors():
        from service.remote.web_store import NO_UPLOAD
        from service.uris import as_location, is_uri, show_uri

        try:
            as_location(uri)
        except ValueError as error:
            fail(f"URI: {error}", USAGE_EXIT_CODE)
        if not is_uri(uri):
            fail(
                f"URI: expected s3://, hf://, gs://, az:// or file:///, got {uri}", USAGE_EXIT_CODE
            )
        shown = show_uri(uri)
        if uri.startswith(("http://", "https://")):
            fail(f"{shown}: {NO_UPLOAD}", USAGE_EXIT_CODE)
        pushed = _push(folder, uri, shown, force=force)
        _tell_readers_of_indexes(shown, pushed)
    if json:
        from json import dumps

        models = [
            {"path": one.path, "pushed": one.is_new, "files": one.files, "bytes": one.num_bytes}
            for one in pushed
        ]
        typer.echo(dumps({"uri": shown, "models": models}))
        return
    for one in pushed:
        where = f"{shown.rstrip('/')}/{one.path}".rstrip("/")
        done = "pushed" if one.is_new else "lies there already"
        typer.echo(f"{where}: {done}, {one.files} files, {one.num_bytes:,} bytes")


def _push(folder: Path, uri: str, shown: str, *, force: bool) -> "list[PushedModel]":
    from pushforward.cli.inspect import describe_model
    from service.remote.push import find_versions, push
    from service.remote.store import BadUri, StoreError, open_store
    from service.settings import read

    try:
        for path in find_versions(folder):
            if (folder / path / "config.json").is_file():
                _check(describe_model(folder / path), folder / path)
        seconds = read({}).fetch_timeout_seconds
        return push(folder, open_store(uri, seconds), timeout_seconds=seconds, force=force)
    except BadUri as error:
        fail(f"{shown}: {error}", USAGE_EXIT_CODE)
    except StoreError as error:
        fail(f"{shown}: {error}", FAULT_EXIT_CODE)


def _tell_readers_of_indexes(shown: str, pushed: "list[PushedModel]") -> None:
    """Say who does not learn of a version that was pushed below the index of its repository."""
    from models.checkpoints.naming import is_version

    if [one.path for one in pushed if one.is_new] == [""] and is_version(
        shown.rstrip("/").rpartition("/")[2]
    ):
        typer.echo(
            f"{shown}: if there is an index further up, it does not name this version: for readers "
            "over https:// push the folder of models",
            err=True,
        )


def _check(facts: dict[str, object], folder: Path) -> None:
    """Refuse what a server would serve without: a calibration or graphs that cannot be used."""
    for name in ("calibration", "onnx"):
        told = facts.get(name)
        if isinstance(told, str) and told.startswith("refused"):
            fail(f"{folder}: {name} {told}", USAGE_EXIT_CODE)
