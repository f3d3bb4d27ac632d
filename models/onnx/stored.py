"""The exports in a model folder: read, checked, and known to be of this very model."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.flow import Flow
from models.onnx.export import DECODE_FILE, ENCODE_FILE, GENERATE_FILE, Export, config_digest
from models.onnx.gate import GraphRefused, Signature, read_graph
from models.transforms.ode import is_continuous


@dataclass(frozen=True, slots=True)
class SerialisedExport:
    """Graphs as bytes, and their certificate as JSON holds it; see `models.onnx.graphs.Graphs`."""

    encode: bytes
    decode: bytes
    generate: bytes | None
    certificate: dict[str, Any]

    @classmethod
    def of(cls, export: Export) -> "SerialisedExport":
        """From an export that was just made."""
        graphs = export.graphs
        return cls(
            graphs.encode.SerializeToString(),
            graphs.decode.SerializeToString(),
            None if graphs.generate is None else graphs.generate.SerializeToString(),
            export.certificate.describe(),
        )


def has_export(folder: Path) -> bool:
    """Whether graphs lie in a model folder, usable or not."""
    return (folder / ENCODE_FILE).exists() or (folder / DECODE_FILE).exists()


def read_export(folder: Path, flow: Flow, weights_digest: str) -> SerialisedExport:
    """Read the graphs of a model folder.

    Args:
        folder: holds encode.onnx, decode.onnx and, of a continuous flow, generate.onnx.
        flow: as loaded from the folder.
        weights_digest: of its weights file.

    Raises:
        GraphRefused: if a graph is missing, not made here, of another model or of other weights.
    """
    told = {"status": (), "evaluations": ()} if is_continuous(flow) else {}
    context = {} if flow.context_shape is None else {"context": flow.context_shape}
    data, latent = flow.event_shape, (flow.features,)
    signatures = {
        ENCODE_FILE: Signature(
            {"x": data} | context, {"z": latent, "log_det": (), "log_prob": ()} | told
        ),
        DECODE_FILE: Signature({"z": latent} | context, {"x": data, "log_det": ()} | told),
    }
    if told:
        signatures[GENERATE_FILE] = Signature({"z": latent} | context, {"x": data} | told)
    found: dict[str, tuple[bytes, dict[str, str]]] = {}
    for name, signature in signatures.items():
        path = folder / name
        found[name] = read_graph(path, signature)
        _check_origin(path, found[name][1], flow, weights_digest)
    facts = found[ENCODE_FILE][1]
    for name, (_, others) in found.items():
        if facts != others:
            raise GraphRefused(f"{folder}: {ENCODE_FILE} and {name} are of two exports")
    try:
        certificate = json.loads(facts["certificate"])
    except (KeyError, ValueError):
        raise GraphRefused(f"{folder / ENCODE_FILE}: expected a certificate, got none") from None
    generate = found[GENERATE_FILE][0] if told else None
    return SerialisedExport(found[ENCODE_FILE][0], found[DECODE_FILE][0], generate, certificate)


def _check_origin(path: Path, facts: dict[str, str], flow: Flow, weights_digest: str) -> None:
    expected = {
        "family": flow.family,
        "config_sha256": config_digest(flow),
        "weights_sha256": weights_digest,
    }
    for name, wanted in expected.items():
        got = facts.get(name, "none")
        if got != wanted:
            raise GraphRefused(
                f"{path}: {name}: expected {wanted}, got {got}; it was exported from another model "
                "or other weights: export it again"
            )
