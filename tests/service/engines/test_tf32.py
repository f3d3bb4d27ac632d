"""TF32: off for products and convolutions alike, read back, and refused where it stays on."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from service.engines.tf32 import Tf32Error, forbid_tf32, tf32_facts


def backends(*, matmul: bool = False, cudnn: bool = True) -> Any:
    """`torch.backends` as it is at first: on for convolutions."""
    flags = SimpleNamespace(allow_tf32=matmul)
    return SimpleNamespace(
        cuda=SimpleNamespace(matmul=flags), cudnn=SimpleNamespace(allow_tf32=cudnn)
    )


class Stubborn:
    """A flag that stays on."""

    allow_tf32 = property(lambda _: True, lambda *_: None)


class Mixed:
    """A flag that was set through both interfaces, to different values."""

    @property
    def allow_tf32(self) -> bool:
        raise RuntimeError("you have used a mix of the legacy and new APIs")


def test_it_is_turned_off_for_both() -> None:
    ours = backends(matmul=True)
    assert tf32_facts(ours, {}) == {"matmul": True, "cudnn": True, "overrides": {}}
    assert forbid_tf32(ours, {}) == {"matmul": False, "cudnn": False, "overrides": {}}


def test_what_nvidias_containers_set_is_told() -> None:
    override = {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}
    assert forbid_tf32(backends(), {**override, "HOME": "/"})["overrides"] == override


def test_what_it_stays_on_for_is_named() -> None:
    ours = backends()
    ours.cudnn = Stubborn()
    with pytest.raises(Tf32Error, match=r"turned off for cudnn: .*'NVIDIA_TF32_OVERRIDE': '1'"):
        forbid_tf32(ours, {"NVIDIA_TF32_OVERRIDE": "1"})


def test_flags_that_cannot_be_read_count_as_on() -> None:
    ours = backends()
    ours.cudnn = Mixed()
    assert tf32_facts(ours, {})["cudnn"] is True


def test_the_flags_of_this_torch_are_turned_off(recwarn: pytest.WarningsRecorder) -> None:
    ours = torch.backends
    before = ours.cuda.matmul.allow_tf32, ours.cudnn.allow_tf32
    is_new = hasattr(ours, "fp32_precision")
    try:
        if is_new:  # as a program before us may have left them, for one or for all
            ours.fp32_precision = "tf32"
            ours.cudnn.conv.fp32_precision = "tf32"
        found = forbid_tf32(environ={})
        assert found == tf32_facts(environ={}) == {"matmul": False, "cudnn": False, "overrides": {}}
        if is_new:
            assert ours.cudnn.conv.fp32_precision != "tf32"
            assert ours.cuda.matmul.fp32_precision != "tf32"
        assert not recwarn.list
    finally:
        if is_new:
            ours.fp32_precision = "none"
        ours.cuda.matmul.allow_tf32, ours.cudnn.allow_tf32 = before


@pytest.mark.gpu
def test_products_and_convolutions_are_those_of_float32(device: str) -> None:
    forbid_tf32()
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(rows, 512, generator=generator) for rows in (64, 512))
    images, kernels = torch.randn(8, 64, 16, 16), torch.randn(64, 64, 3, 3)
    pairs = [
        (x.to(device) @ weight.to(device), x.double() @ weight.double()),
        (
            torch.conv2d(images.to(device), kernels.to(device)),
            torch.conv2d(images.double(), kernels.double()),
        ),
    ]
    for got, wanted in pairs:
        # With 11 bits it would be 1e-3 of the largest.
        assert (got.cpu() - wanted).abs().max() < 2e-5 * wanted.abs().max()
