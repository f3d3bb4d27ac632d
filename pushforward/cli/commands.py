"""The table of subcommands: what the help says of each, and the extras of which it needs one."""

from collections.abc import Sequence
from typing import NamedTuple


class Command(NamedTuple):
    """A subcommand as it is known before it is imported.

    summary: the first line of the command's own help (a test compares).
    extras: each of them holds all that the command imports.
    """

    summary: str
    extras: tuple[str, ...]


_TORCH = ("cpu", "gpu")

COMMANDS = {
    # Models with certified graphs need no torch; of others the server says that they do.
    "serve": Command("Serve models over HTTP.", (*_TORCH, "onnx")),
    "inspect": Command(
        "Show what a model folder holds and whether it reproduces itself.", (*_TORCH, "onnx")
    ),
    "push": Command(
        "Push a model folder to a URI: validated, with digests, the index last.", (*_TORCH, "onnx")
    ),
    "train": Command(
        "Train a flow by maximum likelihood and write it as a model folder.", ("train",)
    ),
    "evaluate": Command(
        "Score data with a model: likelihood, float32 error, round trip, and AUROC of anomalies.",
        (*_TORCH, "train"),
    ),
    "calibrate": Command(
        "Calibrate anomaly scores on held-out rows, so that a false-alarm rate can be asked for.",
        (*_TORCH, "onnx"),
    ),
    "score": Command("Score files of rows for anomalies, without a server.", (*_TORCH, "onnx")),
    "log-prob": Command(
        "Compute the log-density of files of rows, in nats, without a server.", (*_TORCH, "onnx")
    ),
    "encode": Command("Map files of rows to latents, without a server.", (*_TORCH, "onnx")),
    "decode": Command("Map files of latents to data, without a server.", (*_TORCH, "onnx")),
    "sample": Command("Draw samples into a file, without a server.", (*_TORCH, "onnx")),
    "families": Command(
        "List the families of flows and when to take which, or the arguments of one.",
        (*_TORCH, "train"),
    ),
    "client": Command(
        "Ask a running server: sample, log-prob, score, encode, decode, or any operation by call.",
        ("cli",),
    ),
    "bench": Command(
        "Measure how many requests a server answers in a second, and how fast.",
        ("bench", *_TORCH, "onnx"),
    ),
    "export": Command(
        "Write encode.onnx and decode.onnx of a model, certified against float64 torch.", _TORCH
    ),
    "import": Command(
        "Turn a checkpoint of public code into a model folder with the same likelihood.", _TORCH
    ),
}


def find_command(arguments: Sequence[str]) -> str | None:
    """The subcommand that the arguments name, if any."""
    return next((argument for argument in arguments if argument in COMMANDS), None)
