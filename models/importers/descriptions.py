"""What a user's description says of a flow in words, compared with what its weights have become."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from models.importers.report import ImportRefused, Report
from models.importers.source import Conversion, Source

# What the field calls flows of couplings and autoregressive maps, by the map of each feature.
_COUPLINGS = {
    "affine": ("realnvp", "nice"),
    "additive": ("nice", "realnvp"),
    "spline": ("nsf", "spline"),
    "circular_spline": ("nsf", "spline", "circular", "ncsf"),
}
_AUTOREGRESSIVE = {
    "affine": ("maf", "made"),
    "additive": ("maf", "made"),
    "spline": ("nsf", "spline"),
    "circular_spline": ("nsf", "spline", "circular", "ncsf"),
}
_MAPS = {
    "monotone_network": ("naf",),
    "monotone_integral": ("unaf", "umnn"),
    "sum_of_squares": ("sospf", "sos"),
    "bernstein": ("bpf", "bernstein"),
    "gaussianization": ("gf", "gaussianization"),
}
_LAYERS = {
    "planar": ("planar",),
    "radial": ("radial",),
    "residual": ("residual",),
    "normal_mixture": ("gmm", "mixture"),
    "gaussian_mixture": ("gmm", "mixture"),
}
_FAMILIES = {
    "glow": ("glow", "coupling", "affine", "additive"),
    "realnvp_image": ("realnvp", "coupling", "affine"),
    "ffjord": ("ffjord", "cnf", "ode", "continuous"),
    "ffjord_image": ("ffjord", "cnf", "ode", "continuous"),
    "tarflow": ("tarflow", "autoregressive", "ar"),
    "jet": ("jet", "coupling", "affine"),
    "cnf_unet": ("cnf", "unet", "ode", "continuous"),
}
_OTHERS = ("coupling", "autoregressive", "ar", "iaf", "affine", "additive")
_KNOWN = frozenset(
    word
    for table in (_COUPLINGS, _AUTOREGRESSIVE, _MAPS, _LAYERS, _FAMILIES)
    for words in table.values()
    for word in words
).union(_OTHERS)


def check_family(given: Any, conversion: Conversion, report: Report) -> None:
    """Compare the words of `family` with the layers; words that name no architecture say nothing.

    Raises:
        ImportRefused: if a word names another architecture, or none does.
    """
    if given is None:
        return
    found = re.findall(r"[a-z]+", str(given).lower().replace("real-nvp", "realnvp"))
    said = [word.removesuffix("s") if word == "splines" else word for word in found]
    named = [word for word in said if word in _KNOWN]
    fitting = dict.fromkeys(_words(conversion.family, conversion.config))
    wrong = [word for word in named if word not in fitting]
    if fitting and (wrong or not named):
        raise ImportRefused(
            f"family: {json.dumps(given)} was given, but the weights say {', '.join(fitting)} (the "
            "layers they make); leave it out or correct it"
        )
    report.recognised("family", "as given: the layers that the weights make")


def check_version(given: Any, source: Source, report: Report) -> None:
    """Refuse the versions of a source before the one whose layout is known.

    Raises:
        ImportRefused: if it is no version, or says from which one on files can be imported.
    """
    if given is None:
        return
    is_number = isinstance(given, int | float) and not isinstance(given, bool) and given >= 0
    if not is_number and not isinstance(given, str):
        raise ImportRefused(
            f"version: expected that of {source.name}, as text or a number, got {given!r:.80}; "
            "correct it or leave it out"
        )
    numbers = re.match(r"v?(\d+)\.(\d+)", str(given).strip())
    if source.since and numbers and tuple(map(int, numbers.groups())) < source.since:
        since = ".".join(map(str, source.since))
        raise ImportRefused(
            f"version: {json.dumps(given)} was given; expected {since} or later of {source.name}: "
            "before it the same keys meant other functions"
        )
    report.ignored("version", "no weight shows it")


def _words(family: str, config: Mapping[str, Any]) -> Iterable[str]:
    yield from _FAMILIES.get(family, ())
    for layer in config.get("layers", ()):
        yield from _words_of(layer)


def _words_of(layer: Mapping[str, Any]) -> Iterable[str]:
    kind = layer["kind"]
    yield from _LAYERS.get(kind, ())
    elementwise = layer.get("elementwise", {}).get("kind", "affine")
    yield from _MAPS.get(elementwise, ())
    is_autoregressive = kind == "autoregressive"
    # Two places in the order make a coupling.
    is_coupling = kind == "coupling" or (is_autoregressive and max(layer["order"]) < 2)
    if is_coupling:
        yield from (*_COUPLINGS.get(elementwise, ()), "coupling", elementwise)
    if is_autoregressive:
        yield from (*_AUTOREGRESSIVE.get(elementwise, ()), "autoregressive", "ar", elementwise)
        if layer.get("one_pass") == "decode":
            yield "iaf"
