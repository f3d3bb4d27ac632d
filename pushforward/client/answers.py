"""What calls give: arrays with the model and version that made them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx
import numpy as np

from pushforward.client import wire
from pushforward.client.wire import Array


class Scores(NamedTuple):
    """log_prob (B,) in nats, with the model and version that made them."""

    log_prob: Array
    model: str
    version: str


class Encoded(NamedTuple):
    """z (B, D) and log |det dz/dx| (B,) in nats, with the model and version that made them."""

    z: Array
    log_det: Array
    model: str
    version: str


class Decoded(NamedTuple):
    """x (B, *event_shape) and log |det dx/dz| (B,) in nats, with the model and its version."""

    x: Array
    log_det: Array
    model: str
    version: str


class Samples(NamedTuple):
    """x (B, *event_shape), its log_prob (B,) in nats at T = 1, and the seed that draws it again."""

    x: Array
    log_prob: Array
    seed: int
    model: str
    version: str


@dataclass(frozen=True, slots=True)
class RowOutputs:
    """The outputs of an answer: arrays of rows, and the status of each row where one failed.

    said: what else is answered, by name.
    """

    arrays: Mapping[str, Array]
    status: Array | None
    model: str
    version: str
    said: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))


def read_outputs(
    response: httpx.Response,
    names: Sequence[str],
    optional: Sequence[str] = (),
    scalars: Sequence[str] = (),
) -> RowOutputs:
    """Read arrays of these names: from npz, or one alone from npy, which has no status of rows.

    Args:
        response: the answer.
        names: of the arrays.
        optional: of arrays that it may have.
        scalars: of what is no array of rows, that it may have.

    Raises:
        UnreadableAnswer: it is neither, or lacks one.
    """
    origin = wire.read_origin(response)
    if len(names) == 1 and response.headers.get("content-type") != wire.NPZ:
        return RowOutputs({names[0]: wire.read_npy(response)}, None, *origin)
    arrays = wire.read_npz(response, *names, optional=(*optional, *scalars, "status"))
    said = {name: arrays.pop(name) for name in scalars if name in arrays}
    return RowOutputs(arrays, arrays.pop("status", None), *origin, said)


def join(answers: Sequence[RowOutputs]) -> RowOutputs:
    """Join the answers of the pieces of a call, in their order."""
    first = answers[0]
    if len(answers) == 1:
        return first
    arrays = {name: np.concatenate([one.arrays[name] for one in answers]) for name in first.arrays}
    status = None
    if any(one.status is not None for one in answers):
        status = np.concatenate([_status(one) for one in answers])
    return RowOutputs(arrays, status, first.model, first.version, first.said)


def _status(answer: RowOutputs) -> Array:
    none: Array = np.zeros(len(answer), np.int64)
    return none if answer.status is None else answer.status


def read_samples(response: httpx.Response) -> tuple[RowOutputs, int]:
    """Read a draw, and the seed of it."""
    answer = read_outputs(response, ("x", "log_prob", "seed"))
    arrays: dict[str, Any] = dict(answer.arrays)
    seed = int(arrays.pop("seed"))
    return RowOutputs(arrays, answer.status, answer.model, answer.version), seed
