"""Every stored checkpoint gives the numbers that the code that made it computed of it."""

import math

import pytest
import torch
from torch import Tensor

from models.importers.registry import NAMES as SOURCES
from models.importers.report import ImportRefused
from tests.models.importers.golden import NAMES, Golden, load, relative_error

# One process for all: what they share takes longer to make than they take.
pytestmark = pytest.mark.xdist_group("golden")

# What cannot be imported, and why the import says so.
REFUSED = {
    "y0ast_shuffle": "cannot be recovered",
}
IMPORTED = [name for name in NAMES if name not in REFUSED]
# Rounding of float64, as errors relative to max(1, |value|).
TOLERANCE = 1e-11
# The references of continuous flows are solves too: how far from the integral each of them is.
# Those of SELU jump with its slope, those of zuko's CNF hold its trace to 100 times its tolerance.
SOLVED = {
    # Counts the determinants of rounded rotations as 1, see test_freia.py.
    "freia_allinone_sigmoid_soft": 1e-7,
    "ffjord": 5e-8,
    "sbi_zuko_cnf": 5e-6,
    "torchcfm": 2e-4,
    "zuko_cnf": 5e-8,
    "zuko_cnf_a": 5e-6,
}
SOLVED_ROWS = 8  # of continuous flows, the rows near the data


def tolerance(name: str) -> float:
    fitting = [start for start in SOLVED if name.startswith(start)]
    return SOLVED[max(fitting, key=len)] if fitting else TOLERANCE


def rows(case: Golden) -> slice:
    return slice(SOLVED_ROWS if tolerance(case.name) > TOLERANCE else None)


def is_standard(case: Golden) -> bool:
    """Whether the source's own latents are N(0, I): elsewhere ours are standardised."""
    z, log_base = case.arrays.get("z"), case.arrays.get("log_base")
    if z is None or log_base is None:
        return z is not None
    normal = -0.5 * (z.square() + math.log(2 * math.pi)).flatten(1).sum(1)
    return torch.allclose(normal, log_base, rtol=1e-9)


def noise(case: Golden) -> Tensor | None:
    if "eps_gen" in case.arrays:
        return case.arrays["eps_gen"]
    return case.arrays.get("z_gen") if is_standard(case) else None


# Sources that search for their samples by bisection: where from, how far, and to which error.
SEARCHED = ("zuko_bpf", "zuko_gf", "zuko_naf", "zuko_sospf", "zuko_unaf")
SEARCHED_RANGE, SEARCHED_ERROR = 9.0, 1e-4
LATENTS = [name for name in IMPORTED if is_standard(load(name))]
SAMPLES = [
    name for name in IMPORTED if "x_gen" in load(name).arrays and noise(load(name)) is not None
]


@pytest.mark.parametrize("name", IMPORTED)
@torch.no_grad()
def test_log_prob_is_the_sources(name: str) -> None:
    case = load(name)
    x = case.arrays["x"][rows(case)]
    log_prob = case.flow().log_prob(x, case.context(len(x)))
    assert relative_error(log_prob, case.arrays["log_prob"][rows(case)]) <= tolerance(name)


@pytest.mark.parametrize("name", LATENTS)
@torch.no_grad()
def test_latents_are_the_sources(name: str) -> None:
    case = load(name)
    x = case.arrays["x"][rows(case)]
    z, log_det = case.flow().encode(x, case.context(len(x)))
    assert relative_error(z, case.arrays["z"][rows(case)]) <= tolerance(name)
    if "log_det" in case.arrays:
        expected = case.arrays["log_det"][rows(case)]
        assert relative_error(log_det, expected) <= tolerance(name)


@pytest.mark.parametrize("name", SAMPLES)
@torch.no_grad()
def test_samples_are_the_sources(name: str) -> None:
    case = load(name)
    z = noise(case)
    assert z is not None
    x, _ = case.flow().decode(z, case.context(len(z)))
    expected = case.arrays["x_gen"]
    if name.startswith(SEARCHED):
        # Beyond the range, and for latents that no data have, the search ends at the border.
        found = (x.abs() < SEARCHED_RANGE).all(1) & (expected.abs() < SEARCHED_RANGE).all(1)
        assert found.sum() >= 2
        assert relative_error(x[found], expected[found]) <= SEARCHED_ERROR
        context = case.context(len(z))
        again, _ = case.flow().encode(x[found], None if context is None else context[found])
        assert relative_error(again, z[found]) <= TOLERANCE
        return
    assert relative_error(x, expected) <= tolerance(name)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_imported_is_refused(name: str) -> None:
    with pytest.raises(ImportRefused, match=REFUSED[name]):
        load(name).flow()


def test_every_source_has_a_case_with_numbers() -> None:
    found = {load(name).report().source for name in IMPORTED}
    assert found == set(SOURCES)
