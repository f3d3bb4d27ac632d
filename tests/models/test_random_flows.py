"""A few random configurations of every family; `make show` runs thousands."""

import random
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import pytest

from models.families.maf import MAFConfig
from models.families.preprocessing import Step
from models.registry import FAMILIES, build
from tests.random_flows.__main__ import run
from tests.random_flows.draw import (
    DISCRETE,
    FIXED,
    Drawer,
    NotCovered,
    draw,
)

COUNTS = {**dict.fromkeys(DISCRETE, 15), "naf": 6, "ffjord": 6, "ffjord_image": 1, "cnf_unet": 1}
DRAWS_FOR_EVERY_OPTION = 250


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_random_configurations_are_right(family: str) -> None:
    row = run(family, COUNTS[family], first_seed=0)
    assert row.wrong == []
    # A refusal is an option that does not go with another; most options go together.
    assert row.refused <= 2 * len(row.errors) + 5
    assert row.beyond <= len(row.errors) // 3


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_option_is_drawn(family: str) -> None:
    seen: dict[str, set[str]] = defaultdict(set)
    for seed in range(DRAWS_FOR_EVERY_OPTION):
        for name, value in leaves(draw(family, seed).config):
            seen[name].add(repr(value))
    fields = FAMILIES[family].config.model_fields
    assert set(fields) <= set(seen)
    for name, info in fields.items():
        if name in FIXED:
            continue
        annotation = info.rebuild_annotation()
        wanted = get_args(annotation) if get_origin(annotation) is Literal else ()
        if annotation is bool:
            wanted = (False, True)
        assert {repr(value) for value in wanted} <= seen[name], name
    kinds = {
        get_args(step.model_fields["kind"].annotation)[0] for step in get_args(get_args(Step)[0])
    }
    if "preprocessing" in fields and family != "pixelcnn":  # whose data lie in [0, 1]
        assert {repr(kind) for kind in kinds} <= seen["kind"]


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every option of a configuration with its values, however deep."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield key, part
            yield from leaves(part, key)
    elif isinstance(value, list):
        for part in value:
            yield from leaves(part, name)


def test_a_new_option_that_nothing_draws_fails() -> None:
    class Wider(MAFConfig):
        ramp: float = 1.0

    with pytest.raises(NotCovered, match=r"Wider\.ramp"):
        Drawer("maf", random.Random(0)).model(Wider)


def test_normalised_hidden_units_are_refused_where_they_have_an_order() -> None:
    net = {"kind": "mlp", "widths": [4], "normalise": True}
    layer = {"kind": "autoregressive", "order": [0, 1], "conditioner": net}
    pair = {"kind": "pair", "shift": net, "scale": {"kind": "mlp", "widths": [4]}}
    for family, config in (
        ("maf", {"conditioner": net}),
        ("maf", {"conditioner": pair}),
        ("maf", {"conditioner": net, "one_pass": "decode"}),
        ("nsf", {"conditioner": net, "structure": "autoregressive"}),
        ("chain", {"layers": [layer]}),
    ):
        with pytest.raises(ValueError, match=r"normalise: expected false in an autoregressive map"):
            build(family, {"event_shape": [2], **config})
    assert build("nsf", {"event_shape": [2], "conditioner": net}).family == "nsf"


def test_normalise_needs_two_units() -> None:
    net = {"kind": "mlp", "widths": [4, 1], "normalise": True}
    with pytest.raises(ValueError, match=r"normalise: expected hidden layers of 2 units or more"):
        build("realnvp", {"event_shape": [2], "conditioner": net})
