"""What the Glow and the RealNVP of chrischute have in common: their logits and their loss."""

import math

import torch

from models.importers.layouts.images import dequantisation
from models.importers.likelihood import Reported, Term
from models.importers.source import Fragment, Step
from models.importers.weights import Weights

# Arguments of both training scripts that do not change the function.
TRAINING = frozenset(
    {
        *("batch_size", "benchmark", "gpu_ids", "lr", "max_grad_norm", "num_epochs", "num_samples"),
        *("num_workers", "resume", "seed", "warm_up", "weight_decay"),
    }
)


def logit(weights: Weights, key: str) -> Step:
    """The logit inside both of this author's models: v = a u + (1 - a) / 2, y = log v / (1 - v)."""
    bound = float(weights.take(key, 1))
    return {"kind": "logit", "alpha": (1 - bound) / 2}


def nats_loss(values: int) -> Reported:
    """The loss that both of this author's training scripts report."""
    bins = Term("bins", -values * math.log(256), "the loss: -D log 256")
    noise = dequantisation("uniform noise over one pixel value")
    return Reported("loss (test_loss in the checkpoint), nats an image", (bins, noise), factor=-1.0)


def batch_norm(weights: Weights, name: str, channels: int) -> Fragment:
    """A batch norm inside a network, as torch names it."""
    parts = ("weight", "bias", "running_mean", "running_var")
    counter = f"{name}.num_batches_tracked"
    has_counter = counter in weights  # torch before 0.4.1 had none
    steps = weights.take_integers(counter) if has_counter else torch.zeros((), dtype=torch.int64)
    return {
        **{part: weights.take(f"{name}.{part}", channels) for part in parts},
        "num_batches_tracked": steps,
    }
