"""Each statistic by its formula, by hand; and a row's score is its own, bit for bit."""

import math
import zlib

import numpy as np
import pytest

from models.scoring.calibration import calibrate
from models.scoring.errors import StatisticError
from models.scoring.statistics import STATISTICS, Evidence, choose_statistic, parse_statistic
from tests.models.scoring.cases import evidence

TABLES = [(1,), (2,), (3,), (10,), (57,)]
IMAGES = [(1, 8, 8), (3, 4, 4)]
CASES = [
    *((name, shape, None) for name in STATISTICS if name != "complexity" for shape in TABLES),
    *((name, shape, 256) for name in STATISTICS for shape in IMAGES),
]


def _of(rows: Evidence, chosen: object) -> Evidence:
    x, log_prob, z, background, levels = rows
    assert background is not None
    return Evidence(x[chosen], log_prob[chosen], z[chosen], background[chosen], levels)


def _score(name: str, rows: Evidence, fitted: Evidence | None = None) -> np.ndarray:
    return STATISTICS[name].score(rows, STATISTICS[name].fit(fitted or rows))


@pytest.mark.parametrize(("name", "shape", "levels"), CASES)
def test_a_row_has_the_same_bits_in_every_batch(
    name: str, shape: tuple[int, ...], levels: int | None
) -> None:
    rows = evidence(97, shape=shape, levels=levels)
    scores = _score(name, rows)
    assert (scores.shape, scores.dtype) == ((97,), np.float64)
    for size in (1, 2, 7, 64):
        for start in range(0, 97, 32):
            part = _of(rows, slice(start, start + size))
            assert (_score(name, part, rows) == scores[start : start + size]).all()
    order = np.random.default_rng(0).permutation(97)
    assert (_score(name, _of(rows, order), rows) == scores[order]).all()
    # Whatever lies in memory in which order.
    turned = rows._replace(z=np.asfortranarray(rows.z), x=np.asfortranarray(rows.x))
    assert (_score(name, turned, rows) == scores).all()
    assert (_score(name, _of(rows, slice(None, None, 3)), rows) == scores[::3]).all()


def test_neg_log_prob() -> None:
    rows = evidence(5)
    assert (_score("neg_log_prob", rows) == -rows.log_prob).all()
    single = rows._replace(log_prob=rows.log_prob.astype(np.float32))
    assert _score("neg_log_prob", single).dtype == np.float64


def test_typicality_has_two_sides() -> None:
    rows = evidence(5)._replace(log_prob=np.float64([-1, -2, -3, -7, 4]))
    assert _score("typicality", rows).tolist() == [1, 0, 1, 5, 6]
    # A row outside the support is not in the middle of the others.
    outside = rows._replace(log_prob=np.float64([-1, -2, -3, -7, -np.inf]))
    assert STATISTICS["typicality"].fit(outside)["median"].tolist() == [2.5]


@pytest.mark.parametrize("levels", [17, 256])
def test_complexity_is_bits_less_those_of_zlib(levels: int) -> None:
    rows = evidence(6, shape=(1, 16, 16), levels=levels)
    rows.x[0] = levels - 1
    rows.x[1] %= 2  # what zlib works harder for
    # What lies between pixels, or above the last, is taken for the nearest one.
    sent = rows.x + np.random.default_rng(0).choice([-0.4, 0.4], size=rows.x.shape)
    sent[0] = np.where(sent[0] < levels - 1, levels - 1, levels - 0.4)
    for index, score in enumerate(_score("complexity", rows._replace(x=sent))):
        row = bytes(int(value) for value in rows.x[index].ravel())
        lengths = [len(zlib.compress(row, level)) for level in (1, 9)]
        assert index != 1 or lengths[0] > lengths[1]
        bits = -rows.log_prob[index] / math.log(2) - 8 * lengths[1]
        assert score == pytest.approx(bits / 256, rel=1e-14)


@pytest.mark.parametrize(("levels", "found"), [(None, "no pixels"), (257, "257 levels")])
def test_complexity_of_what_zlib_cannot_judge(levels: int | None, found: str) -> None:
    with pytest.raises(StatisticError, match=f"at most 256 levels, the model has {found}"):
        _score("complexity", evidence(3)._replace(num_levels=levels))


def test_ratio_is_of_the_background() -> None:
    rows = evidence(5)
    assert (_score("ratio", rows) == rows.background - rows.log_prob).all()
    with pytest.raises(StatisticError, match="background model, got none"):
        _score("ratio", rows._replace(background=None))


def test_latent_of_a_table_is_its_norm() -> None:
    rows = evidence(50)
    norms = [sum(float(value) ** 2 for value in row) for row in rows.z]
    expected = np.abs(np.array(norms) - np.mean(norms)) / np.std(norms)
    assert _score("latent", rows) == pytest.approx(expected, rel=1e-9)


def test_latent_of_an_image_is_norm_and_correlation() -> None:
    rows = evidence(50, shape=(1, 4, 4), levels=256)
    norms, correlations = [], []
    for row in rows.z.astype(np.float64):
        norms.append(sum(row**2))
        centred = row - row.mean()
        together = sum(centred[i] * centred[i + 1] for i in range(15))
        correlations.append(together / sum(centred**2))
    parts = [(values - np.mean(values)) / np.std(values) for values in (norms, correlations)]
    expected = np.sqrt(parts[0] ** 2 + parts[1] ** 2)
    assert _score("latent", rows) == pytest.approx(expected, rel=1e-9)


def test_latent_finds_both_sides() -> None:
    """A z of noise has no correlation, and its norm is about D: less is as odd as more."""
    normal = evidence(500, shape=(1, 8, 8), levels=256)
    smooth = np.sort(normal.z, axis=1)
    odd = {"short": normal.z / 2, "long": normal.z * 2, "smooth": smooth, "blank": 0 * smooth + 1}
    for name, z in odd.items():
        scores = _score("latent", normal._replace(z=z), normal)
        assert np.median(scores) > np.quantile(_score("latent", normal), 0.99), name


@pytest.mark.parametrize(
    ("name", "shape", "levels"), [case for case in CASES if case[1][0] in (3, 1)]
)
def test_rows_without_a_finite_log_prob(
    name: str, shape: tuple[int, ...], levels: int | None
) -> None:
    rows = evidence(9, shape=shape, levels=levels)
    scores = _score(name, rows)
    for part in (rows.z, rows.log_prob, rows.background):
        assert part is not None
        part[2], part[5] = -np.inf, np.nan
    if levels is not None:
        rows.x[2], rows.x[5] = np.inf, np.nan
    changed = _score(name, rows, evidence(9, shape=shape, levels=levels))
    assert changed[2] == np.inf
    assert math.isnan(changed[5])
    others = [0, 1, 3, 4, 6, 7, 8]
    assert (changed[others] == scores[others]).all()
    assert all(np.isfinite(value).all() for value in STATISTICS[name].fit(rows).values())


@pytest.mark.parametrize("name", STATISTICS)
def test_rows_without_a_density_have_no_score(name: str) -> None:
    """Also where all else of them is finite."""
    rows = evidence(4, shape=(1, 4, 4), levels=256)
    changed = rows._replace(log_prob=np.append([np.nan, np.inf, -np.inf], rows.log_prob[3]))
    scores = _score(name, changed, rows)
    assert np.isnan(scores[:2]).all()
    assert (scores[2:] == [np.inf, _score(name, rows)[3]]).all()


def test_every_statistic_has_its_row() -> None:
    for name, statistic in STATISTICS.items():
        assert statistic.name == name
        assert statistic.summary.endswith(".")
        rows = evidence(20, shape=(1, 4, 4), levels=256)
        parameters = statistic.fit(rows)
        statistic.check(parameters)
        with pytest.raises(StatisticError, match=f"{name}: expected the parameters"):
            statistic.check({**parameters, "other": np.zeros(1)})


def test_another_zlib_is_no_zlib_of_the_calibration() -> None:
    complexity = STATISTICS["complexity"]
    parameters = complexity.fit(evidence(3))
    with pytest.raises(StatisticError, match="zlib of this machine compresses to other lengths"):
        complexity.check({"zlib": parameters["zlib"] + 1})


@pytest.mark.parametrize(
    ("levels", "name"), [(256, "complexity"), (17, "neg_log_prob"), (None, "neg_log_prob")]
)
def test_what_auto_takes(levels: int | None, name: str) -> None:
    assert choose_statistic(levels) == name


def test_statistics_as_they_are_asked_for() -> None:
    assert parse_statistic("latent") == (STATISTICS["latent"], None)
    assert parse_statistic("ratio:broad:v1") == (STATISTICS["ratio"], "broad:v1")
    for text in ("ratio", "ratio:", "latent:broad", "log_prob", "", "auto"):
        with pytest.raises(StatisticError, match=r"expected one of neg_log_prob, .*ratio:NAME"):
            parse_statistic(text)
        with pytest.raises(StatisticError):
            calibrate(evidence(5), statistic=text, weights="", dtype="float32", dataset="")
