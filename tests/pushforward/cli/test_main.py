"""The command line: quick help, flags made from the settings, plain refusals."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

import models
from pushforward.cli import app as cli
from pushforward.cli.commands import COMMANDS
from service.settings import Settings, flag_name


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli.build(arguments), list(arguments))


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["serve", "--help"]])
def test_help_imports_neither_torch_nor_fastapi(arguments: list[str]) -> None:
    script = f"""
import sys
sys.argv = ["pushforward", *{arguments!r}]
from pushforward.cli.main import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
heavy = {{"torch", "fastapi", "uvicorn", "numpy"}} & set(sys.modules)
sys.exit(f"imported {{heavy}}" if heavy else 0)
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stderr


def test_help_names_every_command() -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    assert all(name in result.output for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_summary_is_the_commands_own(name: str) -> None:
    command = cli.load(name)
    own = command.info.help if isinstance(command, typer.Typer) else inspect.getdoc(command)
    assert str(own).splitlines()[0] == COMMANDS[name].summary


def test_the_version_is_printed() -> None:
    assert invoke("--version").output.startswith("pushforward ")


def test_every_setting_is_a_flag_of_serve() -> None:
    named = {"folders", "settings_file", "only_print"}
    flags = set(inspect.signature(cli.load("serve")).parameters) - named
    assert flags == set(Settings.model_fields)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """What `serve` would have run with."""
    seen: list[Settings] = []

    def run(settings: Settings) -> int:
        seen.append(settings)
        return 0

    monkeypatch.setattr("service.launch.main.run", run)
    return seen


def test_flags_folders_and_variables_become_settings(
    served: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUSHFORWARD_PORT", "9000")
    monkeypatch.setenv("PUSHFORWARD_HOST", "0.0.0.0")
    monkeypatch.setenv("PUSHFORWARD_ALLOW_UNAUTHENTICATED", "true")
    flags = ["--port", "9001", "--max-batch-size", "12", "--max-batch-delay-seconds", "0.5"]
    assert invoke("serve", "a", "b/c", *flags).exit_code == 0
    (settings,) = served
    assert settings.model_repository == (Path("a"), Path("b/c"))
    assert (settings.host, settings.port) == ("0.0.0.0", 9001)
    assert (settings.max_batch_size, settings.max_batch_delay_seconds) == (12, 0.5)


@pytest.mark.parametrize("field", Settings.model_fields)
def test_a_bad_setting_is_one_line_and_exit_3(field: str, served: list[Settings]) -> None:
    if field in ("cache", "default_model", "model_name", "model_repository"):
        text = ""  # any text is one: nothing to refuse before the start
        assert invoke("serve", flag_name(field), text).exit_code == 0
        return
    result = invoke("serve", flag_name(field), "nonsense")
    assert result.exit_code == 3
    message = result.stderr.strip()
    assert message.startswith(f"pushforward: {flag_name(field)}: ")
    assert "\n" not in message
    assert served == []


def test_an_unknown_flag_is_a_usage_error(served: list[Settings]) -> None:
    assert invoke("serve", "--max-batch-sice", "3").exit_code == 2
    assert served == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    flow = models.build("realnvp", {"event_shape": [2], "num_layers": 2})
    models.save(flow, tmp_path / "toy", provenance={"trained_on": "nothing"})
    return tmp_path / "toy"


def test_inspect_shows_what_is_known(folder: Path) -> None:
    result = invoke("inspect", str(folder))
    assert result.exit_code == 0
    for text in ("realnvp", "golden_replay", "passed", "trained_on", "log_prob_max_abs_error"):
        assert text in result.output


def test_inspect_speaks_json(folder: Path) -> None:
    facts = json.loads(invoke("inspect", "--json", str(folder)).output)
    assert facts["family"] == "realnvp"
    assert facts["features"] == 2
    assert facts["provenance"] == {"trained_on": "nothing"}
    assert facts["config"]["num_layers"] == 2


def test_inspect_says_what_is_wrong_with_a_model(folder: Path) -> None:
    (folder / "golden.safetensors").unlink()
    result = invoke("inspect", str(folder))
    assert result.exit_code == 2
    assert "golden.safetensors" in result.stderr
    assert "Traceback" not in result.output
