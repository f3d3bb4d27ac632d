"""A folder with certified graphs is served where torch is not installed: it is never imported."""

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

from models.extras import install_command

ROOT = Path(__file__).resolve().parents[2]

# As where only the extra `onnx` is installed.
HIDE_TORCH = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchdiffeq"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
"""
ASK_EVERYTHING = """
import asyncio, json
import httpx
import numpy as np
from service.app import create_app
from service.repository import FolderRepository
from service.settings import Settings
from service.telemetry import Metrics

async def ask():
    settings, metrics = Settings(watch_models=False), Metrics()
    repository = FolderRepository(settings, metrics)
    app = create_app(settings, repository, metrics)
    asked = {}
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for path in ("/models", "/openapi.json", "/metrics", "/v2", "/health/ready", "/docs"):
                assert (await client.get(path)).status_code == 200, path
            for model in repository.models():
                card = model.card
                label = {} if card.num_classes is None else {"context": 3}
                for operation in (each.operation for each in app.endpoints.values()):
                    body = {**operation.example(card), **label, "model": card.name}
                    answer = await client.post(f"/{operation.name}", json=body)
                    assert answer.status_code == 200, answer.text
                    assert "null" not in answer.text, answer.text
                    asked.setdefault(card.name, []).append(operation.name)
                assert card.engine == "onnx"
                assert card.cost is not None
    return asked

asked = asyncio.run(ask())
torch = sorted(name for name in sys.modules if name.partition(".")[0] == "torch")
print(json.dumps({"asked": asked, "torch": torch}))
"""


COMMAND = """
from pushforward.cli.main import main

sys.argv[0] = "pushforward"
main()
"""


def run(*parts: str, arguments: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    script = "\n".join(map(textwrap.dedent, (HIDE_TORCH, *parts)))
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_every_operation_of_the_zoo_is_answered_without_torch() -> None:
    done = run(ASK_EVERYTHING)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["torch"] == []
    zoo = {path.parent.name for path in (ROOT / "models" / "zoo").glob("*/config.json")}
    assert found["asked"].keys() == zoo
    assert {"log_prob", "encode", "decode", "sample"} <= set(found["asked"]["digits-glow"])


def test_a_model_without_graphs_is_refused_with_the_extra_that_serves_it(tmp_path: Path) -> None:
    plain = shutil.copytree(
        ROOT / "models" / "zoo" / "moons",
        tmp_path / "plain",
        ignore=shutil.ignore_patterns("*.onnx", "certificate.json"),
    )
    done = run(COMMAND, arguments=("serve", str(plain), "--port", "0"))
    assert done.returncode == 3
    said = [line for line in done.stderr.splitlines() if line.startswith("pushforward: ")]
    assert said == [
        f"pushforward: {plain}: its folder holds no certified graphs: torch would serve it, and is "
        f"not installed: {install_command('cpu')}"
    ]


def test_a_named_engine_of_torch_is_refused_too() -> None:
    folder = ROOT / "models" / "zoo" / "moons"
    done = run(COMMAND, arguments=("serve", str(folder), "--port", "0", "--engine", "torch"))
    assert done.returncode == 3
    assert f"torch would serve it, and is not installed: {install_command('cpu')}" in done.stderr


def test_a_model_with_graphs_is_inspected_without_torch(tmp_path: Path) -> None:
    folder = ROOT / "models" / "zoo" / "digits-glow"
    done = run(COMMAND, arguments=("inspect", str(folder), "--json"))
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    ignored = shutil.ignore_patterns("*.onnx")
    plain = shutil.copytree(folder, tmp_path / "plain", ignore=ignored)
    script = "import sys" + COMMAND
    command = [sys.executable, "-c", script, "inspect", str(plain), "--json"]
    by_torch = json.loads(subprocess.check_output(command, cwd=ROOT, text=True))
    assert shown.pop("onnx")["is_batch_invariant"]
    measured = shown.pop("accuracy").keys(), by_torch.pop("accuracy").keys()
    assert measured[0] == measured[1]
    assert shown == by_torch
