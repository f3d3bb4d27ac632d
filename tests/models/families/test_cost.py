"""What a family is said to cost is what it costs: passes of its networks, counted."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import models
from models.families.about import SOLVER
from models.families.costs import COSTS, describe_cost
from models.flow import Flow
from models.noise import base_noise
from models.ode.transform import ODETransform
from models.registry import FAMILIES
from models.transforms.rows import RowNetwork

# How a cost begins, and how many passes that is.
COUNTS: dict[str, Callable[[Flow], int]] = {
    "0": lambda flow: 0,
    "1": lambda flow: 1,
    "D": lambda flow: flow.features,
    "one a patch": lambda flow: max(getattr(part, "passes", 0) for part in flow.modules()),
}
ROOT = Path(__file__).resolve().parents[3]
DOCUMENT = ROOT / "docs" / "training.md"


def count_passes(flow: Flow) -> tuple[set[int], set[int]]:
    """How often encode and decode of two rows evaluate each network of a flow, or a row of it."""
    counts: Counter[str] = Counter()
    networks = [name for name, _ in flow.named_modules() if name.endswith(".conditioner")]
    for name in networks:
        network = flow.get_submodule(name)
        network.register_forward_hook(lambda *_, name=name: counts.update([name]))
        if isinstance(network, RowNetwork):
            network.in_row = counted(network.in_row, counts, name)  # type: ignore[method-assign]
    found = []
    z = torch.from_numpy(base_noise(2, flow.features, seed=0)).to(next(flow.parameters()).dtype)
    with torch.no_grad():
        x, _ = flow.decode(z)
        found.append({counts[name] for name in networks})
        counts.clear()
        flow.encode(x)
        found.append({counts[name] for name in networks})
    return found[1], found[0]


def counted(
    in_row: Callable[[Tensor, Tensor], Tensor], counts: Counter[str], name: str
) -> Callable[[Tensor, Tensor], Tensor]:
    def call(row: Tensor, received: Tensor) -> Tensor:
        counts.update([name])
        return in_row(row, received)

    return call


@pytest.mark.parametrize("name", FAMILIES)
def test_the_example_takes_the_passes_that_are_stated(name: str) -> None:
    about = FAMILIES[name].about
    flow = models.build(name, {"event_shape": about.example.event_shape, **about.example.arguments})
    if about.cost == SOLVER:
        assert any(isinstance(module, ODETransform) for module in flow.modules())
        return
    stated = (about.cost.encode, about.cost.decode)
    for found, text in zip(count_passes(flow), stated, strict=True):
        if text.startswith("row by row"):  # some of a row that is all a guess, D of `passes`
            assert flow.event_shape[1] < max(found) < flow.features / 2
            continue
        expected = next(count(flow) for word, count in COUNTS.items() if text.startswith(word))
        if text.startswith("D at most"):
            assert 1 <= max(found) <= flow.features
            continue
        assert found <= {expected}
        assert found or not expected


def test_the_manual_has_the_costs_of_all() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.+) \| (.+) \|$", DOCUMENT.read_text(), re.MULTILINE)
    stated = [(name, family.about.cost) for name, family in FAMILIES.items()]
    assert rows == [(name, cost.encode, cost.decode) for name, cost in stated]


def test_a_served_model_has_the_costs_of_its_family() -> None:
    assert [*COSTS] == [*FAMILIES]
    assert describe_cost("iaf") == {"encode": COSTS["iaf"].encode, "decode": "1"}
    assert describe_cost("of another version") is None


def test_the_readme_names_all() -> None:
    (listed,) = re.findall(
        r"^Families \(.*?\): (.*?)\.$", (ROOT / "README.md").read_text(), re.M | re.S
    )
    assert re.findall(r"`(\w+)`", listed) == [*FAMILIES]
