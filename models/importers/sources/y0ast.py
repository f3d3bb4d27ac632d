"""y0ast/Glow-PyTorch: a port of OpenAI's Glow, see `openai_port`.

Its inputs are pixels / 256 - 0.5; it reports bits per dimension.

Reference: github.com/y0ast/Glow-PyTorch, model.py, modules.py, datasets.py, train.py (2022-07-16).
"""

import math

from models.importers.layouts import openai_port as port
from models.importers.layouts.images import Bits, dequantisation, pixel_steps
from models.importers.likelihood import Reported, Term
from models.importers.source import Conversion, Inference, Source
from models.importers.weights import Weights

# utils.uniform_binning_correction is always called with its own default of 8 bits.
_BINS = 256

_NAMES = port.Names(
    net="block",
    conv=".conv",
    linear=".linear",
    learn_top="learn_top_fn",
    lower="lower",
    upper="upper",
)


class Config(port.PortConfig):
    """Arguments of `Glow`, and `n_bits`, a constant of datasets.py."""

    n_bits: Bits = 8


def infer(weights: Weights) -> Inference:
    """Read everything off the weights, but for permutations that leave none."""
    return port.infer(weights, _NAMES)


def convert(config: Config, weights: Weights) -> Conversion:
    """Turn the weights into a Glow."""
    settings, layers = port.convert(config, weights, _NAMES)
    values = math.prod(config.image_shape)
    bins = Term("bins", -values * math.log(_BINS), "uniform_binning_correction: -D log 256")
    return Conversion(
        family="glow",
        config=settings,
        layers=layers,
        pixels=pixel_steps(shift=-0.5, bits=config.n_bits),
        data="x = pixels / 256 - 0.5",
        reported=Reported(
            "bpd, bits/dim",
            (bins, dequantisation("uniform noise in [0, 1/256)")),
            factor=-1 / (values * math.log(2)),
        ),
    )


# What train.py writes to hparams.json beside the arguments of `Glow`.
_TRAINING = frozenset(
    {
        *("dataset", "dataroot", "download", "augment", "batch_size", "eval_batch_size", "epochs"),
        *("saved_model", "seed", "y_weight", "max_grad_clip", "max_grad_norm", "lr", "n_workers"),
        *(
            "cuda",
            "n_init_batches",
            "output_dir",
            "saved_optimizer",
            "warmup",
            "fresh",
            "actnorm_scale",
        ),
    }
)

SOURCE = Source(
    name="y0ast/Glow-PyTorch",
    short_names=("y0ast", "y0ast/glow"),
    signature=(r"flow\.layers\.\d+\.actnorm\.logs", r"flow\.layers\.\d+\.block\.0\.conv\.weight"),
    config=Config,
    infer=infer,
    convert=convert,
    training_only=_TRAINING,
)
