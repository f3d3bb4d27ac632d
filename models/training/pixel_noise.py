"""Coarser pixels while training: shapes are learnt first, exact greys are not learnt at all."""

import torch
from torch import Tensor

from models.training.options import TrainingError
from models.transforms.preprocess import PIXEL_BITS


def redraw(x: Tensor, bits: int) -> Tensor:
    """Replace every pixel by a whole number drawn from its n-bit bin, w floor(x / w) + U{0..w-1}.

    w = 2^(8 - n). With the dequantization noise of the flow this is uniform on a bin of width w, as
    for n-bit images; but the flow itself knows nothing of it, stays a bijection of 8-bit pixels and
    gives them a density that is smooth within such bins. Drawn from torch's global generator.

    Reference: Kingma & Dhariwal 2018, section 6, for training on 5-bit pixels (arXiv 1807.03039).
    """
    width = 2 ** (PIXEL_BITS - bits)
    inside = torch.randint(width, x.shape, device=x.device)
    floored: Tensor = torch.floor(x / width) * width
    return floored + inside


def check_levels(num_levels: int | None) -> None:
    """Make sure that the data are 8-bit pixels.

    Raises:
        TrainingError: if they are not.
    """
    if num_levels != 2**PIXEL_BITS:
        raise TrainingError(
            f"coarse_bits: expected pixels with {2**PIXEL_BITS} levels, got "
            f"{num_levels or 'data that are no pixels'}; leave it out"
        )
