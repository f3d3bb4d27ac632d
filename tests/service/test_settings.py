"""One table of settings: flags over variables over defaults, and plain words for mistakes."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import Settings, SettingsError, read, unknown_variables, variable_name


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields:
        monkeypatch.delenv(variable_name(field), raising=False)


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
    }
    assert unknown_variables(fields | injected) == []
