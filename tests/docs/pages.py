"""What a test must know of the pages beside their text; each entry says why."""

import json
import re
from collections.abc import Callable
from pathlib import Path

from tests.docs.blocks import ROOT, Block, read_page
from tests.fixtures import CONFIG_FILE, case_folder, checkpoint_of, golden_cases

ZOO = ROOT / "models" / "zoo"

# (page, how a command or a Python block begins) -> why it is not run.
EXCUSED = {
    ("README.md", "make test"): "it runs this test",
    ("docs/architecture.md", '"""POST /latent_norm'): "tests/test_architecture.py serves it",
    ("docs/architecture.md", ".venv/bin/python -m pytest"): "it runs tests",
    ("docs/architecture.md", "make check"): "it runs tests",
    ("docs/clusters.md", "blocks = ray.data"): "tests/clusters/test_ray_data.py runs it",
    ("docs/clusters.md", "python examples/ray_data.py"): "tests/clusters/test_ray_data.py runs it",
    ("docs/clusters.md", "spark-submit"): "tests/clusters/test_spark.py runs it, where Spark is",
    ("docs/clusters.md", "python examples/dask_rows.py"): "tests/clusters/test_dask.py runs it",
    ("docs/clusters.md", "import mlflow"): "tests/pushforward/test_mlflow.py runs it",
    (
        "docs/deploying.md",
        "docker compose",
    ): "it needs Docker; tests/test_deploy.py reads the files",
    ("docs/gpu.md", "python -m benchmarks.gpu"): "tests/test_gpu_benchmark.py runs it on the CPU",
}

# (page, text, what is run in its place, why).
REPLACED = (
    (
        "docs/training.md",
        "--data mnist --family glow --set num_classes=10",
        "--data 'digits.npy?labels=labels.npy' --family glow --set num_classes=2 "
        "--set num_steps=1 --set hidden_channels=8 --epochs 1",
        "5,000 digits take minutes an epoch",
    ),
    (
        "docs/grpc.md",
        "'tritonclient[grpc]'",
        "tritonclient python-rapidjson",
        "here it shares the server's environment, with a newer grpcio than it says",
    ),
    ("docs/protocol.md", '"cuda:1"', '"cpu"', "there is no second GPU"),
    ("docs/training.md", "--epochs 150", "--epochs 3", "the command is tried, not the model"),
    ("docs/scoring.md", "--epochs 40", "--epochs 1", "the commands are tried, not the model"),
    (
        "docs/training.md",
        "--data pinwheel --family ffjord",
        "--data 'pinwheel?rows=200' --family ffjord --epochs 1",
        "a minute an epoch",
    ),
    (
        "docs/importing.md",
        "--set img_size=64",
        "--set img_size=8",
        "proving a model of 64 x 64 pixels takes 20 s",
    ),
    ("docs/importing.md", "--set image_size=32", "--set image_size=8", "the same"),
    ("docs/importing.md", "input_dims=[3,64,64]", "input_dims=[3,8,8]", "the same"),
    (
        "docs/importing.md",
        "import cfm.pt",
        "import cfm.pt --set activation=tanh",
        "to solve over the kinks of SELU as exactly as is promised takes 15 s",
    ),
    ("README.md", "--set img_size=64", "--set img_size=8", "the same"),
)

_SMALL = {"PUSHFORWARD_MODEL_REPOSITORY": str(ZOO / "moons")}
# Page -> (variables, why).
VARIABLES: dict[str, tuple[dict[str, str], str]] = {
    "README.md": (
        {
            "PUSHFORWARD_MODEL_REPOSITORY": ":".join(
                str(ZOO / name) for name in ("moons", "pinwheel", "magic", "digits-glow")
            )
        },
        "the models that the pages ask: tests/e2e/test_zoo.py starts all",
    ),
    "docs/metrics.md": (_SMALL, "traces are the same of one model"),
    "docs/deploying.md": (_SMALL, "keys are the same for one model"),
    "docs/grpc.md": (_SMALL, "it asks moons alone"),
    "docs/importing.md": (
        {"PUSHFORWARD_ENGINE": "torch"},
        "engines are not compared for each of thirteen models",
    ),
}


def find_needs(page: str) -> list[str] | None:
    """Requirements of the environment that is active when a page begins; None without one.

    A page says so in the paragraph that begins with "Needs". One that begins with an install
    begins with an empty environment.
    """
    text = read_page(page)
    said = re.search(r"^Needs (.+?)\.$", text, re.M | re.S)
    if said:
        extras = re.findall(r"the extras? `(\w+)`", said[1])
        return [f".[{','.join(extras)}]"] if extras else []
    begins = re.search(r"^```sh\n(.*)", text, re.M)
    return [] if begins and begins[1].startswith("pip install") else None


def needs_server(page: str) -> bool:
    """Whether a page assumes that the README's `make serve` is running."""
    said = re.search(r"^Needs (.+?)\.$", read_page(page), re.M | re.S)
    return said is not None and "`make serve`" in said[1]


def _readme(_: Block, clone: Path) -> None:
    _write_table(clone / "measurements.csv")
    _copy(checkpoint_of(case_folder("rosinality", "glow_a")), clone)


def _training(_: Block, clone: Path) -> None:
    import numpy as np

    _write_table(clone / "flights.csv")
    _write_table(clone / "held-out.csv", seed=1)
    rng = np.random.default_rng(0)
    np.save(clone / "digits.npy", rng.integers(0, 256, (60, 8, 8), dtype=np.uint8))
    np.save(clone / "labels.npy", rng.integers(0, 2, 60))


def _write_table(path: Path, seed: int = 0) -> None:
    """A table of numbers under a line of names."""
    import numpy as np

    rows = np.random.default_rng(seed).normal(size=(300, 3)) @ np.diag([1.0, 10.0, 0.1])
    np.savetxt(path, rows, delimiter=",", header="mass,speed,length", comments="")


def _client(_: Block, clone: Path) -> None:
    """A digit as an image file."""
    from PIL import Image

    Image.new("L", (28, 28), 128).save(clone / "digit.png")


def _importing(block: Block, clone: Path) -> None:
    """The checkpoint that the block names, of the source that stands above it, and pictures."""
    from PIL import Image

    (file,) = re.findall(r"\b[\w.]+\.(?:pt|pth|pkg|pkl|tar)\b", block.text)
    found = find_checkpoint(block.heading, file)
    (clone / file).write_bytes(found.read_bytes())
    for name in ("cat.png", "face.png"):
        Image.new("RGB", (8, 8), (90, 120, 150)).save(clone / name)


# Where a source has several: the case that an example's rows fit, or the smallest.
_CASES = {
    "normflows": "normflows_glow_a",
    "zuko": "zuko_maf_a",
    "rtqichen/ffjord": "ffjord_toy_a",
}


def find_checkpoint(source: str, file: str) -> Path:
    """The golden case of that source whose checkpoint has that name."""
    named = _CASES.get(source)
    for name, folder in golden_cases().items():
        config = json.loads((folder / CONFIG_FILE).read_text())
        is_trained = name == named if named else name.endswith(("_a", "_b"))
        if is_trained and (folder / file).exists() and config["source"] == source:
            return folder / file
    raise AssertionError(f"no golden case of {source} has a file {file}")


def _onnx(_: Block, clone: Path) -> None:
    import numpy as np

    if (clone / "my-model").exists():
        return
    (clone / "my-model").mkdir()
    for file in (ZOO / "moons").iterdir():
        if file.suffix != ".onnx" and file.name != "certificate.json":
            _copy(file, clone / "my-model")
    np.save(clone / "rows.npy", np.zeros((3, 2), np.float32))


def _copy(file: Path, folder: Path) -> None:
    (folder / file.name).write_bytes(file.read_bytes())


# What the reader of a page has before a block.
FILES: dict[str, Callable[[Block, Path], None]] = {
    "README.md": _readme,
    "docs/client.md": _client,
    "docs/importing.md": _importing,
    "docs/onnx.md": _onnx,
    "docs/training.md": _training,
}
