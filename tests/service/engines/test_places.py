"""Equal bits at every place of a batch are claimed where they were found."""

import logging
from typing import Any

import numpy as np
import pytest

from service.contracts import Array, EngineOutput
from service.engines.places import has_same_bits_everywhere, prove_places
from service.engines.selection import EngineSelection

ROWS = 6
RECORD = {
    "x": np.linspace(-1, 1, 10).reshape(5, 2),
    "z": np.linspace(0, 3, 10).reshape(5, 2),
    "context": np.linspace(2, 4, 5).reshape(5, 1),
}


class Doubling:
    """Doubles; the last bit of a row that a fault names is another one."""

    name, device, dtype = "torch", "cpu", "float32"

    def __init__(self, fault: str = "", direction: str = "encode") -> None:
        self.fault = fault
        self.direction = direction

    def _run(self, rows: Array, context: Array | None, direction: str) -> EngineOutput:
        value, log_det = 2 * rows, rows.sum(1)
        if context is not None:
            log_det = log_det + context[:, 0]
        if direction == self.direction:
            value = value.copy()
            if self.fault == "last place":
                value[-1] = np.nextafter(value[-1], np.float32(9))
            elif self.fault == "neighbours" and (rows != rows[0]).any():
                value[2] = np.nextafter(value[2], np.float32(9))
            elif self.fault == "log-det":
                log_det[0] = np.nextafter(log_det[0], np.float32(9))
            elif self.fault == "minus zero":
                value[:], value[1] = 0.0, -0.0
            elif self.fault == "NaN everywhere":
                value[:] = np.nan
        return value, log_det

    def encode(self, x: Array, context: Array | None) -> EngineOutput:
        return self._run(x, context, "encode")

    def decode(self, z: Array, context: Array | None) -> EngineOutput:
        return self._run(z, context, "decode")

    generate: Any = decode


@pytest.mark.parametrize("direction", ["encode", "decode"])
@pytest.mark.parametrize("fault", ["last place", "neighbours", "log-det", "minus zero"])
def test_a_row_whose_place_or_neighbours_matter_is_found(fault: str, direction: str) -> None:
    assert not has_same_bits_everywhere(Doubling(fault, direction), RECORD, ROWS)


@pytest.mark.parametrize("fault", ["", "NaN everywhere"])
def test_equal_bits_are_equal(fault: str) -> None:
    assert has_same_bits_everywhere(Doubling(fault), RECORD, ROWS)
    assert has_same_bits_everywhere(Doubling(fault), RECORD, 1)
    plain = {name: rows for name, rows in RECORD.items() if name != "context"}
    assert has_same_bits_everywhere(Doubling(fault), plain, ROWS)


def test_a_claim_that_does_not_hold_is_taken_back(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        held = prove_places(EngineSelection(Doubling()), RECORD, ROWS, "moons")
        broken = prove_places(EngineSelection(Doubling("last place")), RECORD, ROWS, "moons")
    assert (held.is_neighbour_invariant, broken.is_neighbour_invariant) == (True, False)
    (line,) = caplog.messages
    assert "moons" in line
    assert "batches of 6 rows" in line
    assert "--max-batch-size 32" in line
    caplog.clear()
    prove_places(EngineSelection(Doubling("last place")), RECORD, 32, "moons")
    (line,) = caplog.messages
    assert "MKL_CBWR" in line, "the size is that already"


def test_what_is_certain_or_was_never_claimed_is_not_tried() -> None:
    certain = EngineSelection(Doubling("last place"), is_batch_invariant=True)
    unclaimed = EngineSelection(Doubling("last place"), is_neighbour_invariant=False)
    assert prove_places(certain, RECORD, ROWS, "moons") is certain
    assert prove_places(unclaimed, RECORD, ROWS, "moons") is unclaimed
