"""What a description says of a flow is compared with its weights, key by key."""

import re
from typing import Any

import pytest

from models.importers.report import ImportRefused
from models.importers.run import Request, run
from tests.models.importers.golden import NAMES, load

# Description keys, and what is wrong of any case: words of other architectures, wrong numbers.
WRONG: dict[str, Any] = {
    "family": "Xyzzy",
    "D": 99,
    "K": 99,
    "layer": "Xyzzy",
    "base": "Xyzzy",
    "builder": "build_xyzzy",
    "module": "Xyzzy",
    "blocks": "Xyzzy",
    "constructor": "Xyzzy",
    "model": "Xyzzy",
}
DESCRIBED = [name for name in NAMES if WRONG.keys() & load(name).config.keys()]


def importing(name: str, **changes: Any) -> dict[str, str]:
    """Import a golden case by its whole config.json with some of it changed; what was said."""
    case = load(name)
    config = {**case.config, **changes}
    _, report = run(case.checkpoint, Request(None, config, "none"))
    return {item.what: item.detail for item in report.items}


@pytest.mark.parametrize("name", DESCRIBED)
def test_a_wrong_description_is_refused_by_its_key(name: str) -> None:
    config = load(name).config
    for key in WRONG.keys() & config.keys():
        with pytest.raises(ImportRefused) as caught:
            importing(name, **{key: WRONG[key]})
        assert re.search(rf"\b{key}\b", str(caught.value)), key


@pytest.mark.parametrize(
    ("name", "family", "weights"),
    [
        ("nflows_maf_a", "realnvp", "maf"),
        ("nflows_realnvp_a", "maf", "realnvp"),
        ("nflows_nsf_coupling_a", "nsf-ar", "nsf, spline, coupling"),
        ("nflows_nsf_coupling_a", "realnvp", "nsf, spline, coupling"),
        ("zuko_maf_a", "glow", "maf"),
        ("zuko_naf_a", "unaf", "naf"),
        ("normflows_planar_a", "radial", "planar"),
        ("rosinality_glow_a", "realnvp", "glow"),
        ("ffjord_toy_a", "maf", "ffjord"),
    ],
)
def test_another_family_is_refused_with_that_of_the_weights(
    name: str, family: str, weights: str
) -> None:
    with pytest.raises(ImportRefused, match=f'family: "{family}" was given, .* say {weights}'):
        importing(name, family=family)


@pytest.mark.parametrize(
    ("name", "family"),
    [("nflows_maf_a", "MAF (conditional)"), ("nflows_nsf_coupling_a", "NSF coupling, splines")],
)
def test_families_may_be_written_in_other_words(name: str, family: str) -> None:
    assert importing(name, family=family)["family"].startswith("as given")


def test_versions_of_another_layout_are_refused() -> None:
    assert importing("nflows_maf_a", version="0.14")["version"] == "no weight shows it"
    with pytest.raises(ImportRefused, match=r"version: \"0\.10\" .* expected 0\.11 or later"):
        importing("nflows_maf_a", version="0.10")


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("sbi_zuko_nsf_a", {"num_bins": 9}, "num_bins: 9 was given"),
        ("sbi_zuko_maf_a", {"num_transforms": 6}, "num_transforms: 6 was given"),
        ("rosinality_glow_b", {"img_size": 9}, "img_size=9.*divisible"),
        ("ffjord_tabular_a", {"input_shape": [6, 6]}, r"input_shape: expected \[D\]"),
        ("ffjord_tabular_a", {"input_shape": [7]}, r"input_shape: \[7\] was given, and D 6"),
        ("ffjord_image_a", {"input_shape": [1, 9, 9]}, "input_shape: .* and imagesize 8"),
        ("ffjord_toy_a", {"solver": "xyzzy"}, "solver: .*dopri5"),
        ("normflows_mixed", {"permute_mode": ["shuffle"] + 3 * ["swap"]}, "has 3 permutations"),
        ("nflows_maf_a", {"eps": 1e-3}, "eps: .* say 1e-05"),
        ("freia_glow_a", {"dims_c": [3]}, r"dims_c: \[3\] was given"),
        ("zuko_naf_one_feature", {"transforms": 3}, "transforms: 3 was given, .* say 2"),
    ],
)
def test_wrong_arguments_are_refused_by_the_name_that_was_given(
    name: str, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ImportRefused, match=message):
        importing(name, **given)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        (
            "nflows_maf_a",
            {"context_features": None, "eps": 1e-5, "affine": True, "in_features": 7},
        ),
        ("normflows_nsf_coupling_a", {"num_context_channels": None, "num_input_channels": 5}),
        ("normflows_nsf_coupling_a", {"shape": [5], "num_channels": 5}),
        ("normflows_glow_a", {"base": "ClassCondDiagGaussian", "logscale_factor": 3.0}),
        ("freia_glow_a", {"dims_in": [[6]], "dims_c": []}),
        ("sbi_maf_a", {"z_score_theta": "independent", "num_bins": 10, "num_components": 10}),
        ("sbi_zuko_maf_a", {"which_nf": "MAF", "num_bins": 10}),
    ],
)
def test_arguments_of_constructors_are_taken(name: str, given: dict[str, Any]) -> None:
    importing(name, **given)


def test_what_is_given_against_the_file_is_said() -> None:
    said = importing("ffjord_toy_a", residual=True)
    assert "the file says False" in said["residual"]


@pytest.mark.parametrize("version", [[], {}, -1, True])
def test_what_is_no_version_is_refused(version: Any) -> None:
    with pytest.raises(ImportRefused, match="version: expected that of zuko, as text or a number"):
        importing("zuko_maf_a", version=version)


@pytest.mark.parametrize(
    ("name", "what", "given"),
    [
        ("zuko_gmm_a", "epsilon", {"epsilon": 1e-6}),
        ("zuko_gmm_context_spherical_tied", "epsilon", {"epsilon": 1e-5}),
        ("zuko_unaf_a", "network", {"network": {"activation": "ELU"}}),
    ],
)
def test_what_no_weight_shows_is_said_to_be_taken_on_trust(
    name: str, what: str, given: dict[str, Any]
) -> None:
    case = load(name)
    config = {key: value for key, value in case.config.items() if key not in (what, "source")}
    for settings, expected in ((config, True), ({**config, **given}, False)):
        _, report = run(case.checkpoint, Request(None, settings, "none"))
        warned = [item.what for item in report.items if item.kind == "warning"]
        assert (what in warned) == expected
