"""Sums over a row: aligned rows where a GPU would see their addresses, plain sums elsewhere."""

import ast
from pathlib import Path

import pytest
import torch

from models.row_sum import ALIGNED_VALUES, LONG_ROW, aligned_rows, event_sum, is_unaligned, row_sum
from models.transforms.transform import sum_event

ROOT = Path(__file__).resolve().parents[2]
# Widths that are no multiple of a vector, beyond what is summed without one.
WIDTHS = (131, 258)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", WIDTHS)
def test_aligned_rows_begin_at_equal_addresses_and_sum_to_the_same(
    width: int, dtype: torch.dtype
) -> None:
    values = torch.randn(7, width, dtype=dtype)
    padded = aligned_rows(values)
    assert padded.is_contiguous()
    assert padded.stride(0) * padded.element_size() % 64 == 0  # twice the widest vector
    assert width <= padded.shape[1] < width + ALIGNED_VALUES
    assert torch.equal(padded[:, :width], values)
    assert not padded[:, width:].any()


@pytest.mark.parametrize(
    ("width", "strides", "expected"),
    [
        (LONG_ROW - 1, (LONG_ROW - 1,), False),  # short rows are added one by one
        (3072, (3072,), False),
        (131, (131,), True),
        (258, (258,), True),
        (3072, (3075,), True),  # of a slice
        (144, (0,), False),  # one row for all
        (144, (288, 144), False),
        (144, (300, 150), True),
    ],
)
def test_rows_are_aligned_where_their_order_would_differ(
    width: int, strides: tuple[int, ...], expected: bool
) -> None:
    assert is_unaligned(width, strides) is expected


@pytest.mark.parametrize("shape", [(5, LONG_ROW - 1), (5, 131), (2, 3, 131), (4, 2, 3, 43)])
def test_on_a_cpu_it_is_the_plain_sum(shape: tuple[int, ...]) -> None:
    values = torch.randn(shape)
    assert torch.equal(row_sum(values), values.sum(-1))
    dims = tuple(range(1, len(shape)))
    assert torch.equal(event_sum(values), values.sum(dims))
    assert torch.equal(event_sum(values, keepdim=True), values.sum(dims, keepdim=True))
    assert torch.equal(sum_event(values), values.flatten(1).sum(1))


def test_flows_sum_rows_nowhere_else() -> None:
    """What is summed over a row in inference goes through the helper; a list of the rest."""
    allowed = {
        # Over bins of a spline, channels, parameters: no row.
        "models/transforms/spline.py": 1,
        "models/transforms/linear.py": 3,
        "models/transforms/affine.py": 2,
        "models/transforms/transform.py": 1,
        "models/ode/fields/dense.py": 1,
        "models/ode/call.py": 1,
        "models/conditioners/conv.py": 1,
        "models/fold/field.py": 1,
        "models/fold/networks.py": 1,
        "models/fold/incremental.py": 1,
        # Over points of a quadrature, coefficients, squares: no row.
        "models/monotone/polynomial.py": 4,
        # Over features of a weight, patches of a pattern: no row.
        "models/monotone/planar.py": 2,
        "models/families/jet.py": 1,
        # Training alone.
        "models/ode/regularization.py": 2,
    }
    found = {}
    for folder in ("transforms", "conditioners", "monotone", "ode", "fold", "families"):
        for path in sorted((ROOT / "models" / folder).rglob("*.py")):
            sums = sum(
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "sum"
                for node in ast.walk(ast.parse(path.read_text()))
            )
            if sums:
                found[path.relative_to(ROOT).as_posix()] = sums
    assert found == allowed


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", WIDTHS)
def test_on_a_gpu_a_rows_bits_do_not_depend_on_its_position(
    width: int, dtype: torch.dtype, device: str
) -> None:
    row = torch.randn(width, dtype=dtype, device=device)
    for size in (2, 7, 64, 1023):
        rows = row.expand(size, width).contiguous()
        for summed in (row_sum(rows), event_sum(rows), sum_event(rows), row_sum(rows[1:])):
            assert (summed == summed[0]).all()
        among = torch.full((size, width), torch.nan, dtype=dtype, device=device)
        for position in {0, size // 2, size - 1}:
            among[:] = torch.nan
            among[position] = row
            assert torch.equal(row_sum(among)[position], row_sum(rows)[0])
