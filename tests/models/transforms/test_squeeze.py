import pytest
import torch
import torch.nn.functional as F

from models.transforms.squeeze import Flatten, Squeeze, SqueezeOrder, Unsqueeze

orders = pytest.mark.parametrize("order", ["channel", "checkerboard"])


def image() -> torch.Tensor:
    return torch.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)


def test_channel_order_is_4c_2row_column() -> None:
    x = image()
    y, log_det = Squeeze().encode(x)
    for c, row, column in ((0, 0, 0), (1, 0, 1), (2, 1, 0), (2, 1, 1)):
        assert torch.equal(y[:, 4 * c + 2 * row + column], x[:, c, row::2, column::2])
    assert torch.equal(y, F.pixel_unshuffle(x, 2))
    assert log_det.tolist() == [0, 0]


def test_checkerboard_order_puts_the_diagonal_first_and_channels_fastest() -> None:
    x = image()
    y, _ = Squeeze("checkerboard").encode(x)
    for place, (row, column) in enumerate(((0, 0), (1, 1), (0, 1), (1, 0))):
        assert torch.equal(y[:, 3 * place : 3 * place + 3], x[:, :, row::2, column::2])


@orders
def test_decode_and_unsqueeze_undo_it(order: SqueezeOrder) -> None:
    x = image()
    y, _ = Squeeze(order).encode(x)
    assert torch.equal(Squeeze(order).decode(y)[0], x)
    assert torch.equal(Unsqueeze(order).encode(y)[0], x)
    assert torch.equal(Unsqueeze(order).decode(x)[0], y)


def test_flatten_is_row_major() -> None:
    x = image()
    flat, log_det = Flatten((3, 4, 6)).encode(x)
    assert torch.equal(flat, x.flatten(1))
    assert log_det.shape == (2,)
    assert torch.equal(Flatten((3, 4, 6)).decode(flat)[0], x)


def test_an_unknown_order_is_named() -> None:
    with pytest.raises(ValueError, match="order: expected one of"):
        Squeeze("rows")
