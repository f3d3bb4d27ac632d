"""The exports in a model folder: read, checked, and known to be of this very model."""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.checkpoints.files import check_regular
from models.checkpoints.manifest import WEIGHTS_FILE
from models.onnx.names import (
    CERTIFICATE_FILE,
    DECODE_FILE,
    DIGESTS,
    ENCODE_FILE,
    GENERATE_FILE,
    architecture_digest,
)
from models.onnx.validate import GraphRefused, Signature, read_graph

if TYPE_CHECKING:
    from models.flow import Flow
    from models.onnx.graphs import Graphs

# How large a graph may be: its constants are the weights, in another precision or folded, and once
# a block of fixed steps.
_PER_WEIGHT = 16
_FREE_BYTES = 64 * 2**20
MAX_CERTIFICATE_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class SerialisedExport:
    """Graphs as bytes, and their certificate as JSON holds it; see `models.onnx.graphs.Graphs`."""

    encode: bytes
    decode: bytes
    generate: bytes | None
    certificate: dict[str, Any]

    @classmethod
    def of(cls, graphs: "Graphs", certificate: dict[str, Any]) -> "SerialisedExport":
        """From an export that was just made."""
        return cls(
            graphs.encode.SerializeToString(),
            graphs.decode.SerializeToString(),
            None if graphs.generate is None else graphs.generate.SerializeToString(),
            certificate,
        )


def has_export(folder: Path) -> bool:
    """Whether graphs lie in a model folder, usable or not."""
    return (folder / ENCODE_FILE).exists() or (folder / DECODE_FILE).exists()


@dataclass(frozen=True, slots=True)
class ExportIdentity:
    """The model that graphs must be of, by digests and shapes."""

    family: str
    config_sha256: str
    weights_sha256: str
    event_shape: tuple[int, ...]
    context_shape: tuple[int, ...] | None
    is_continuous: bool
    counts_evaluations: bool

    @property
    def signatures(self) -> dict[str, Signature]:
        """What each graph takes and gives, by file name."""
        context = {} if self.context_shape is None else {"context": self.context_shape}
        data, latent = self.event_shape, (math.prod(self.event_shape),)
        counts: dict[str, tuple[int, ...]] = {}
        if self.counts_evaluations:
            counts = {"status": (), "evaluations": ()}
        encoded, decoded = {"z": latent, "log_det": (), "log_prob": ()}, {"x": data, "log_det": ()}
        two = {
            ENCODE_FILE: Signature({"x": data} | context, encoded | counts),
            DECODE_FILE: Signature({"z": latent} | context, decoded | counts),
        }
        if not self.is_continuous:
            return two
        return two | {GENERATE_FILE: Signature({"z": latent} | context, {"x": data} | counts)}


def read_export(folder: Path, flow: "Flow", weights_digest: str) -> SerialisedExport:
    """Read the graphs of a model folder.

    Args:
        folder: holds encode.onnx, decode.onnx and, of a continuous flow, generate.onnx.
        flow: as loaded from the folder.
        weights_digest: of its weights file.

    Raises:
        GraphRefused: if a graph is missing, not made here, of another model or of other weights.
    """
    from models.ode.transform import is_continuous
    from models.transforms.transform import counts_evaluations

    identity = ExportIdentity(
        family=flow.family,
        config_sha256=architecture_digest(flow.family, flow.config),
        weights_sha256=weights_digest,
        event_shape=flow.event_shape,
        context_shape=flow.context_shape,
        is_continuous=is_continuous(flow),
        counts_evaluations=counts_evaluations(flow),
    )
    return read_graphs(folder, identity)


def read_graphs(folder: Path, identity: ExportIdentity) -> SerialisedExport:
    """Read the graphs of a model folder, as `read_export` does, without its flow."""
    most = _FREE_BYTES + _PER_WEIGHT * (folder / WEIGHTS_FILE).stat().st_size
    found: dict[str, tuple[bytes, dict[str, str]]] = {}
    for name, signature in identity.signatures.items():
        path = folder / name
        found[name] = read_graph(path, signature, most)
        _check_origin(path, found[name][1], identity)
    contents = {name: content for name, (content, _) in found.items()}
    facts = found[ENCODE_FILE][1]
    for name, (_, others) in found.items():
        if facts != others:
            raise GraphRefused(f"{folder}: {ENCODE_FILE} and {name} are of two exports")
    certificate = _read_certificate(folder, facts, contents)
    generate = contents.get(GENERATE_FILE)
    return SerialisedExport(contents[ENCODE_FILE], contents[DECODE_FILE], generate, certificate)


def _read_certificate(
    folder: Path, facts: dict[str, str], contents: dict[str, bytes]
) -> dict[str, Any]:
    """The certificate in the graphs, with the digests beside them that they must have."""
    try:
        certificate: dict[str, Any] = json.loads(facts["certificate"])
    except (KeyError, ValueError):
        raise GraphRefused(f"{folder / ENCODE_FILE}: expected a certificate, got none") from None
    digests = _read_digests(folder / CERTIFICATE_FILE)
    if digests is None:
        return certificate
    for name, content in contents.items():
        if digests.get(name) != hashlib.sha256(content).hexdigest():
            raise GraphRefused(
                f"{folder / name}: its SHA-256 is not that in {CERTIFICATE_FILE}: it is not "
                "what was certified; export the model again"
            )
    return {**certificate, DIGESTS: digests}


def _read_digests(path: Path) -> dict[str, str] | None:
    """The digests of the graphs; None in a folder of before there were any.

    Raises:
        GraphRefused: what stands there is no certificate.
    """
    if not path.exists():
        return None
    try:
        check_regular(path, MAX_CERTIFICATE_BYTES)
        facts = json.loads(path.read_text("utf-8"))
        digests = facts.get(DIGESTS)
    except (OSError, ValueError, AttributeError) as error:
        raise GraphRefused(f"{path}: cannot be read as a certificate: {error}") from None
    if digests is not None and not isinstance(digests, dict):
        raise GraphRefused(f"{path}: {DIGESTS}: expected an object of digests")
    return digests


def _check_origin(path: Path, facts: dict[str, str], identity: ExportIdentity) -> None:
    for name in ("family", "config_sha256", "weights_sha256"):
        wanted, got = getattr(identity, name), facts.get(name, "none")
        if got != wanted:
            raise GraphRefused(
                f"{path}: {name}: expected {wanted}, got {got}; it was exported from another model "
                "or other weights: export it again"
            )
