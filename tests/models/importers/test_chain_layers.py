"""What the layouts of flows over vectors read off the shapes of a network."""

import pytest

from models.importers.layouts.chain_layers import spline_bins


@pytest.mark.parametrize(
    ("num_parameters", "bins"), [(5, 2), (8, 3), (23, 8), (2, None), (6, None), (7, None)]
)
def test_a_spline_of_k_bins_has_3_k_minus_1_parameters(
    num_parameters: int, bins: int | None
) -> None:
    assert spline_bins(num_parameters) == bins
