"""Loops over rows: run and recorded they do the same, to the rows that go on and to no others."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.ode.while_loop import ACTIVE_ROWS, Carry, repeat, repeat_while_any
from models.onnx.graph import Graph, UnsupportedOperator
from models.onnx.runtime import open_session
from models.onnx.trace import trace

ROWS = 2 * ACTIVE_ROWS + 5


class Halve(nn.Module):
    """Halves x (B, 1) until it is below `limit` (B, 1), and counts."""

    def __init__(self, *, given: bool = True) -> None:
        super().__init__()
        self.given = given

    def forward(self, x: Tensor, limit: Tensor) -> dict[str, Tensor]:
        def body(carry: Carry, given: Carry) -> Carry:
            goes_on, x, count = carry
            (bound,) = given or (limit,)
            x = torch.where(goes_on, x / 2, x)
            return x >= bound, x, torch.where(goes_on, count + 1, count)

        start = (x >= limit, x, torch.zeros_like(x))
        _, halved, count = repeat_while_any(body, start, (limit,) if self.given else ())
        return {"halved": halved, "count": count}


def rows() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(ROWS, 1, generator=generator) * 1000
    return x, 1 + torch.arange(ROWS)[:, None] % 3


def session() -> Any:
    graph = Graph("halve", 20)
    outputs = trace(Halve(), {"x": (1,), "limit": (1,)}, torch.float32, graph)
    return open_session(graph.model(outputs).SerializeToString())


def expected(x: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
    count = (torch.floor(torch.log2(x / limit)) + 1).clamp(min=0)
    return x / 2**count, count


@pytest.mark.parametrize("number", [1, 2, ACTIVE_ROWS, ROWS])
def test_run_and_recorded_do_the_same(number: int) -> None:
    x, limit = (part[-number:].float() for part in rows())
    halved, count = expected(x, limit)
    ran = Halve()(x, limit)
    got = session().run(["halved", "count"], {"x": x.numpy(), "limit": limit.numpy()})
    for a, b, wanted in zip(ran.values(), got, (halved, count), strict=True):
        assert torch.equal(a, wanted)
        assert torch.equal(torch.from_numpy(b), wanted)


def test_nothing_is_done_where_no_row_goes_on() -> None:
    x, limit = torch.tensor([[0.5]]), torch.tensor([[1.0]])
    assert Halve()(x, limit)["count"].item() == 0
    got = session().run(["count"], {"x": x.numpy(), "limit": limit.numpy()})
    assert got[0].item() == 0


def test_rows_that_are_not_given_are_refused() -> None:
    graph = Graph("halve", 20)
    with pytest.raises(UnsupportedOperator, match="rows from outside the loop"):
        trace(Halve(given=False), {"x": (1,), "limit": (1,)}, torch.float32, graph)


class Horner(nn.Module):
    """A polynomial in x (B, 1), a turn a coefficient (B, N)."""

    def forward(self, x: Tensor, coefficients: Tensor) -> dict[str, Tensor]:
        def turn(number: Tensor, carry: Carry, given: Carry) -> Carry:
            (total,) = carry
            x, coefficients = given
            return (total * x + coefficients.index_select(1, number),)

        given = (x, coefficients)
        (total,) = repeat(turn, (torch.zeros_like(x),), given, coefficients.shape[1])
        return {"total": total}


@pytest.mark.parametrize("number", [1, ROWS])
def test_a_loop_of_so_many_turns_run_and_recorded_does_the_same(number: int) -> None:
    x = torch.linspace(-1, 1, number)[:, None]
    coefficients = torch.arange(number * 3.0).reshape(number, 3)
    ran = Horner()(x, coefficients)["total"]
    assert torch.equal(
        ran, (coefficients[:, :1] * x + coefficients[:, 1:2]) * x + coefficients[:, 2:]
    )
    graph = Graph("horner", 20)
    outputs = trace(Horner(), {"x": (1,), "coefficients": (3,)}, torch.float32, graph)
    horner = open_session(graph.model(outputs).SerializeToString())
    (got,) = horner.run(["total"], {"x": x.numpy(), "coefficients": coefficients.numpy()})
    assert torch.equal(torch.from_numpy(got), ran)


def test_a_loop_of_no_turns_leaves_what_it_carries() -> None:
    x, none = torch.rand(2, 1), torch.zeros(2, 0)
    assert torch.equal(Horner()(x, none)["total"], torch.zeros_like(x))
    graph = Graph("horner", 20)
    outputs = trace(Horner(), {"x": (1,), "coefficients": (0,)}, torch.float32, graph)
    horner = open_session(graph.model(outputs).SerializeToString())
    (got,) = horner.run(["total"], {"x": x.numpy(), "coefficients": none.numpy()})
    assert torch.equal(torch.from_numpy(got), torch.zeros_like(x))
