"""A model folder that is served by its certified graphs alone: read and bound together, no torch.

What an export found and proved with torch is written beside the graphs: the facts of the model, and
what the flow answers in float64 to its golden rows. The certificate has the SHA-256 of everything
that this was found of. A folder that is still the same needs no torch to be served: the graphs have
only to give these answers again.

    config.json ── model.safetensors ── golden.safetensors     what export has loaded and proved
          └──────────────┴─────────────────────┴── SHA-256 ──┐
    encode.onnx ── decode.onnx ── answers.safetensors ───────┴── certificate.json
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.checkpoints.facts import ModelFacts
from models.checkpoints.files import check_regular, sha256
from models.checkpoints.manifest import (
    CONFIG_FILE,
    GOLDEN_FILE,
    WEIGHTS_FILE,
    Manifest,
    read_manifest,
)
from models.checkpoints.tensor_file import read_arrays
from models.onnx.load import MAX_CERTIFICATE_BYTES, ExportIdentity, SerialisedExport, read_graphs
from models.onnx.names import (
    ANSWERS_FILE,
    CERTIFICATE_FILE,
    MODEL,
    architecture_digest,
    manifest_digest,
)
from models.onnx.replay import ReplayAnswers

_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Positive = Annotated[int, Field(gt=0)]


class NotCertified(ValueError):
    """A model folder cannot be served by its graphs alone; the message says why."""


class CertifiedFacts(BaseModel):
    """What the certificate says of the model that the graphs were made of.

    manifest_sha256: of what config.json says is computed. dtype: what the model is served in.
    config: with its defaults filled in, where config.json leaves some out; else None.
    counts_evaluations: of discrete flows; certificates of before do not say it.
    The others are those of `models.checkpoints.facts.ModelFacts`.
    """

    # Later versions may say more.
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    manifest_sha256: _Sha256
    weights_sha256: _Sha256
    golden_sha256: _Sha256
    answers_sha256: _Sha256
    dtype: Literal["float32", "float64"]
    config: dict[str, Any] | None
    num_classes: _Positive | None
    num_levels: _Positive | None
    discrete: tuple[Annotated[int, Field(ge=0)], ...]
    support: tuple[float, float] | None
    num_parameters: Annotated[int, Field(ge=0)]
    is_continuous: bool
    counts_evaluations: bool = False
    accuracy: dict[str, float]


@dataclass(frozen=True, slots=True)
class CertifiedModel:
    """A model folder as it was read.

    record: its golden rows; wanted: what the flow answers to them as the graphs take them.
    """

    facts: ModelFacts
    graphs: SerialisedExport
    record: Mapping[str, NDArray[Any]]
    wanted: ReplayAnswers


def has_certified_facts(folder: Path) -> bool:
    """Whether a folder looks as if it could be served by its graphs alone; nothing is checked."""
    try:
        return MODEL in _read_certificate(folder)
    except NotCertified:
        return False


def read_certified(folder: Path, dtype: str | None = None) -> CertifiedModel:
    """Read a model folder without torch.

    Args:
        folder: the model's, with graphs that `pushforward export` wrote into it.
        dtype: what to compute in; left out, what the model is served in.

    Raises:
        NotCertified: the folder is not what was certified, or its graphs are of another precision.
        CheckpointError, GraphRefused: a file cannot be used.
    """
    certificate = _read_certificate(folder)
    if MODEL not in certificate:
        raise NotCertified(
            f"{folder / CERTIFICATE_FILE}: it does not say what serving without torch needs: run "
            "pushforward export --in-place"
        )
    try:
        certified = CertifiedFacts.model_validate_json(json.dumps(certificate[MODEL]))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, (MODEL, *first["loc"])))
        raise NotCertified(f"{folder / CERTIFICATE_FILE}: {where}: {first['msg']}") from None
    manifest = read_manifest(folder)
    _require_same(folder / CONFIG_FILE, manifest_digest(manifest), certified.manifest_sha256)
    _require_same(folder / WEIGHTS_FILE, sha256(folder / WEIGHTS_FILE), certified.weights_sha256)
    facts = _facts(manifest, certified, str(certificate.get("precision")))
    graphs = read_graphs(folder, _identity(facts, certified))
    precision = graphs.certificate["precision"]
    wanted_dtype = dtype or certified.dtype
    if precision != wanted_dtype:
        raise NotCertified(
            f"the graphs are in {precision} and the model is served in {wanted_dtype}"
        )
    record = _arrays(folder / GOLDEN_FILE, certified.golden_sha256)
    answers = _arrays(folder / ANSWERS_FILE, certified.answers_sha256)
    _require_shapes(folder / GOLDEN_FILE, record, _record_shapes(facts, len(record.get("x", ()))))
    _require_shapes(folder / ANSWERS_FILE, answers, _answer_shapes(facts, len(record["x"])))
    return CertifiedModel(facts, graphs, record, ReplayAnswers(**answers))


def _read_certificate(folder: Path) -> dict[str, Any]:
    path = folder / CERTIFICATE_FILE
    try:
        check_regular(path, MAX_CERTIFICATE_BYTES)
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise NotCertified("its folder holds no certified graphs") from None
    except (OSError, ValueError) as error:
        raise NotCertified(f"{path}: cannot be read as a certificate: {error}") from None
    if not isinstance(content, dict):
        raise NotCertified(f"{path}: cannot be read as a certificate: expected an object")
    return content


def _require_same(path: Path, got: str, certified: str) -> None:
    if got != certified:
        raise NotCertified(
            f"{path}: it is not what the graphs were certified with: export the model again"
        )


def _facts(manifest: Manifest, certified: CertifiedFacts, precision: str) -> ModelFacts:
    if certified.num_classes and manifest.context_shape != (certified.num_classes,):
        raise NotCertified(f"{CERTIFICATE_FILE}: num_classes: expected as many as context values")
    return ModelFacts(
        family=manifest.family,
        config=certified.config or manifest.config,
        event_shape=manifest.event_shape,
        context_shape=manifest.context_shape,
        num_classes=certified.num_classes,
        num_levels=certified.num_levels,
        discrete=certified.discrete,
        support=certified.support,
        num_parameters=certified.num_parameters,
        is_continuous=certified.is_continuous,
        counts_evaluations=certified.is_continuous or certified.counts_evaluations,
        provenance=manifest.provenance,
        accuracy=_accuracy(manifest, certified, precision),
    )


def _accuracy(manifest: Manifest, certified: CertifiedFacts, precision: str) -> dict[str, float]:
    """What export found, and what config.json says since, whichever is more, in one dtype."""
    then = certified.accuracy
    if manifest.dtype != precision:
        return then
    since = manifest.accuracy
    return {**since, **{name: max(error, since.get(name, error)) for name, error in then.items()}}


def _identity(facts: ModelFacts, certified: CertifiedFacts) -> ExportIdentity:
    return ExportIdentity(
        family=facts.family,
        config_sha256=architecture_digest(facts.family, facts.config),
        weights_sha256=certified.weights_sha256,
        event_shape=facts.event_shape,
        context_shape=facts.context_shape,
        is_continuous=facts.is_continuous,
        counts_evaluations=facts.counts_evaluations,
    )


def _arrays(path: Path, certified: str) -> dict[str, NDArray[Any]]:
    """The arrays of a file of which the certificate has the digest, in float64."""
    arrays, digest = read_arrays(path)
    _require_same(path, digest, certified)
    return {name: array.astype(np.float64) for name, array in arrays.items()}


def _record_shapes(facts: ModelFacts, rows: int) -> dict[str, tuple[int, ...]]:
    context = {} if facts.context_shape is None else {"context": (rows, *facts.context_shape)}
    data, latent = (rows, *facts.event_shape), (rows, facts.features)
    return {"x": data, "z": latent, "log_prob": (rows,), **context}


def _answer_shapes(facts: ModelFacts, rows: int) -> dict[str, tuple[int, ...]]:
    data, latent = (rows, *facts.event_shape), (rows, facts.features)
    return {"z": latent, "log_prob": (rows,), "x": data, "sample_log_prob": (rows,)}


def _require_shapes(
    path: Path, arrays: Mapping[str, NDArray[Any]], expected: Mapping[str, tuple[int, ...]]
) -> None:
    got = {name: array.shape for name, array in arrays.items()}
    if got != expected or 0 in got["log_prob"]:
        raise NotCertified(f"{path}: expected rows of shapes {expected}, got {got}")
