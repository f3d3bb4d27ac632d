"""`pushforward bench` as users run it, against a server that it starts itself."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pushforward.cli import app as cli
from pushforward.cli.bench_report import show

COMMAND = Path(sys.executable).with_name("pushforward")


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli.build(("bench",)), ["bench", *arguments])


def test_a_model_is_served_measured_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also: stdout is one document, the server is gone behind it, and text says the same."""
    picture = tmp_path / "load.png"
    flags = ("--seconds", "0.5", "--warmup-seconds", "0.2", "--rate", "50", "--json")
    done = subprocess.run(
        [COMMAND, "bench", "moons", "--plot", picture, *flags],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["model"], report["mode"], report["errors"]["total"]) == ("moons", "open", 0)
    assert report["requests"] > 10
    assert report["server_metrics"]["batches"] >= report["requests"] / 16
    assert report["server_timing_ms"]["compute"]["p50"] > 0
    assert "few for a p99" in done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    gone = invoke(report["url"])
    assert (gone.exit_code, gone.stdout) == (1, "")
    assert "Connection refused" in gone.stderr
    show(report)
    text = capsys.readouterr().out
    assert "log_prob of moons 1" in text
    assert "open loop at 50/s, poisson arrivals" in text
    assert "compute (Server-Timing)" in text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("mooons",), "expected the URL of a server, a model folder, or one of"),
        (("moons", "--knee", "--rate", "5"), "give --rate or --knee, not both"),
        (("moons", "--plot", "a.gif"), "expected .png or .svg"),
        (("moons", "--operation", "guess"), "log_prob"),
        (("http://user@host",), "a key goes into --api-key"),
    ],
)
def test_wrong_arguments_are_told(arguments: tuple[str, ...], text: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert text in " ".join(result.stderr.replace("│", " ").split())
