"""Matrix products of torch on a CPU: a row has the same bits at every place of a batch."""

import os
import subprocess
import sys

import pytest
import torch

import models


@pytest.mark.parametrize("rows", [2, 3, 8, 32])
@pytest.mark.parametrize(("inputs", "outputs"), [(2, 8), (3, 3), (10, 2), (10, 20), (64, 64)])
def test_a_row_has_the_same_bits_at_every_place(inputs: int, outputs: int, rows: int) -> None:
    """10 inputs tell: there AMD's processors round by the place, without what `models` sets."""
    assert models.__all__
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(outputs, inputs, generator=generator), torch.ones(outputs)
    x = torch.randn(rows, inputs, generator=generator)
    expected = torch.nn.functional.linear(x, weight, bias)
    for shift in range(1, rows):
        found = torch.nn.functional.linear(x.roll(shift, 0), weight, bias)
        assert torch.equal(found.roll(-shift, 0), expected)


@pytest.mark.parametrize(("given", "expected"), [(None, "AUTO"), ("COMPATIBLE", "COMPATIBLE")])
def test_what_the_user_has_set_stays(given: str | None, expected: str) -> None:
    kept = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    variables = kept | ({"MKL_CBWR": given} if given else {})
    code = "import os, models; print(os.environ['MKL_CBWR'])"
    told = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == expected
