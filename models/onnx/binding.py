"""The binding of graphs to a model folder: what serving it without torch needs beside them."""

import hashlib
from dataclasses import dataclass

from safetensors.numpy import save

from models.checkpoints.facts import facts_of
from models.checkpoints.files import sha256
from models.checkpoints.folder import (
    GOLDEN_FILE,
    Checkpoint,
    digest,
    read_manifest,
)
from models.onnx.certified import CertifiedFacts
from models.onnx.names import manifest_digest
from models.onnx.replay import ReplayRows, exact_answers


@dataclass(frozen=True, slots=True)
class Binding:
    """What `models.onnx.certified.read_certified` reads, beside the graphs.

    facts: of the model, for the certificate. answers: the content of answers.safetensors.
    """

    facts: CertifiedFacts
    answers: bytes


def bind(checkpoint: Checkpoint, precision: str) -> Binding | None:
    """Write down what serving a model folder by its graphs needs to know of it.

    Args:
        checkpoint: the folder, loaded as it would be served by torch.
        precision: "float32" or "float64", of what the graphs take and give.

    Returns:
        None where the model could not be loaded in that precision: it is not served in it.
    """
    flow = checkpoint.flow
    if precision != str(flow.dtype).removeprefix("torch."):
        return None
    folder, facts = checkpoint.folder, facts_of(flow)
    manifest = read_manifest(folder)
    record = {name: tensor.numpy() for name, tensor in checkpoint.record.items()}
    wanted = exact_answers(checkpoint.exact, ReplayRows.of(record, precision))
    answers = bytes(save(wanted._asdict()))
    return Binding(
        CertifiedFacts(
            manifest_sha256=manifest_digest(manifest),
            weights_sha256=digest(folder),
            golden_sha256=sha256(folder / GOLDEN_FILE),
            answers_sha256=hashlib.sha256(answers).hexdigest(),
            dtype="float64" if flow.needs_float64 else manifest.dtype,
            config=None if flow.config == manifest.config else dict(flow.config),
            num_classes=facts.num_classes,
            num_levels=facts.num_levels,
            discrete=facts.discrete,
            support=facts.support,
            num_parameters=facts.num_parameters,
            is_continuous=facts.is_continuous,
            counts_evaluations=facts.counts_evaluations,
            accuracy=facts.accuracy,
        ),
        answers,
    )
