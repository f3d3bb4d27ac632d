"""One table of settings: flags, variables, file, defaults; and plain words for mistakes."""

import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import (
    Settings,
    SettingsError,
    origins,
    read,
    unknown_variables,
    variable_name,
)
from tests.pushforward.cli.test_main import invoke


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields:
        monkeypatch.delenv(variable_name(field), raising=False)
    monkeypatch.delenv("PUSHFORWARD_SETTINGS", raising=False)


def test_a_flag_wins_over_a_variable_and_a_variable_over_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert read({}).port == 8000
    monkeypatch.setenv("PUSHFORWARD_PORT", "9000")
    assert read({}).port == 9000
    assert read({"port": "9001"}).port == 9001


def test_every_field_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        read({}).port = 1


def test_folders_are_joined_as_paths_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSHFORWARD_MODEL_REPOSITORY", "/models/a:/models/b")
    assert read({}).model_repository == (Path("/models/a"), Path("/models/b"))
    assert read({"model_repository": [Path("c")]}).model_repository == (Path("c"),)


@pytest.mark.parametrize(
    ("text", "locations"),
    [
        ("s3://a/b:hf://org/name@v1:c", ["s3://a/b", "hf://org/name@v1", Path("c")]),
        ("/a:https://host:8443/m:gs://b", [Path("/a"), "https://host:8443/m", "gs://b"]),
        ("https://host:/a", ["https://host", Path("/a")]),
        ("https://me:word@host:1/m?k=a/b:/c", ["https://me:word@host:1/m?k=a/b", Path("/c")]),
        ("s3://a::s3://b", ["s3://a", "s3://b"]),
        (
            "http://a:8/b:c/d@e:http://f:./g@h",
            ["http://a:8/b", Path("c/d@e"), "http://f", Path("g@h")],
        ),
        ("file:///srv/my%20models:memory://m", [Path("/srv/my models"), "memory://m"]),
        ("sftp://me:wo:r@d@host:22/m:/c", ["sftp://me:wo:r@d@host:22/m", Path("/c")]),
        ("ftp://me:word@host:c", ["ftp://me:word@host", Path("c")]),
        (
            "http://[::1]:8971/m:http://[fe80::a:b]:c",
            ["http://[::1]:8971/m", "http://[fe80::a:b]", Path("c")],
        ),
        (
            "https://h/m?e=01:02:03&sig=a1:./c:https://h?a:b:s3://d",
            ["https://h/m?e=01:02:03&sig=a1", Path("c"), "https://h?a:b", "s3://d"],
        ),
    ],
)
def test_uris_are_joined_as_folders_are(text: str, locations: list[Path | str]) -> None:
    assert read({"model_repository": text}).model_repository == tuple(locations)


def test_uris_are_arguments_and_are_shown_without_credentials() -> None:
    given = ["https://me:word@host/m?key=1", "s3://bucket/models:a", Path("c")]
    settings = read({"model_repository": given})
    assert settings.model_repository == (*given[:2], Path("c"))
    shown = settings.model_dump(mode="json")["model_repository"]
    assert shown == ["https://host/m", "s3://bucket/models:a", "c"]


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("file://srv/models", "file://srv/models: expected file:///PATH, with three slashes"),
        ("file://me:secret@srv/models", "three slashes"),
        ("http://me:se/cret@host/models", "port"),
        ("http://me:secret@host:99999/models", "port"),
        ("sftp://:se/cret@host:22/models", "port"),
        ("http://me:secret@[::1/models", "IPv6"),
        ("simplecache::http://me:secret@host/models", "joined by '::'"),
        ("zip://a.zip::http://me:secret@host/models", "joined by '::'"),
        ("zip://a::simplecache::http://me:secret@host/models", "joined by '::'"),
    ],
)
def test_a_uri_that_cannot_be_used_is_told_without_its_password(uri: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as raised:
        read({"model_repository": uri if uri.startswith(("http:", "sftp:")) else [uri]})
    inspected = invoke("inspect", uri)
    assert inspected.exit_code == 2
    assert "Invalid value" in inspected.stderr
    pushed = invoke("push", ".", uri)
    assert pushed.exit_code == 2
    assert "cret" not in str(raised.value) + inspected.stderr + pushed.stderr


def test_an_empty_variable_counts_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSHFORWARD_MAX_BATCH_SIZE", "")
    assert read({}).max_batch_size is None


def test_the_port_that_kubernetes_injects_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSHFORWARD_PORT", "tcp://10.0.0.1:8000")
    assert read({}).port == 8000
    with pytest.raises(SettingsError, match="--port"):
        read({"port": "tcp://10.0.0.1:8000"})


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("port", "many"),
        ("port", "65536"),
        ("port", "-1"),
        ("device", "gpu"),
        ("device", "cuda:x"),
        ("engine", "tensorflow"),
        ("batching", "sometimes"),
        ("max_batch_size", "0"),
        ("max_batch_size", "1.5"),
        ("max_batch_delay_seconds", "-0.1"),
        ("max_queue_rows", "0"),
        ("request_timeout_seconds", "0"),
        ("request_timeout_seconds", "nan"),
        ("write_timeout_seconds", "0"),
        ("shutdown_grace_seconds", "soon"),
        ("num_threads", "0"),
        ("log_level", "loud"),
        ("log_format", "xml"),
    ],
)
def test_a_bad_value_is_named_as_it_was_given(
    field: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError) as caught:
        read({field: text})
    message = str(caught.value)
    assert message.startswith(f"--{field.replace('_', '-')}: ")
    assert repr(text) in message
    assert "\n" not in message
    monkeypatch.setenv(variable_name(field), text)
    with pytest.raises(SettingsError, match=f"^{variable_name(field)}: "):
        read({})


@pytest.mark.parametrize(
    "origin", ["*", "https://*", "https://*.example", "https://a.*", "example.org", "https://a/b"]
)
def test_origins_are_named_one_by_one(origin: str) -> None:
    with pytest.raises(SettingsError, match=r"^--cors-origins: .*scheme and host"):
        read({"cors_origins": f"https://good.example,{origin}"})


def test_an_unknown_variable_is_told_with_the_nearest_name() -> None:
    (warning,) = unknown_variables({"PUSHFORWARD_MAX_BATCHSIZE": "4", "HOME": "/"})
    assert warning.startswith("PUSHFORWARD_MAX_BATCHSIZE: ")
    assert "PUSHFORWARD_MAX_BATCH_SIZE" in warning


def test_known_and_injected_variables_are_not_told() -> None:
    fields = {variable_name(field): "" for field in Settings.model_fields}
    injected = {
        "PUSHFORWARD_SERVICE_HOST": "10.0.0.1",
        "PUSHFORWARD_SERVICE_PORT_HTTP": "8000",
        "PUSHFORWARD_PORT_8000_TCP_ADDR": "10.0.0.1",
        "PUSHFORWARD_BASE_URL": "http://x",
        "PUSHFORWARD_SETTINGS": "settings.toml",
    }
    assert unknown_variables(fields | injected) == []


def test_the_file_stands_between_variables_and_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    file = {"port": 1, "max_batch_size": 2, "num_threads": 3}
    monkeypatch.setenv("PUSHFORWARD_MAX_BATCH_SIZE", "20")
    monkeypatch.setenv("PUSHFORWARD_NUM_THREADS", "30")
    settings = read({"num_threads": "300"}, file, "s.toml")
    found = (settings.port, settings.max_batch_size, settings.num_threads, settings.host)
    assert found == (1, 20, 300, "127.0.0.1")
    assert origins({"num_threads": "300"}, file, "s.toml") == {
        "port": "s.toml: port",
        "max_batch_size": "PUSHFORWARD_MAX_BATCH_SIZE",
        "num_threads": "--num-threads",
    }


FILES = {
    "not_toml": ("port 9000", "not TOML: "),
    "not_text": (b"\xff\xfe", "not TOML: "),
    "unknown": ("max_batchsize = 4", "max_batchsize: there is no such setting; did you mean max_b"),
    "a_table": ("[server]\nport = 9000", "server: there is no such setting"),
    "bad_value": ("max_batch_size = 0", "max_batch_size: Input should be greater than 0, got 0"),
    "bad_type": ("port = [1, 2]", "port: "),
    "bad_secret": ('api_keys = ["hunter2"]', "api_keys: "),
    "bad_origin": ('cors_origins = "*"', "cors_origins: "),
}


@pytest.mark.parametrize("case", FILES)
def test_a_bad_file_is_one_line_and_exit_3(tmp_path: Path, case: str) -> None:
    content, message = FILES[case]
    file = tmp_path / "s.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    result = invoke("serve", "--settings", str(file))
    assert result.exit_code == 3
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("pushforward: ")
    assert f"{file}: {message}" in line
    assert "hunter2" not in line


def test_a_missing_file_is_one_line_and_exit_3(tmp_path: Path) -> None:
    result = invoke("serve", "--settings", str(tmp_path / "none.toml"))
    assert result.exit_code == 3
    assert result.stderr.strip().endswith("none.toml: No such file or directory")


def test_settings_are_printed_as_a_file_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "s.toml"
    key = "0123456789abcdef"
    file.write_text(f'api_keys = ["{key}"]\nmax_batch_size = 7\ncors_origins = "http://a"\n')
    monkeypatch.setenv("PUSHFORWARD_SETTINGS", str(file))
    result = invoke("serve", "a", "b/c", "--port", "9001", "--print-settings")
    assert result.exit_code == 0
    assert key not in result.output
    assert "port = 9001  # --port" in result.output
    assert f"max_batch_size = 7  # {file}: max_batch_size" in result.output
    assert 'log_level = "info"  # default' in result.output
    printed = tomllib.loads(result.output)
    unset = {field for field, info in Settings.model_fields.items() if info.default is None}
    assert printed.keys() >= Settings.model_fields.keys() - unset
    del printed["api_keys"]
    again = read({}, printed)
    assert again.model_repository == (Path("a"), Path("b/c"))
    assert (again.max_batch_size, again.cors_origins) == (7, ("http://a",))
