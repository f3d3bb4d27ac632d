"""Six densities in the plane that every paper on flows draws: seeded, made with numpy alone.

Each takes (rows, generator, noise) and returns (rows, 2) points. Shapes and scales follow the
figures of Grathwohl et al. 2018 (FFJORD, arXiv 1810.01367, section 4.1) and its public code.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


def _two_moons(rows: int, rng: np.random.Generator, noise: float) -> Points:
    """Two half circles of radius 1, facing each other."""
    upper = rng.random(rows) < 0.5
    angle = rng.random(rows) * np.pi
    x = np.where(upper, np.cos(angle), 1 - np.cos(angle))
    y = np.where(upper, np.sin(angle), 0.5 - np.sin(angle))
    return np.stack([x, y], axis=1) + noise * rng.standard_normal((rows, 2))


def _circles(rows: int, rng: np.random.Generator, noise: float) -> Points:
    """Two rings of radius 1.5 and 3."""
    radius = np.where(rng.random(rows) < 0.5, 1.5, 3.0)
    return _polar(radius, rng.random(rows) * 2 * np.pi) + noise * rng.standard_normal((rows, 2))


def _pinwheel(rows: int, rng: np.random.Generator, noise: float) -> Points:
    """Five arms: Gaussians stretched along the radius, turned by an angle that grows with it."""
    arm = rng.integers(5, size=rows)
    along = 1 + 0.3 * rng.standard_normal(rows)
    across = noise * rng.standard_normal(rows)
    angle = 2 * np.pi * arm / 5 + 0.25 * np.exp(along)
    x = along * np.cos(angle) - across * np.sin(angle)
    y = along * np.sin(angle) + across * np.cos(angle)
    return 2 * np.stack([x, y], axis=1)


def _checkerboard(rows: int, rng: np.random.Generator, noise: float) -> Points:
    """Eight black squares of a 4 x 4 board on [-4, 4] x [-4, 4], uniform on each."""
    column = rng.integers(4, size=rows)
    row = 2 * rng.integers(2, size=rows) + column % 2
    corner = 2.0 * np.stack([column, row], axis=1) - 4.0
    return corner + 2.0 * rng.random((rows, 2)) + noise * rng.standard_normal((rows, 2))


def _eight_gaussians(rows: int, rng: np.random.Generator, noise: float) -> Points:
    """Eight round Gaussians on a circle of radius 2.8."""
    angle = 2 * np.pi * rng.integers(8, size=rows) / 8
    return _polar(np.full(rows, 2.8), angle) + noise * rng.standard_normal((rows, 2))


def _spirals(rows: int, rng: np.random.Generator, noise: float) -> Points:
    """Two arms of an Archimedean spiral, one and a half turns each."""
    angle = np.sqrt(rng.random(rows)) * 3 * np.pi
    side = np.where(rng.random(rows) < 0.5, 0.0, np.pi)
    return _polar(angle / 3, angle + side) + noise * rng.standard_normal((rows, 2))


def _polar(radius: Points, angle: Points) -> Points:
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


# name -> (generator, default noise)
TOYS: dict[str, tuple[Callable[[int, np.random.Generator, float], Points], float]] = {
    "two_moons": (_two_moons, 0.1),
    "circles": (_circles, 0.08),
    "pinwheel": (_pinwheel, 0.1),
    "checkerboard": (_checkerboard, 0.0),
    "eight_gaussians": (_eight_gaussians, 0.35),
    "spirals": (_spirals, 0.1),
}


@dataclass(frozen=True, slots=True)
class ToyRecipe:
    """What decides the points of a toy, but for the last bits of exp, cos and sin.

    Those are the CPU's: numpy computes with the instructions that it finds.

    Args:
        name: a key of `TOYS`.
        rows: how many points.
        seed: of the generator.
        noise: scale of what blurs the figure; None is the toy's own.
    """

    name: str
    rows: int
    seed: int
    noise: float | None = None

    @property
    def text(self) -> str:
        """One text a set of points: an option that is left out is written as its default."""
        return f"{self.name}?noise={self._noise!r}&rows={self.rows}&seed={self.seed}"

    def points(self) -> Points:
        """Draw (rows, 2) points of the named density."""
        make, _ = TOYS[self.name]
        return make(self.rows, np.random.default_rng(self.seed), self._noise)

    @property
    def _noise(self) -> float:
        return float(TOYS[self.name][1] if self.noise is None else self.noise)
