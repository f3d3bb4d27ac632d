"""What an output file was made of and by: what stands in its schema, and what its key is of."""

import json
import shlex
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from models.checkpoints.files import sha256
from models.checkpoints.manifest import CONFIG_FILE
from models.datasets.dataset import optional_package
from pushforward.batch.inputs import without_query
from pushforward.batch.partial import PartialOutput, digest_key
from pushforward.batch.plan import FilePlan
from pushforward.batch.session import Session
from pushforward.batch.writers import PROVENANCE_KEY
from pushforward.version import package_version
from service.contracts import ModelCard

_PACKAGES = ("numpy", "onnxruntime", "pyarrow", "torch")


def model_facts(card: ModelCard, folder: Path) -> dict[str, Any]:
    """What tells a model, and what computes it, from others.

    Args:
        card: of the model.
        folder: of its files: preprocessing, names and tolerances of solves stand in config.json.
    """
    calibration = card.calibration
    return {
        "name": card.name,
        "version": card.version,
        "family": card.family,
        "weights_sha256": card.weights,
        "config_sha256": sha256(folder / CONFIG_FILE),
        "graphs_sha256": card.accuracy.get("certificate", {}).get("graphs_sha256"),
        "engine": card.engine,
        "dtype": card.dtype,
        "batching": card.accuracy["batching"],
        "precision": card.accuracy.get("precision"),
        "calibration": None if calibration is None else calibration.id,
    }


def make_facts(plan: FilePlan, session: Session, inputs: Sequence[Any]) -> dict[str, Any]:
    """What a file is made of: the rows, the model, the options; none of the time or the machine.

    Args:
        plan: what is asked for.
        session: of the model.
        inputs: what tells the content of each input file from another.
    """
    return {
        "operation": plan.operation,
        "model": model_facts(session.card, session.location.folder),
        "versions": _versions(),
        "command": command_of(plan),
        "columns": plan.columns,
        "context": plan.context,
        "keep": plan.keep,
        "fields": dict(plan.fields),
        "num_samples": plan.num_samples,
        "kind": plan.suffix,
        "inputs": list(inputs),
    }


def key_of(facts: dict[str, Any]) -> str:
    """The key of a file: by what its inputs hold, whatever they are called."""
    told = {name: value for name, value in facts.items() if name != "command"}
    told["inputs"] = [
        {name: value for name, value in each.items() if name != "name"} for each in facts["inputs"]
    ]
    return digest_key(told)


def provenance(facts: dict[str, Any], key: str) -> bytes:
    """What stands in the schema of an output file."""
    return json.dumps({**facts, "key": key}, sort_keys=True).encode()


def read_key(path: Path, partial: PartialOutput) -> str | None:
    """The key of a file that was made so; None of others.

    Args:
        path: of the file.
        partial: its parts, which know what a file without a schema is of.
    """
    if path.suffix != ".parquet":
        return partial.finished_key()
    parquet = optional_package("pyarrow.parquet", needed_for="reading .parquet", extra="files")
    pyarrow = optional_package("pyarrow", needed_for="reading .parquet")
    try:
        stored = (parquet.read_schema(path).metadata or {}).get(PROVENANCE_KEY)
    except pyarrow.ArrowException:
        return None
    return None if stored is None else str(json.loads(stored).get("key"))


def command_of(plan: FilePlan) -> str:
    """The command that asks for the same rows; where they are written to makes no difference."""
    inputs = map(without_query, plan.inputs)
    words = ["pushforward", plan.operation.replace("_", "-"), str(plan.model), *inputs]
    if plan.num_samples is not None:
        words += ["--num-samples", str(plan.num_samples)]
    for name in ("columns", "context", "keep"):
        for column in getattr(plan, name) or ():
            words += [f"--{name}", column]
    for name, value in plan.fields.items():
        words += _option(name, value)
    return shlex.join(words)


def _option(name: str, value: Any) -> list[str]:
    """A field as the command line takes it."""
    if name == "context" and isinstance(value, int):
        return ["--label", str(value)]
    if name == "context":
        return ["--context", ",".join(map(repr, value))]
    return [f"--{name.replace('_', '-')}", str(value)]


def _versions() -> dict[str, str]:
    found = {"pushforward": package_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
