"""PixelCNN: probabilities of images that sum to one, and values that see those before alone."""

import dataclasses
import itertools

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F

from models.datasets import load
from models.flow import Flow
from models.fold import fold
from models.onnx.graphs import build_graphs
from models.onnx.runtime import open_session
from models.onnx.validate import MAX_DEPTH
from models.registry import build
from models.training.defaults import fill_defaults
from tests.cases import perturb

LEVELS = 3
SHAPES = [(1, 2, 2), (2, 1, 2), (1, 1, 4), (3, 1, 1)]


def flow_of(shape: tuple[int, ...], levels: int = LEVELS, **options: object) -> Flow:
    config = {"event_shape": shape, "levels": levels, "width": 6, "num_layers": 2, **options}
    config["preprocessing"] = [
        {"kind": "dequantise", "levels": levels},
        {"kind": "shift_scale", "scale": 1 / levels},
    ]
    return perturb(build("pixelcnn", config).double().eval(), 0.3).requires_grad_(False)


@pytest.mark.parametrize("shape", SHAPES)
def test_probabilities_of_all_images_sum_to_one(shape: tuple[int, ...]) -> None:
    flow = flow_of(shape)
    images = torch.tensor([*itertools.product(range(LEVELS), repeat=flow.features)])
    log_p = flow.log_prob(images.double().reshape(-1, *shape))
    torch.testing.assert_close(log_p.exp().sum(), torch.tensor(1.0).double(), rtol=1e-12, atol=0)
    assert log_p.std() > 0.1


@pytest.mark.parametrize("shape", [(2, 3, 3), (1, 1, 5)])
def test_a_value_sees_all_before_it_and_none_behind(shape: tuple[int, ...]) -> None:
    """Before is row by row, column by column, channel by channel; nothing is in a blind spot."""
    flow = flow_of(shape, width=24, dilations=[1, 2] if shape[1] == 1 else [1])
    middle = torch.ones(1, *shape).double()
    z, _ = flow.encode(middle)
    channels, height, width = shape
    order = torch.arange(height * width * channels).reshape(height, width, channels)
    order = order.permute(2, 0, 1).flatten()
    for feature in range(flow.features):
        changed = middle.clone().flatten()
        changed[feature] = 2
        moved, _ = flow.encode(changed.reshape(1, *shape))
        sees = (moved != z)[0]
        assert torch.equal(sees, order >= order[feature]), feature


def test_samples_come_as_often_as_they_are_probable() -> None:
    flow = flow_of((1, 1, 2), num_classes=2)
    images = torch.tensor([*itertools.product(range(LEVELS), repeat=2)]).double()
    label = torch.tensor([[0.0, 1.0]]).double()
    wanted = flow.log_prob(images.reshape(-1, 1, 1, 2), label.expand(9, -1)).exp()
    drawn, _ = flow.sample(20_000, label.expand(20_000, -1), seed=1)
    index = (drawn.flatten(1).round() @ torch.tensor([3.0, 1.0]).double()).long()
    found = index.bincount(minlength=9) / len(index)
    assert float((found - wanted).abs().max()) < 4 * (0.25 / len(index)) ** 0.5


def test_a_sample_lies_in_its_bin_in_float32_too() -> None:
    flow = flow_of((1, 1, 2), levels=256)
    z = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0)).double()
    wide, _ = flow.decode(z)
    assert torch.equal(wide.float().round(), wide.round().float())
    assert float((wide - wide.round()).abs().max()) < 0.5


def test_outside_of_the_levels_is_no_density() -> None:
    flow = flow_of((1, 1, 2))
    x = torch.tensor([[[[-0.6, 1.0]]], [[[2.6, 1.0]]], [[[2.0, 0.0]]]]).double()
    assert flow.log_prob(x).isinf().tolist() == [True, True, False]
    assert flow.facts.support is not None


def steps(scale: float, levels: int = 17, **beside: float) -> list[dict[str, object]]:
    """Pixels dequantised and scaled."""
    noise = {"kind": "dequantise", "levels": levels}
    return [noise, {"kind": "shift_scale", "scale": scale, **beside}]


REDUCED = [{"kind": "reduce_bits", "bits": 2}, *steps(1 / 256, levels=256)]


@pytest.mark.parametrize(
    ("levels", "preprocessing", "message"),
    [
        (256, steps(1 / 17), "levels: expected 17, as many as the pixels have .* got 256"),
        (256, REDUCED, "levels: expected 4, .* got 256"),
        (17, steps(1 / 256), "middle of 17 equal bins .* 0.0588235 puts .* got 0.00195312 to"),
        (17, steps(1 / 17, shift=0.5), "preprocessing: expected the 17 levels"),
        (17, [*steps(1 / 17), {"kind": "logit"}], "preprocessing: expected the 17 levels"),
    ],
)
def test_bins_that_are_no_levels_are_refused(
    levels: int, preprocessing: list[dict[str, object]], message: str
) -> None:
    """Their log_prob would be no log-probability: those of all images summed to 152."""
    config = {"event_shape": [1, 1, 2], "width": 2, "num_layers": 1, "levels": levels}
    with pytest.raises(ValueError, match=message):
        build("pixelcnn", {**config, "preprocessing": preprocessing})


@pytest.mark.parametrize(
    ("levels", "preprocessing"),
    [(17, steps(1 / 17)), (17, steps(-1 / 17, shift=1.0)), (4, REDUCED)],
)
def test_levels_in_the_middle_of_bins_are_taken(
    levels: int, preprocessing: list[dict[str, object]]
) -> None:
    config = {"event_shape": [1, 1, 2], "width": 2, "num_layers": 1, "levels": levels}
    assert build("pixelcnn", {**config, "preprocessing": preprocessing}).features == 2


def test_training_takes_the_levels_of_the_pixels() -> None:
    digits = load("digits")
    assert fill_defaults("pixelcnn", {}, digits)["levels"] == digits.num_levels
    pixels = dataclasses.replace(digits, num_levels=256)
    assert fill_defaults("pixelcnn", {"preprocessing": REDUCED}, pixels)["levels"] == 4
    assert fill_defaults("pixelcnn", {"preprocessing": REDUCED, "levels": 8}, pixels)["levels"] == 8


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"event_shape": [2, 2, 2], "width": 3}, "width: expected a multiple of 2 channels, got 3"),
        ({"event_shape": [1, 2, 2], "kernel": 2}, "kernel: expected an odd number, got 2"),
        ({"event_shape": [1, 2, 2], "levels": 1}, "levels"),
    ],
)
def test_what_does_not_fit_is_told(config: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build("pixelcnn", config)


def loops_inside(graph: onnx.GraphProto) -> int:
    inner = [part.g for node in graph.node for part in node.attribute if part.HasField("g")]
    return max((1 + loops_inside(part) for part in inner), default=0)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((2, 3, 4), {"num_classes": 3}),
        ((1, 3, 3), {"kernel": 5, "dilations": [1, 2]}),
        ((1, 2, 2), {"kernel": 1}),
        ((1, 1, 5), {"dilations": [1, 2]}),
    ],
)
def test_rows_are_decoded_as_the_whole(shape: tuple[int, ...], options: dict[str, object]) -> None:
    """Row by row, in torch, folded and as a graph, what whole passes give."""
    flow = flow_of(shape, 5, decoding="sequential", **options)
    whole = build("pixelcnn", {**flow.config, "decoding": "passes"}).double().eval()
    whole.requires_grad_(False)
    whole.load_state_dict(flow.state_dict())
    classes = options.get("num_classes")
    label = None if classes is None else torch.eye(3).double().repeat(50, 1)
    z = torch.randn(150, flow.features, generator=torch.Generator().manual_seed(0)).double()
    wanted, log_det = whole.decode(z, label)
    assert float(wanted.std()) > 0.5
    for form in (flow, fold(flow)):
        x, found = form.decode(z, label)
        torch.testing.assert_close(x, wanted, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(found, log_det, rtol=1e-11, atol=1e-11)
    graph = build_graphs(fold(flow), torch.float64).decode
    assert loops_inside(graph.graph) <= MAX_DEPTH  # else no server takes it
    session = open_session(graph.SerializeToString())
    given = {"z": z.numpy(), **({} if label is None else {"context": label.numpy()})}
    x, found = session.run(["x", "log_det"], given)
    torch.testing.assert_close(torch.from_numpy(x), wanted, rtol=1e-11, atol=1e-11)
    for rows in (slice(0, 1), slice(3, 10)):
        part, _ = session.run(["x", "log_det"], {key: one[rows] for key, one in given.items()})
        assert np.array_equal(part, x[rows])


def test_a_row_passes_what_it_needs_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph of 784 turns would be none: rows above are passed once, and a pass is of one row."""
    flow = flow_of((1, 6, 5), decoding="sequential")
    heights = []
    exit_of = F.conv2d

    def convolve(x: torch.Tensor, *rest: object, **named: object) -> torch.Tensor:
        heights.append(x.shape[2])
        found: torch.Tensor = exit_of(x, *rest, **named)  # type: ignore[arg-type]
        return found

    monkeypatch.setattr(F, "conv2d", convolve)
    flow.decode(torch.zeros(1, 30).double())
    assert max(heights) < 6
