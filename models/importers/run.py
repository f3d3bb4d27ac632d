"""From a checkpoint of other code to one of our flows: every step of an import, in order."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from models.checkpoints.files import sha256
from models.checkpoints.tensor_file import contiguous
from models.datasets.schema import COLUMNS_KEY, named, to_json
from models.flow import Flow
from models.importers import pytrees
from models.importers.descriptions import check_family, check_version
from models.importers.hyperparameters import HyperparameterSources, refuse_unused, resolve
from models.importers.layouts.images import log_det
from models.importers.likelihood import Term, describe_likelihood
from models.importers.reading import read
from models.importers.registry import choose, names_of
from models.importers.report import ImportRefused, Report
from models.importers.source import (
    Conversion,
    Fragment,
    Inference,
    Source,
    SourceConfig,
    Step,
    numbered,
    prefixed,
)
from models.importers.state_dict import Prefer, extract_state_dict
from models.importers.weights import Weights
from models.registry import build, choose_decoding
from models.transforms.jacobi import Decoding

Preprocessing = Literal["source", "none"]
PREPROCESSING: tuple[Preprocessing, ...] = ("source", "none")
# What reading the sizes of tensors ends in where these are not of the source's making.
_OF_ODD_SHAPES = (
    *(LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, StopIteration),
)


@dataclass(frozen=True, slots=True)
class Request:
    """What a user asks for; see `import_checkpoint`."""

    source: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: Preprocessing = "source"
    weights: Prefer | None = None
    allow_pickle: bool = False
    prefix: str | None = None
    decoding: Decoding | None = None


def import_checkpoint(
    path: str | os.PathLike[str],
    source: str | None = None,
    config: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    preprocessing: Preprocessing = "source",
    *,
    weights: Prefer | None = None,
    allow_pickle: bool = False,
    prefix: str | None = None,
    decoding: Decoding | None = None,
) -> Flow:
    """Turn a checkpoint of public code into a flow with the same likelihood.

    Args:
        path: a file of `torch.save` or safetensors.
        source: the repository or library that made it, such as "rosinality/glow-pytorch"; left
            out, it is recognised by the keys.
        config: hyper-parameters under the source's own names, or a JSON file of them; those that
            can be read off the weights may be left out, and keys that begin with "_" are notes.
        preprocessing: "source": the flow takes data as users have them (pixels 0..255) and does
            what the source does to them; "none": it takes the source's own inputs.
        weights: "model" takes the weights as trained, "ema" their moving average, where the file
            holds both; left out, those that the source's own script samples from: the average of
            torchcfm's images (net_model, ema_model), else the weights as trained.
        allow_pickle: let the file run code while it is read, where the safe reader refuses it.
        prefix: where the flow is a part of a larger module, its name in there, such as
            "model.flow"; all other tensors are left out.
        decoding: how autoregressive maps are inverted, see `MaskedAutoregressive`; left out,
            "sequential".

    Returns:
        The flow in evaluation mode and float64, with `provenance` filled in: source, file and its
        digest, hyper-parameters and where each came from, what was noted on the way ("findings"),
        and the terms between our log_prob and the source's number ("likelihood").
        `models.importers.store.save_import` writes it to be served in float32.

    Raises:
        ImportRefused: says what is wrong and what to do; `report` holds what was found.
    """
    given = config if isinstance(config, Mapping) else read_config(config)
    request = Request(source, given, preprocessing, weights, allow_pickle, prefix, decoding)
    return run(Path(path), request)[0]


def read_config(path: str | os.PathLike[str] | None) -> Mapping[str, Any]:
    """Read hyper-parameters from a JSON file; without one there are none.

    Raises:
        ImportRefused: if the file cannot be read or is not a JSON object.
    """
    if path is None:
        return {}
    try:
        content = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ImportRefused(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise ImportRefused(f"{path}: expected a JSON object of hyper-parameters")
    return content


def run(path: Path, request: Request) -> tuple[Flow, Report]:
    """Import a checkpoint and report on it.

    Returns:
        The flow, as `import_checkpoint` gives it, and the complete report.

    Raises:
        ImportRefused: with the report as far as it came.
    """
    report = Report(file=path.name)
    try:
        return _run(path, request, report), report
    except ImportRefused as error:
        error.report = report
        raise


def _run(path: Path, request: Request, report: Report) -> Flow:
    if request.preprocessing not in PREPROCESSING:
        raise ImportRefused(
            f"preprocessing: expected one of {', '.join(PREPROCESSING)}, got "
            f"{request.preprocessing!r}"
        )
    content = read(path, report, allow_pickle=request.allow_pickle)
    report.sha256 = sha256(path)
    recognise = partial(names_of, settings=request.config)
    if pytrees.is_flow(content):
        state, stored = pytrees.extract(content, report, request.prefix)
    else:
        state, stored = extract_state_dict(
            content, report, recognise, prefer=request.weights, prefix=request.prefix
        )
    name = request.source or request.config.get("source")
    if name is not None and not isinstance(name, str):
        raise ImportRefused(f"source: expected a name, such as 'nflows', got {name!r:.80}")
    source = choose(name, state, request.config)
    report.source = source.name
    how = "named" if name else "recognised by its keys"
    report.recognised("source", f"{source.name}: {how}")
    check_version(request.config.get("version"), source, report)
    tensors = {source.plain_key(key): value for key, value in state.items()}
    weights = Weights(tensors, report, stored)
    inference, config, conversion = _understand(source, request.config, weights)
    weights.finish()
    refuse_unused(source, config, inference, report)
    if request.decoding is not None:
        conversion = _decoded_by(conversion, request.decoding)
    check_family(request.config.get("family"), conversion, report)
    flow = _assemble(conversion, request.preprocessing, report)
    flow.provenance = report.provenance()
    if conversion.feature_names:
        names = named(conversion.feature_names, flow.features)
        flow.provenance[COLUMNS_KEY] = to_json(names)
    return flow


def _understand(
    source: Source, given: Mapping[str, Any], weights: Weights
) -> tuple[Inference, SourceConfig, Conversion]:
    """What the weights say, the hyper-parameters, and the conversion.

    Raises:
        ImportRefused: if the source has no such model.
    """
    try:
        inference = source.infer(weights)
        known = HyperparameterSources(given, weights.stored, inference)
        config = resolve(source, known, weights.report)
        return inference, config, source.convert(config, weights)
    except ImportRefused:
        raise
    except ValueError as error:  # of a family that does not know such a configuration
        raise ImportRefused(f"{source.name}: {error}") from error
    except _OF_ODD_SHAPES as error:
        first = str(error).partition("\n")[0]
        raise ImportRefused(
            f"{source.name}: tensors or settings of unexpected shapes, at {weights.suspects()} "
            f"({type(error).__name__}: {first}); is the file damaged, or of another architecture?"
        ) from error


def _decoded_by(conversion: Conversion, decoding: Decoding) -> Conversion:
    try:
        config = choose_decoding(conversion.family, conversion.config, decoding)
    except ValueError as error:
        raise ImportRefused(str(error)) from None
    return replace(conversion, config=config)


def _assemble(conversion: Conversion, preprocessing: Preprocessing, report: Report) -> Flow:
    outer = conversion.pixels if preprocessing == "source" else ()
    steps = [*outer, *conversion.inputs]
    config = {**conversion.config, **({"preprocessing": steps} if steps else {})}
    try:
        flow = build(conversion.family, config)
        state = prefixed("transforms.", numbered(conversion.layers, start=len(steps)))
        state |= prefixed("context_embedding.", conversion.embedding)
        state |= _statistics(steps)
        flow.double().load_state_dict(_complete(state, flow.state_dict(), len(steps)), assign=True)
    except (ValueError, RuntimeError) as error:
        raise ImportRefused(
            f"the checkpoint does not make a flow{_of_sizes(report)}: {error}"
        ) from error
    flow.requires_grad_(False).eval()
    report.family, report.config = flow.family, flow.config
    scale = Term(
        "scale of the data",
        -log_det(outer, flow.features),
        f"our density is over the data as users have them, the source's over {conversion.data}",
    )
    report.likelihood = describe_likelihood(
        conversion.reported,
        (scale,) if outer else (),
        "pixels 0..255" if outer else conversion.data,
        flow.features,
    )
    return flow


def _statistics(steps: Sequence[Step]) -> Fragment:
    """What standardising steps hold, in the digits of the source: flows are built in float32."""
    return {
        f"transforms.{index}.{name}": torch.tensor(step[name], dtype=torch.float64)
        for index, step in enumerate(steps)
        if step["kind"] == "standardise"
        for name in ("mean", "std")
    }


def _of_sizes(report: Report) -> str:
    """The sizes of images that were given: what no weight shows and may not fit."""
    given = [
        f"{setting.name}={json.dumps(setting.value)}"
        for setting in report.settings
        if setting.origin == "given" and re.search("size|shape|dims", setting.name)
    ]
    return f" of {', '.join(given)}" if given else ""


def _complete(state: Fragment, built: Mapping[str, Tensor], num_steps: int) -> Fragment:
    """Add what preprocessing holds, and make every tensor one of its own."""
    own = {
        key: built[key]
        for key in built
        if key.startswith("transforms.") and int(key.split(".")[1]) < num_steps
    }
    return contiguous({**own, **state})
