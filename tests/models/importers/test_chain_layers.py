"""What the layouts of flows over vectors read off the shapes of a network."""

import pytest

from models.importers.layouts.chain_layers import spline_bins
from tests.models.importers.golden import load


@pytest.mark.parametrize(
    ("num_parameters", "bins"), [(5, 2), (8, 3), (23, 8), (2, None), (6, None), (7, None)]
)
def test_a_spline_of_k_bins_has_3_k_minus_1_parameters(
    num_parameters: int, bins: int | None
) -> None:
    assert spline_bins(num_parameters) == bins


def test_linear_maps_of_nflows_keep_their_reflections() -> None:
    layers = load("nflows_reflections").flow().config["layers"]
    found = [
        (layer["matrix"], layer["num_reflections"]) for layer in layers if layer["kind"] == "linear"
    ]
    # The SVD inside an InverseTransform is multiplied out.
    assert found == [
        *(("qr", 2), ("svd", 4), ("householder", 3)),
        *(("plain", None), ("householder", 2), ("qr", 5)),
    ]
