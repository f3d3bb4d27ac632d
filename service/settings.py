"""All settings, as one table: each field is a flag, a variable and a row of docs/settings.md.

`max_batch_size` is `--max-batch-size`, `PUSHFORWARD_MAX_BATCH_SIZE` and a key of the TOML file; a
flag wins over a variable, a variable over the file, the file over the default.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    Field,
    FilePath,
    NonNegativeFloat,
    PlainSerializer,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from service.engines.registry import AUTO, CHOICES, ENGINES, FLOAT32, PRECISIONS
from service.uris import as_location, show_location, split_locations, without_credentials

if TYPE_CHECKING:
    EngineName = str
    Precision = str
else:
    EngineName = Literal[CHOICES]
    Precision = Literal[PRECISIONS]

PREFIX = "PUSHFORWARD_"
# Names the file of settings.
FILE_VARIABLE = f"{PREFIX}SETTINGS"
# No settings, but not unknown: the file's, and those that the client reads.
_OTHER_VARIABLES = {FILE_VARIABLE, f"{PREFIX}BASE_URL", f"{PREFIX}API_KEY"}
# Never repeated, not even where they are wrong.
_SECRET = frozenset(("api_keys",))
# What Kubernetes injects into the pods beside a Service called "pushforward".
_KUBERNETES = re.compile(rf"{PREFIX}(SERVICE_\w+|PORT_\d+_\w+)")
# Long enough that guessing is hopeless; no space or comma, so that a list of them can be read.
_KEY = re.compile(r"[\x21-\x2b\x2d-\x7e]{16,512}")
_ORIGIN = re.compile(r"https?://[^/\s,*]+")

# A folder, or a URI, which is shown without credentials.
_Location = Annotated[Path | str, PlainSerializer(show_location, return_type=str, when_used="json")]


class SettingsError(ValueError):
    """A setting cannot be used; the message names it as the user wrote it."""


class _Variables(EnvSettingsSource):
    """PUSHFORWARD_* variables, less Kubernetes' PUSHFORWARD_PORT=tcp://10.0.0.1:80."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Look a field up; None counts as absent."""
        value, key, is_complex = super().get_field_value(field, field_name)
        if (
            field_name in ("port", "grpc_port")
            and isinstance(value, str)
            and value.startswith("tcp://")
        ):
            value = None
        return value, key, is_complex


class Settings(BaseSettings):
    """What a service is told from outside; frozen once it is read."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid"
    )

    model_repository: Annotated[tuple[_Location, ...], NoDecode] = Field(
        (),
        description=f"Folders or URIs to serve, joined by {os.pathsep!r}: each one model (it holds "
        "config.json) or a folder of models. Empty: the models that ship with the package.",
    )
    model_name: str | None = Field(
        None,
        description="Name of a model whose own folder is served, and not one above it; unset: that "
        "of the folder.",
    )
    cache: Path | None = Field(
        None,
        description="Folder to which models behind URIs are copied; unset: the user's cache.",
    )
    offline: bool = Field(
        False, description="Whether to serve what the cache holds of URIs, and ask no store."
    )
    watch_seconds: PositiveFloat | None = Field(
        None,
        description="How often URIs are looked at for changes; unset: at the start alone.",
    )
    fetch_timeout_seconds: PositiveFloat = Field(
        30.0,
        description="How long a store behind a URI may take for each list, and for each part of a "
        "file (256 kB at first).",
    )
    version_policy: Literal["latest", "all"] = Field(
        "latest",
        description="Which versions of a model are live: the highest, or all that lie in its "
        "folder. serving.toml there may say otherwise of one model.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 is all of them.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    grpc_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port for the Open Inference Protocol over gRPC (extra grpc), on the same "
        "address; 0 takes a free one. Unset: none.",
    )
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (),
        description="Keys, joined by commas: with any, all calls but the health checks and the "
        "pages need one. Flags can be seen by other users of a machine: prefer the variable or a "
        "file.",
    )
    api_key_file: FilePath | None = Field(
        None,
        description="File with more of them, read again when it changes: one a line, or where its "
        "name ends in .toml tables with names, limits and weights.",
    )
    allow_unauthenticated: bool = Field(
        False,
        description="Whether to listen beyond loopback without keys: where something else keeps "
        "strangers out.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Origins whose pages may call from a browser, joined by commas, as "
        "https://example.org; empty: none.",
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+(,\d+)*)?)$",
        description="auto, cpu, cuda (every GPU that is visible, one process each), cuda:N or "
        "cuda:N,M; auto is cuda where there is one.",
    )
    engine: EngineName = Field(
        AUTO,
        description=f"What computes: {', '.join(one.description for one in ENGINES.values())}, or "
        f"{AUTO}: certified graphs in the model's folder, else the fastest on the model itself.",
    )
    precision: Precision = Field(
        FLOAT32,
        description="What networks compute in, log-dets apart: float32, tf32, tf32x3, bf16 or "
        "fp16; refused for a model where log_prob would be off by more than its bound.",
    )
    default_model: str | None = Field(
        None, description="Model of requests that name none; unset: the only one that is served."
    )
    on_bad_model: Literal["fail", "skip"] = Field(
        "fail",
        description="What a model that cannot be loaded does to the start: fail ends it; skip "
        "serves the others, and the model once its folder is repaired.",
    )
    watch_models: bool = Field(
        True,
        description="Load a model anew when its files change, add new ones, unload removed ones.",
    )
    allow_uncalibrated: bool = Field(
        False,
        description="Whether a version without a calibration of anomaly scores may replace one "
        "that has it; requests with alpha or fdr then fail.",
    )
    drift_window_rows: int = Field(
        10_000,
        ge=1,
        description="After how many rows of POST /score the drift test of a model begins anew.",
    )
    drift_rows_per_second: PositiveFloat = Field(
        1000.0,
        description="How many rows of POST /score the drift test of a model is given at most; "
        "of more, some requests are left out, whatever their scores.",
    )
    enable_model_control: bool = Field(
        False,
        description="Whether clients may load and unload models: POST "
        "/v2/repository/models/{name}/load and /unload.",
    )
    batching: Literal["fast", "invariant"] = Field(
        "fast",
        description="fast: batches as load makes them; invariant: batches of one fixed size, so "
        "that a row has the same bits alone and beside others.",
    )
    max_batch_size: PositiveInt | None = Field(
        None,
        description="Rows in a batch; unset: chosen from the size of the model's rows, larger on a "
        "GPU.",
    )
    max_batch_delay_seconds: NonNegativeFloat = Field(
        0.0, description="How long a row may wait for others; 0: load alone makes the batches."
    )
    max_queue_rows: PositiveInt | None = Field(
        None,
        description="Rows that may wait for one operation of one model, then 429; unset: 32 "
        "batches.",
    )
    max_queue_seconds: PositiveFloat = Field(
        1.0,
        description="How long a request may have to wait for its first batch, as predicted from "
        "the pace of the batches before, then 429.",
    )
    max_request_rows: PositiveInt = Field(16384, description="Rows in one request, then 413.")
    max_body_bytes: PositiveInt = Field(64 * 2**20, description="Size of a body, then 413.")
    max_receiving_bytes: PositiveInt = Field(
        256 * 2**20,
        description="Size of all bodies that are being received at a time, then 429.",
    )
    max_response_bytes: PositiveInt = Field(
        256 * 2**20, description="Size of an answer, estimated before it is computed, then 413."
    )
    request_timeout_seconds: PositiveFloat = Field(
        30.0, description="From arrival to answer, then 504."
    )
    load_timeout_seconds: PositiveFloat = Field(
        600.0,
        description="How long a model may take to load, then it is refused; others do not wait.",
    )
    write_timeout_seconds: PositiveFloat = Field(
        30.0,
        description="How long a client may read nothing of an answer that waits for it, then the "
        "connection is cut off.",
    )
    shutdown_grace_seconds: NonNegativeFloat = Field(
        30.0, description="After SIGTERM: how long accepted requests may still take."
    )
    workers: PositiveInt = Field(
        1,
        description="Processes behind the port, each with its own models and queues; more than one "
        "where one Python process is the limit.",
    )
    instances: Literal["auto"] | PositiveInt = Field(
        "auto",
        description="Batches of one model that are computed at a time, by threads that share its "
        "weights; auto: the CPU quota shared by the workers over num_threads, 1 on a GPU.",
    )
    max_inline_seconds: NonNegativeFloat = Field(
        0.001,
        description="A batch that is predicted to take no longer is computed on the event loop "
        "itself, without the way to a thread and back; everything else waits so long at most. 0: "
        "none is. On a GPU none is.",
    )
    num_threads: PositiveInt | None = Field(
        None,
        description="Threads of one engine call; unset: 1, and where instances is 1 the CPU quota "
        "shared by the workers less one, at least 1.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe message logged: debug, info, warning or error."
    )
    log_format: Literal["console", "json"] = Field(
        "console", description="console: for people; json: one JSON object a line."
    )
    traces: bool = Field(
        False,
        description="Whether to send a trace of each request by OpenTelemetry (extra otel), where "
        "the OTEL_* variables say.",
    )

    @field_validator("model_repository", mode="before")
    @classmethod
    def _split_folders(cls, value: object) -> object:
        given = split_locations(value) if isinstance(value, str) else value
        if not isinstance(given, list | tuple):
            return given
        return [as_location(part) if isinstance(part, str) else part for part in given]

    @field_validator("api_keys", "cors_origins", mode="before")
    @classmethod
    def _split_texts(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return [part.strip() for part in value.split(",") if part.strip()]

    @field_validator("api_keys")
    @classmethod
    def _check_keys(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        check_keys(key.get_secret_value() for key in keys)
        return keys

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError("expected scheme and host without a path, as https://example.org")
        return origins

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then variables; no file is read that the user did not name."""
        return init_settings, _Variables(settings_cls)


def read(
    flags: Mapping[str, Any], file: Mapping[str, Any] | None = None, file_name: str = ""
) -> Settings:
    """Join flags, variables, the file's values and defaults.

    Args:
        flags: the fields given on the command line; text is parsed as variables are.
        file: the fields given in a file.
        file_name: what messages call it.

    Raises:
        SettingsError: names the first flag, variable or key of the file that is wrong.
    """
    file = file or {}
    sources = _sources(flags, file, file_name)
    try:
        return Settings(**{name: value for _, given in sources for name, value in given.items()})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = str(first["loc"][0])
        where = origins(flags, file, file_name)[field]
        got = "" if field in _SECRET else f", got {without_credentials(repr(first['input']))}"
        raise SettingsError(f"{where}: {first['msg']}{got}") from None


def origins(
    flags: Mapping[str, Any], file: Mapping[str, Any], file_name: str = ""
) -> dict[str, str]:
    """Where each field comes from, as the user wrote it; fields left at their default are not."""
    sources = _sources(flags, file, file_name)
    return {field: name(field) for name, given in sources for field in given}


def _sources(
    flags: Mapping[str, Any], file: Mapping[str, Any], file_name: str
) -> tuple[tuple[Callable[[str], str], Mapping[str, Any]], ...]:
    """What is given, from the weakest source to the strongest, each with its name of a field.

    pydantic-settings joins sources too, but does not tell which of them gave a value: messages and
    `--print-settings` name it.
    """
    return (
        (lambda field: f"{file_name}: {field}", file),
        (variable_name, _Variables(Settings)()),
        (flag_name, flags),
    )


def check_keys(keys: Iterable[str]) -> None:
    """Refuse keys that cannot be sent or could be guessed, without repeating them.

    Raises:
        ValueError: says what a key is.
    """
    for key in keys:
        if not _KEY.fullmatch(key):
            raise ValueError("expected keys of 16 to 512 visible ASCII characters, no commas")


def flag_name(field: str) -> str:
    """The command line's name of a field."""
    return "--" + field.replace("_", "-")


def variable_name(field: str) -> str:
    """The environment's name of a field."""
    return PREFIX + field.upper()


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """A warning for each PUSHFORWARD_* variable that means nothing, with the nearest that does."""
    known = {variable_name(field) for field in Settings.model_fields} | _OTHER_VARIABLES
    warnings = []
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in known or _KUBERNETES.fullmatch(name):
            continue
        close = get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        warnings.append(f"{name}: there is no such setting, it is ignored{hint}")
    return warnings
