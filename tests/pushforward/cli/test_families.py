"""`pushforward families`: every family, every argument, examples that run; unknown keys."""

import functools
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from pydantic import Field
from typer.testing import CliRunner, Result

import models
from models.checkpoints.folder import read_manifest
from models.datasets import load
from models.datasets.toys import TOYS
from models.families.config import FamilyConfig
from models.registry import FAMILIES
from pushforward.cli import app as cli
from tests.blank_pictures import blank_pictures  # noqa: F401  (fixtures)
from tests.fixtures import case_folder, checkpoint_of

ROSINALITY = checkpoint_of(case_folder("rosinality", "glow_b"))
# With the columns between them, a family must fit in a line of a wide terminal.
MOST_LETTERS = 90


def invoke(*arguments: str | Path) -> Result:
    words = [*map(str, arguments)]
    return CliRunner().invoke(cli.build(words), words)


@functools.cache
def shown_of(*names: str) -> str:
    """What `pushforward families` prints, always the same."""
    return invoke("families", *names).stdout


def refused(*arguments: str | Path) -> str:
    """The one line that a refusal is."""
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    return line


@functools.cache
def facts_of(name: str) -> dict[str, Any]:
    result = invoke("families", name, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def undescribed(config: type[FamilyConfig]) -> list[str]:
    """Arguments of a configuration and of its parts that do not say what they mean."""
    schema = config.model_json_schema()
    parts = {config.__name__: schema, **schema.get("$defs", {})}
    return [
        f"{part}.{name}"
        for part, inner in parts.items()
        for name, info in inner.get("properties", {}).items()
        if "const" not in info and not info.get("description", "").endswith(".")
    ]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_argument_of_a_family_says_what_it_means(name: str) -> None:
    assert undescribed(FAMILIES[name].config) == [], "give these fields a description"


def test_an_argument_without_description_is_found() -> None:
    class Inner(FamilyConfig):
        width: int

    class Outer(FamilyConfig):
        inner: Annotated[Inner, Field(description="A part.")]
        depth: int = 3

    assert undescribed(Outer) == ["Outer.depth", "Inner.width"]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_one_line(name: str) -> None:
    about = FAMILIES[name].about
    for text in (about.what, about.data, about.when, about.cost.encode, about.cost.decode):
        assert 0 < len(text) <= MOST_LETTERS
        assert text == " ".join(text.split())
    lines = shown_of().splitlines()
    (line,) = (line for line in lines if line.split()[:1] == [name])
    assert all(text in line for text in (about.what, about.data, about.when))
    assert re.fullmatch(
        f".* {re.escape(about.cost.encode)} +{re.escape(about.cost.decode)}", line.rstrip()
    )


def test_the_list_speaks_json() -> None:
    result = invoke("families", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    listed = json.loads(result.stdout)["families"]
    assert [family["name"] for family in listed] == list(FAMILIES)
    assert all(set(family) == {"name", "what", "data", "when", "cost"} for family in listed)
    assert listed[list(FAMILIES).index("maf")]["cost"]["encode"] == "1"


def every_argument(facts: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from facts["arguments"]
    for part in facts["parts"]:
        yield from part["arguments"]


@pytest.mark.parametrize("name", FAMILIES)
def test_all_arguments_of_a_family_are_shown(name: str) -> None:
    config, facts = FAMILIES[name].config, facts_of(name)
    assert [argument["name"] for argument in facts["arguments"]] == list(config.model_fields)
    text = shown_of(name)
    shown = "".join(text.split())
    for argument in every_argument(facts):
        assert argument["required"] == ("default" not in argument)
        assert argument["name"] in shown
        assert all(len(argument[key]) > 2 for key in ("type", "meaning"))
    for part in facts["parts"]:
        assert part["meaning"] in text


@pytest.mark.parametrize("name", FAMILIES)
def test_defaults_are_those_of_the_family(name: str) -> None:
    """What is shown, given as it is shown, changes nothing."""
    facts, example = facts_of(name), FAMILIES[name].about.example
    given = {"event_shape": example.event_shape, "layers": example.arguments.get("layers")}
    required = {key: given[key] for key in FAMILIES[name].config.model_fields if key in given}
    shown = {item["name"]: item["default"] for item in facts["arguments"] if not item["required"]}
    config = FAMILIES[name].config
    assert config.model_validate_json(
        json.dumps({**required, **shown})
    ) == config.model_validate_json(json.dumps(required))


@pytest.mark.parametrize(
    ("family", "argument", "kind", "default"),
    [
        ("nsf", "num_layers", "integer 1 to 4096", 5),
        ("nsf", "bound", "number > 0", 3.0),
        ("nsf", "passes", "integer 1 to 2147483647 or null", None),
        ("nsf", "permutation", "none | reverse | shuffle", "none"),
        ("nsf", "final_mixing", "true | false", False),
        ("nsf", "conditioner", '{"kind": "mlp"} | {"kind": "resnet"}', {"kind": "resnet"}),
        ("nsf", "masks", "alternating | half or list of 1 or more: list: 0 | 1", "alternating"),
        ("ffjord", "solver", "object", {}),
        ("ffjord", "rtol", "number > 0, < 1", 1e-6),
        ("ffjord_image", "strides", "list: 1 | 2 | -2 or null", None),
        ("chain", "scale", '{"kind": "mlp"}', {"kind": "mlp", "activation": "tanh"}),
        ("glow", "negative_slope", "number >= 0, < 1", 0.0),
    ],
)
def test_types_bounds_and_defaults(family: str, argument: str, kind: str, default: Any) -> None:
    found = [item for item in every_argument(facts_of(family)) if item["name"] == argument]
    assert (kind, default) in [(item["type"], item["default"]) for item in found]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_examples_run_and_make_one_flow(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = facts_of(name)["examples"]
    shown = shown_of(name)
    assert all(text in shown for text in examples.values())
    monkeypatch.chdir(tmp_path)
    command, *words = shlex.split(examples["train"])
    assert command == "pushforward"
    # One epoch, of few rows: that it runs is what is asked. Pixels of a file have 256 levels.
    place = words.index("--data") + 1
    if words[place] == "digits" and "levels" not in FAMILIES[name].about.example.arguments:
        np.save("digits.npy", load("digits").x[:40])
        words[place] = "digits.npy"
    elif words[place] in TOYS:
        words[place] += "?rows=200"
    result = invoke(*words, "--epochs", "1")
    assert result.exit_code == 0, result.output
    names: dict[str, Any] = {}
    exec(examples["build"], names)
    built, trained = names["flow"], read_manifest(tmp_path / words[words.index("--out") + 1])
    assert built.family == trained.family == name
    assert {**trained.config, "preprocessing": []} == {**built.config, "preprocessing": []}


def test_an_unknown_family_is_named_with_those_there_are() -> None:
    line = refused("families", "relnvp")
    assert "got 'relnvp' (did you mean 'realnvp'?)" in line
    assert all(name in line for name in FAMILIES)


@pytest.mark.parametrize(
    ("family", "setting", "told"),
    [
        ("realnvp", "num_layer=3", "num_layer: no such argument (did you mean 'num_layers'?)"),
        ("realnvp", "q=3", "q: no such argument; expected one of event_shape, context_features,"),
        (
            "realnvp",
            'conditioner={"kind":"mlp","width":[8]}',
            "conditioner.mlp.width: no such argument (did you mean 'widths'?); expected one of "
            "kind, widths, activation, negative_slope, context_mode, normalise",
        ),
        (
            "realnvp",
            'conditioner={"kind":"pair","scale":{"width":[8]}}',
            "conditioner.pair.scale.width: no such argument (did you mean 'widths'?); expected one "
            "of kind, widths, activation,",
        ),
        (
            "chain",
            'layers=[{"kind":"scale","bias":true}]',
            "layers.0.scale.bias: no such argument; expected one of kind",
        ),
        (
            "nsf",
            'linear={"matrx":"lu"}',
            "linear.matrx: no such argument (did you mean 'matrix'?); expected one of kind, "
            "matrix, diagonal, num_reflections, bias",
        ),
        (
            "ffjord",
            'solver={"tol":1e-3}',
            "solver.tol: no such argument (did you mean 'rtol'?); expected one of rtol, atol, "
            "max_evaluations",
        ),
        ("realnvp", "num_layers=many", "num_layers: Input should be a valid integer, got 'many'"),
    ],
)
def test_train_refuses_a_key_that_is_none_before_it_reads_data(
    family: str, setting: str, told: str, tmp_path: Path
) -> None:
    flags = ("--data", "nowhere.csv", "--out", tmp_path / "m")
    line = refused("train", "--family", family, "--set", setting, *flags)
    assert f"{family} config: {told}" in line


def test_train_takes_from_the_data_what_is_missing(tmp_path: Path) -> None:
    line = refused("train", "--family", "nice", "--data", "nowhere.csv", "--out", tmp_path / "m")
    assert "no such file or folder" in line


def test_build_refuses_a_key_that_is_none() -> None:
    with pytest.raises(ValueError, match=r"nice config: width: .*did you mean 'widths'"):
        models.build("nice", {"event_shape": [2], "width": [8]})


def test_import_refuses_a_key_that_is_none(tmp_path: Path) -> None:
    result = invoke("import", ROSINALITY, "--set", "image_size=8", "--out", tmp_path / "m")
    assert result.exit_code == 2
    line = " ".join(result.stderr.split())
    assert "image_size: not a hyper-parameter of rosinality/glow-pytorch" in line
    assert "(did you mean 'img_size'?); expected one of" in line
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (["families", "--help"], {"rich", "typer", "pydantic"}),
        (["families", "nice"], {"rich", "typer", "torch", "numpy", "pydantic"}),
    ],
    ids=["help", "nice"],
)
def test_it_imports_little(arguments: list[str], allowed: set[str]) -> None:
    """The configurations stand beside what is built of them, so torch is imported; no more is."""
    heavy = {
        "fastapi", "httpx", "matplotlib", "numpy", "onnx", "onnxruntime", "pandas", "PIL",
        "pyarrow", "pydantic", "rich", "scipy", "sklearn", "torch", "torchdiffeq", "typer",
    }  # fmt: skip
    script = f"""
import sys
sys.argv = ["pushforward", *{arguments!r}]
from pushforward.cli.main import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(*({heavy!r} - {allowed!r}) & set(sys.modules), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (0, "")
