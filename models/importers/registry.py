"""The registry of sources, and how one is chosen: by name, or by the keys of a checkpoint."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from models.importers.report import ImportRefused
from models.importers.source import Source
from models.importers.sources import (
    chaiyujin,
    ikostrikov,
    jet,
    rosinality,
    tarflow,
    y0ast,
)
from models.importers.sources.chrischute import glow as chrischute_glow
from models.importers.sources.chrischute import realnvp as chrischute_realnvp
from models.importers.sources.ffjord import vectors as ffjord
from models.importers.sources.freia import flow as freia
from models.importers.sources.kamenbliznashki import glow as kamenbliznashki_glow
from models.importers.sources.kamenbliznashki import maf as kamenbliznashki_maf
from models.importers.sources.nflows import flow as nflows
from models.importers.sources.normflows import glow as normflows_glow
from models.importers.sources.normflows import vectors as normflows_vectors
from models.importers.sources.pzflow import flow as pzflow
from models.importers.sources.sbi import mdn as sbi_mdn
from models.importers.sources.sbi import nflows_built as sbi_nflows
from models.importers.sources.sbi import zuko_built as sbi_zuko
from models.importers.sources.torchcfm import mlp as torchcfm_mlp
from models.importers.sources.torchcfm import unet as torchcfm_unet
from models.importers.sources.zuko import flow as zuko
from models.importers.sources.zuko import gmm as zuko_gmm

# One line a source; several may share a name, then the keys tell them apart.
SOURCES: tuple[Source, ...] = (
    chaiyujin.SOURCE,
    chrischute_glow.SOURCE,
    chrischute_realnvp.SOURCE,
    ffjord.SOURCE,
    freia.SOURCE,
    ikostrikov.SOURCE,
    jet.SOURCE,
    kamenbliznashki_glow.SOURCE,
    kamenbliznashki_maf.SOURCE,
    nflows.SOURCE,
    normflows_glow.SOURCE,
    normflows_vectors.SOURCE,
    pzflow.SOURCE,
    rosinality.SOURCE,
    sbi_nflows.SOURCE,
    sbi_zuko.SOURCE,
    sbi_mdn.SOURCE,
    tarflow.SOURCE,
    torchcfm_mlp.SOURCE,
    torchcfm_unet.SOURCE,
    y0ast.SOURCE,
    zuko.SOURCE,
    zuko_gmm.SOURCE,
)
NAMES = sorted({source.name for source in SOURCES})

_KEYS_SHOWN = 3


def names_of(keys: Iterable[str], settings: Mapping[str, Any] | None = None) -> list[str]:
    """The sources that recognise these keys; none, as a rule, or one."""
    return [source.name for source in _unnamed(SOURCES, keys, settings)]


def choose(
    name: str | None, keys: Iterable[str], settings: Mapping[str, Any] | None = None
) -> Source:
    """Find the source that a user names, or that keys belong to.

    Args:
        name: a full or short name; a name that several sources share leaves the choice to the
            keys; None leaves it to them altogether.
        keys: of the state dict.
        settings: hyper-parameters that are given.

    Returns:
        The one source that fits.

    Raises:
        ImportRefused: if no source fits, several do, or another than the named one does.
    """
    keys = list(keys)
    others = _unnamed(SOURCES, keys, settings)
    candidates = _named(name, others) if name else others
    fitting = [source for source in candidates if source.knows(keys)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(source.name for source in fitting)
        raise ImportRefused(f"the keys fit several sources: {names}; name one of them")
    sample = ", ".join(keys[:_KEYS_SHOWN]) or "none"
    if name and others:
        guess = " or ".join(sorted({source.name for source in others}))
        raise ImportRefused(
            f"{name} was named, but these are the keys of {guess} ({sample}, ...): name that, or "
            "no source at all"
        )
    if name:
        raise ImportRefused(
            f"{name}: expected keys such as {_example(candidates[0])}, got {sample}, ...; is this "
            "a checkpoint of another architecture?"
        )
    raise ImportRefused(
        f"no source has keys such as {sample}, ...; known sources: {', '.join(NAMES)}"
    )


def _named(name: str, fitting: list[Source]) -> list[Source]:
    found = [source for source in SOURCES if source.goes_by(name)]
    if not found:
        known = {short: source for source in SOURCES for short in source.short_names}
        close = get_close_matches(name.lower(), [*NAMES, *known], n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        guess = f"; the keys are those of {fitting[0].name}" if fitting else ""
        raise ImportRefused(
            f"source: expected one of {', '.join(NAMES)}; got {name!r}{hint}{guess}"
        )
    return found


def _unnamed(
    sources: Iterable[Source], keys: Iterable[str], settings: Mapping[str, Any] | None
) -> list[Source]:
    """The sources that know these keys; one that claims them goes before those it is built on."""
    keys = list(keys)
    known = [
        source
        for source in sources
        if source.knows(keys) and source.is_claimed(keys, settings or {})
    ]
    return [source for source in known if source.claims] or known


def _example(source: Source) -> str:
    """A key that matches: without what may be left out, and with the first of what may stand."""
    pattern, before = source.signature[0], ""
    while pattern != before:
        before = pattern
        pattern = re.sub(r"\([^()]*\)[?*]", "", pattern)
        pattern = re.sub(r"\(([^()|]*)(\|[^()]*)?\)", r"\1", pattern)
    key = pattern.partition("|")[0].rstrip("$")
    return re.sub(r"\[(\w)[^]]*\]|\\d\?", r"\1", key).replace(r"\.", ".").replace(r"\d+", "0")
