"""Imports that are told how to invert autoregressive maps: the same numbers, and counted passes."""

from pathlib import Path

import pytest
import torch

from models.importers.report import ImportRefused
from models.importers.run import import_checkpoint, read_config
from models.noise import base_noise
from models.transforms.transform import counts_evaluations

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"


@pytest.mark.parametrize("name", ["nflows/maf_a", "zuko/maf_a"])
def test_an_imported_maf_is_decoded_by_fixed_point_iteration(name: str) -> None:
    folder = FIXTURES / name
    given = read_config(folder / "config.json")
    plain = import_checkpoint(folder / "flow.pt", config=given)
    jacobi = import_checkpoint(folder / "flow.pt", config=given, decoding="jacobi")
    z = torch.from_numpy(base_noise(5, plain.features, seed=0))
    context = None
    if plain.context_shape is not None:
        context = torch.from_numpy(base_noise(5, *plain.context_shape, seed=1))
    assert counts_evaluations(jacobi)
    assert not counts_evaluations(plain)
    for got, wanted in zip(jacobi.decode(z, context), plain.decode(z, context), strict=True):
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("name", ["nflows/realnvp_a", "nflows/nsf_coupling_a"])
def test_a_flow_without_autoregressive_maps_is_refused(name: str) -> None:
    folder = FIXTURES / name
    given = read_config(folder / "config.json")
    with pytest.raises(ImportRefused, match="decoding: expected a flow with autoregressive maps"):
        import_checkpoint(folder / "flow.pt", config=given, decoding="jacobi")
