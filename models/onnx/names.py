"""The files of an export beside a model's weights, and what they are bound to it by; no torch."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from models.checkpoints.manifest import Manifest

ENCODE_FILE = "encode.onnx"
DECODE_FILE = "decode.onnx"
GENERATE_FILE = "generate.onnx"
CERTIFICATE_FILE = "certificate.json"
# What the flow answers in float64 to the golden rows as the graphs take them, rounded.
ANSWERS_FILE = "answers.safetensors"
# The keys in the certificate that hold the digest of each graph (file name -> SHA-256 in hex), and
# the facts of the model (`models.onnx.certified.CertifiedFacts`).
DIGESTS = "graphs_sha256"
MODEL = "model"

# What onnx 1.16 and onnxruntime 1.17 (both of 2024) and everything since can read.
DEFAULT_OPSET = 20
MIN_OPSET = 18
MAX_OPSET = 23


# Arguments of a family that came later, with what flows of before have: graphs exported before are
# of the same flows still.
_CAME_LATER: Mapping[str, Any] = {
    "centred": False,
    "context_embedding": [],
    "num_reflections": None,
    "decoding": "sequential",
    "circular": [],
}


def architecture_digest(family: str, config: Mapping[str, Any]) -> str:
    """SHA-256 of family and config in canonical JSON, in hex."""
    return _digest([family, _as_before(config)])


def _as_before(value: Any) -> Any:
    """A configuration without arguments that came later and change nothing, however deep."""
    if isinstance(value, Mapping):
        return {
            name: _as_before(part)
            for name, part in value.items()
            if name not in _CAME_LATER or part != _CAME_LATER[name]
        }
    if isinstance(value, list | tuple):
        return [_as_before(part) for part in value]
    return value


def manifest_digest(manifest: Manifest) -> str:
    """SHA-256 of all of config.json that says what is computed, in canonical JSON, in hex."""
    facts = manifest.model_dump(mode="json")
    return _digest({name: facts[name] for name in facts if name not in ("provenance", "accuracy")})


def _digest(facts: Any) -> str:
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
