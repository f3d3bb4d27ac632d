"""Pictures beside a model: the loss curve, and samples next to data."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from models.checkpoints.files import written
from models.datasets import Dataset, Split
from models.datasets.dataset import optional_package
from models.flow import Flow
from models.noise import base_noise
from models.training.evaluate import as_tensors
from models.training.report import TrainingReport

LOSS_FILE = "loss.png"
SAMPLES_FILE = "samples.png"

_SHOWN_CHANNELS = (1, 3)
_GRID_SIDE = 8
_GAP_PIXELS = 2
_MAX_CLASSES = 10
_WIDTH_PIXELS = 900
_POINTS = 4000
_DENSITY_SIDE = 160
_MAX_MARGINALS = 12
_SAMPLE_SEED = 7


def check_pictures() -> None:
    """Fail before training, not after, where matplotlib is missing.

    Raises:
        DatasetError: with the command that installs it.
    """
    optional_package("matplotlib", needed_for="the pictures of a training run")


def write_pictures(flow: Flow, parts: Split, report: TrainingReport, folder: Path) -> None:
    """Write loss.png and samples.png.

    samples.png is, for pixels, a grid of test rows beside a grid of samples (of other than one or
    three channels the first is shown); for D = 2 test rows,
    samples and density; for other tables the marginals of both.
    """
    _write_loss(report, flow.facts.num_levels is not None, folder / LOSS_FILE)
    path = folder / SAMPLES_FILE
    temperature = float(report.options["picture_temperature"])
    if len(flow.event_shape) == 3:
        _write_grids(flow, parts.test, temperature, path)
    elif flow.features == 2:
        _write_plane(flow, parts.test, temperature, path)
    else:
        _write_marginals(flow, parts.test, temperature, path)


@torch.no_grad()
def draw(flow: Flow, context: torch.Tensor | None, rows: int, temperature: float) -> NDArray[Any]:
    """Samples in float64 numpy, always the same ones.

    Returns:
        (rows, *event_shape).
    """
    parts = []
    noise = torch.from_numpy(
        base_noise(rows, flow.features, seed=_SAMPLE_SEED, temperature=temperature)
    ).to(flow.device, flow.dtype)
    for start in range(0, rows, 512):
        part = slice(start, start + 512)
        parts.append(flow.decode(noise[part], None if context is None else context[part])[0])
    return torch.cat(parts).double().cpu().numpy()


def _write_loss(report: TrainingReport, is_pixels: bool, path: Path) -> None:
    epochs = np.arange(1, len(report.history) + 1)
    scale, unit = 1.0, "nats a row"
    if is_pixels and report.test.bits_per_dim is not None:
        scale, unit = report.test.bits_per_dim / report.test.nats, "bits/dim"
    train = scale * np.array([epoch.train_nats for epoch in report.history])
    validation = scale * np.array([epoch.validation_nats for epoch in report.history])
    figure, axes = _figure(1, width=6.0, height=3.2)
    (panel,) = axes
    panel.plot(epochs, train, label="training", lw=1)
    panel.plot(epochs, validation, label="validation", lw=1.5)
    panel.axvline(report.best_epoch, color="0.6", ls=":", label=f"stored: {report.best_epoch}")
    finite = np.concatenate([train, validation])
    finite = finite[np.isfinite(finite)]
    if finite.size:
        # The first epochs would hide the rest.
        low, high = finite.min(), np.quantile(finite, 0.9)
        margin = 0.15 * (high - low) or 0.1
        panel.set_ylim(low - margin, high + 2 * margin)
    panel.set(xlabel="epoch", ylabel=f"-log p, {unit}")
    panel.legend(frameon=False, fontsize=8)
    _save(figure, path)


def _write_grids(flow: Flow, test: Dataset, temperature: float, path: Path) -> None:
    columns, rows = _grid_rows(flow, test)
    data = test.take(rows)
    _, context = as_tensors(flow, data, np.arange(len(data)))
    samples = draw(flow, context, len(data), temperature)
    levels = test.num_levels or flow.facts.num_levels or 256
    shown = slice(None if flow.event_shape[0] in _SHOWN_CHANNELS else 1)
    pictures = [_grid(to_bytes(x[:, shown], levels), columns) for x in (data.x, samples)]
    gap = np.full((pictures[0].shape[0], 8, pictures[0].shape[2]), 255, np.uint8)
    joined = np.concatenate([pictures[0], gap, pictures[1]], axis=1)
    zoom = max(1, round(_WIDTH_PIXELS / joined.shape[1]))
    joined = joined.repeat(zoom, axis=0).repeat(zoom, axis=1)
    picture = Image.fromarray(joined.squeeze(2) if joined.shape[2] == 1 else joined)
    with written(path) as fresh:
        picture.save(fresh, "PNG", optimize=True)


def _grid_rows(flow: Flow, test: Dataset) -> tuple[int, NDArray[np.int64]]:
    """How wide the grid is and which rows it shows: one column a class where there are classes."""
    if flow.facts.num_classes is None or test.labels is None:
        return _GRID_SIDE, np.arange(min(_GRID_SIDE**2, len(test)))
    found = [np.flatnonzero(test.labels == label) for label in range(flow.facts.num_classes)]
    shown = [rows for rows in found if rows.size][:_MAX_CLASSES]
    lines = min(_GRID_SIDE, *(rows.size for rows in shown))
    return len(shown), np.stack([rows[:lines] for rows in shown], axis=1).reshape(-1)


def to_bytes(pixels: NDArray[Any], num_levels: int) -> NDArray[np.uint8]:
    """Round to pixel levels and stretch them over 0 .. 255."""
    stretched = np.rint(pixels.astype(np.float64)) * (255 / (num_levels - 1))
    return np.clip(np.rint(stretched), 0, 255).astype(np.uint8)


def _grid(images: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Lay images (N, C, H, W) out in rows of `columns`.

    Returns:
        (height, width, C).
    """
    count, channels, height, width = images.shape
    lines = -(-count // columns)
    high, wide = height + _GAP_PIXELS, width + _GAP_PIXELS
    sheet = np.full(
        (lines * high - _GAP_PIXELS, columns * wide - _GAP_PIXELS, channels), 64, np.uint8
    )
    for index, image in enumerate(images):
        top, left = index // columns * high, index % columns * wide
        sheet[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return sheet


@torch.no_grad()
def _density(flow: Flow, points: torch.Tensor, test: Dataset) -> NDArray[Any]:
    """p(x) at points (n, 2); of a class-conditional flow, summed over the classes of the data."""
    if flow.facts.num_classes is None or test.labels is None:
        parts = [flow.log_prob(part).exp() for part in points.split(2048)]
        return torch.cat(parts).cpu().numpy()
    shares = np.bincount(test.labels, minlength=flow.facts.num_classes) / len(test)
    density = np.zeros(len(points))
    for label, share in enumerate(shares):
        context = torch.zeros(2048, len(shares), device=flow.device, dtype=flow.dtype)
        context[:, label] = 1
        parts = [flow.log_prob(part, context[: len(part)]) for part in points.split(2048)]
        density += share * torch.cat(parts).exp().cpu().numpy()
    return density


@torch.no_grad()
def _write_plane(flow: Flow, test: Dataset, temperature: float, path: Path) -> None:
    data = test.x[:_POINTS].astype(np.float64)
    _, context = as_tensors(flow, test, np.arange(len(data)))
    samples = draw(flow, context, len(data), temperature)
    low, high = data.min(0), data.max(0)
    low, high = low - 0.15 * (high - low), high + 0.15 * (high - low)
    xs, ys = (np.linspace(low[i], high[i], _DENSITY_SIDE) for i in (0, 1))
    points = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    grid = torch.from_numpy(points).to(flow.device, flow.dtype)
    density = _density(flow, grid, test)
    aspect = float((high - low)[1] / (high - low)[0])
    figure, axes = _figure(3, width=9.0, height=min(6.0, 2.8 * aspect + 0.5))
    titles = ("data", _samples_title(temperature), "density")
    for panel, title, cloud in zip(axes, titles, (data, samples, None), strict=True):
        if cloud is None:
            shape = (_DENSITY_SIDE, _DENSITY_SIDE)
            panel.pcolormesh(xs, ys, density.reshape(shape), cmap="magma", rasterized=True)
        else:
            panel.scatter(cloud[:, 0], cloud[:, 1], s=1.5, lw=0, alpha=0.6)
        panel.set(title=title, xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
        panel.tick_params(labelsize=7)
    _save(figure, path)


def _write_marginals(flow: Flow, test: Dataset, temperature: float, path: Path) -> None:
    normal = test if test.anomaly is None else test.take(~test.anomaly)
    _, context = as_tensors(flow, normal, np.arange(len(normal)))
    samples = draw(flow, context, len(normal), temperature).reshape(len(normal), -1)
    data = normal.x.reshape(len(normal), -1)
    count = min(data.shape[1], _MAX_MARGINALS)
    figure, axes = _figure(count, width=9.0, height=1.7 * -(-count // 4), columns=4)
    for index, panel in enumerate(axes):
        low, high = np.quantile(data[:, index], (0.002, 0.998))
        bins = np.linspace(low, high, min(40, round(math.sqrt(len(data))) + 1))
        panel.hist(data[:, index], bins, density=True, alpha=0.5, label="data")
        panel.hist(samples[:, index], bins, density=True, histtype="step", label="samples")
        panel.set_title(normal.columns[index] if normal.columns else str(index), fontsize=8)
        panel.tick_params(labelsize=6)
    axes[0].legend(frameon=False, fontsize=7)
    _save(figure, path)


def _samples_title(temperature: float) -> str:
    return "samples" if temperature == 1 else f"samples, temperature {temperature:g}"


def _figure(count: int, *, width: float, height: float, columns: int = 3) -> tuple[Any, list[Any]]:
    # The object interface: no global state, no display, safe in threads.
    figure = optional_package(
        "matplotlib.figure", needed_for="the pictures of a training run"
    ).Figure(figsize=(width, height), dpi=100, layout="constrained")
    lines = -(-count // columns)
    grid = figure.subplots(lines, min(count, columns), squeeze=False).reshape(-1)
    for panel in grid[count:]:
        panel.axis("off")
    return figure, list(grid[:count])


def _save(figure: Any, path: Path) -> None:
    # No software name and date in the file: the same run gives the same bytes.
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": None})
    with Image.open(drawn) as picture, written(path) as fresh:
        few_colours(picture).save(fresh, "PNG", optimize=True)


def few_colours(chart: Image.Image) -> Image.Image:
    """A chart in 256 colours: the file has less than half of the bytes, and looks the same."""
    return chart.convert("RGB").quantize(256, dither=Image.Dither.NONE)
