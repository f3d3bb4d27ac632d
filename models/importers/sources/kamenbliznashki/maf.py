"""kamenbliznashki/normalizing_flows, maf.py: MADE, MAF and RealNVP over tabular data.

Its conventions, from data to latents: MADE u = (x - m) exp(-a), with (m, a) the halves of the
output; the masks are stored, no permutation stands between blocks, and every block has the order of
the one before it reversed. RealNVP u = (x - t(mx)) exp(-s(mx)) where the stored mask is 0, with two
networks of their own (tanh for s, ReLU for t); a label stands in front of the features. Batch norm
divides by sqrt(running_var + 1e-5).

Reference: github.com/kamenbliznashki/normalizing_flows, maf.py (2020-01-21).
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from models.importers.layouts import chain_layers, networks
from models.importers.layouts.chain_layers import Part
from models.importers.layouts.networks import Linear, Net
from models.importers.likelihood import Reported, Term
from models.importers.report import ImportRefused
from models.importers.source import Conversion, Count, Inference, Source, SourceConfig
from models.importers.weights import Weights

_BATCH_NORM_EPS = 1e-5
_AFFINE = {"kind": "affine", "scale": "exp", "form": "unshift_then_unscale"}


class Config(SourceConfig):
    """Arguments of maf.py, and of its classes."""

    model: Literal["made", "maf", "realnvp"]
    input_size: Count
    n_blocks: Count
    hidden_size: Count
    n_hidden: Annotated[int, Field(ge=0)]
    batch_norm: bool
    cond_label_size: Count | None
    activation_fn: Literal["relu", "tanh"]


def infer(weights: Weights) -> Inference:
    """Read everything but the activation off the weights.

    Raises:
        ImportRefused: for the mixtures of Gaussians.
    """
    if weights.has(r"mademog\..*"):
        raise _no_mixtures("MAFMOG")
    seen = Inference()
    features = weights.shape("base_dist_mean")[0]
    seen.know("input_size", features, "base_dist_mean")
    seen.suppose("activation_fn", "relu", "of maf.py; RealNVP has its own")
    if "net_input.weight" in weights:
        seen.know("model", "made", "net_input at the top")
        seen.know("n_blocks", 1, "a MADE is one block")
        seen.know("batch_norm", False, "a MADE has none")
    else:
        is_maf = weights.has(r"net\.0\.net_input\.weight")
        seen.know("model", "maf" if is_maf else "realnvp", "the layers of net.0")
        batch_norm = weights.has(r"net\.1\.log_gamma")
        seen.know("batch_norm", batch_norm, "net.1.log_gamma, or none")
        layers = weights.count(r"net\.(\d+)\.")
        seen.know("n_blocks", layers // (1 + batch_norm), f"{layers} layers in net")
    if seen.found["model"].value == "realnvp":
        _infer_coupling(weights, seen, features)
    else:
        _infer_made(weights, seen, features)
    return seen


def _infer_made(weights: Weights, seen: Inference, features: int) -> None:
    prefix = "" if "net_input.weight" in weights else "net.0."
    hidden = weights.shape(f"{prefix}net_input.weight")[0]
    seen.know("hidden_size", hidden, f"{prefix}net_input.weight")
    inner = weights.indices(rf"{prefix}net\.(\d+)\.weight".replace("net.0.", r"net\.0\."))
    seen.know("n_hidden", len(inner) - 1, "masked layers behind the first")
    outputs = weights.shape(f"{prefix}net.{inner[-1]}.weight")[0]
    if outputs != 2 * features:
        raise _no_mixtures("MADEMOG")
    condition = f"{prefix}net_input.cond_weight"
    labels = weights.shape(condition)[1] if condition in weights else None
    seen.know("cond_label_size", labels, f"{condition}, or none")


def _infer_coupling(weights: Weights, seen: Inference, features: int) -> None:
    hidden, inputs = weights.shape("net.0.s_net.0.weight")
    seen.know("hidden_size", hidden, "net.0.s_net.0.weight")
    seen.know("cond_label_size", (inputs - features) or None, f"inputs of s_net: {inputs}")
    layers = weights.indices(r"net\.0\.s_net\.(\d+)\.weight")
    seen.know("n_hidden", len(layers) - 2, "layers of s_net")


def _no_mixtures(model: str) -> ImportRefused:
    return ImportRefused(
        f"{model}: a mixture of Gaussians a feature is a density, not a map to latents, and cannot "
        "be decoded; MADE, MAF and RealNVP of maf.py can be imported"
    )


def convert(config: Config, weights: Weights) -> Conversion:
    """Turn the weights into a chain."""
    weights.skip(r"(.*\.)?base_dist_(mean|var)", "zeros and ones: the base is standard normal")
    parts: list[Part] = []
    for block in range(config.n_blocks):
        prefix = "" if config.model == "made" else f"net.{block * (1 + config.batch_norm)}."
        make = _coupling if config.model == "realnvp" else _made
        parts.append(make(weights, prefix, config))
        if config.batch_norm:
            name = f"net.{2 * block + 1}"
            parts.append(
                chain_layers.exp_batch_norm(weights, name, config.input_size, _BATCH_NORM_EPS)
            )
    described, layers = chain_layers.chain(
        parts, config.input_size, num_classes=config.cond_label_size
    )
    return Conversion(
        family="chain",
        config=described,
        layers=layers,
        reported=_reported(config),
        data="the table as the source normalises it",
    )


def _made(weights: Weights, prefix: str, config: Config) -> Part:
    width, features = config.hidden_size, config.input_size
    entry = _masked(weights, f"{prefix}net_input", width, features)
    if config.cond_label_size:
        key = f"{prefix}net_input.cond_weight"
        entry = entry.with_context(weights.take(key, width, config.cond_label_size))
    names = [f"{prefix}net.{2 * index + 1}" for index in range(config.n_hidden + 1)]
    inner = [_masked(weights, name, width, width) for name in names[:-1]]
    last = _masked(weights, names[-1], 2 * features, width)
    net = networks.mlp([entry, *inner, last], config.activation_fn)
    return chain_layers.autoregressive(features, _AFFINE, net)


def _masked(weights: Weights, name: str, outputs: int, inputs: int) -> Linear:
    return networks.linear(weights, name, outputs, inputs, mask=f"{name}.mask")


def _coupling(weights: Weights, prefix: str, config: Config) -> Part:
    features = config.input_size
    mask = weights.take(f"{prefix}mask", features)
    kept = mask.nonzero().flatten().tolist()
    moved = (mask == 0).nonzero().flatten().tolist()
    shift = _net(weights, f"{prefix}t_net", "relu", kept, moved, config)
    scale = _net(weights, f"{prefix}s_net", "tanh", kept, moved, config)
    return chain_layers.coupling(kept, features, _AFFINE, networks.pair(shift, scale))


def _net(
    weights: Weights, name: str, activation: str, kept: list[int], moved: list[int], config: Config
) -> Net:
    labels, width = config.cond_label_size or 0, config.hidden_size
    widths = [labels + config.input_size, *[width] * (config.n_hidden + 1), config.input_size]
    linears = networks.sequential(weights, name, widths)
    # Of [label, masked features] to [kept features, label]; the other inputs are always zero.
    inputs = [labels + index for index in kept] + list(range(labels))
    linears[0] = linears[0].columns(inputs)
    linears[-1] = linears[-1].rows(moved)
    return networks.mlp(linears, activation)


def _reported(config: Config) -> Reported:
    if not config.cond_label_size:
        return Reported("log_prob of maf.py, which evaluate() averages: nats")
    labels = config.cond_label_size
    prior = Term(
        "labels",
        0.0,
        f"evaluate() scores rows without their labels: log(1/{labels}) + logsumexp over the "
        f"{labels} labels of log p(x | label); ours is log p(x | label) for the label given",
    )
    return Reported("log_prob(x, label) of maf.py: nats", (prior,))


def _unfold(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Turn the script's flag into the argument of the class."""
    plain = {name: value for name, value in settings.items() if name != "no_batch_norm"}
    return {**plain, **({"batch_norm": False} if settings.get("no_batch_norm") else {})}


SOURCE = Source(
    name="kamenbliznashki/normalizing_flows (maf.py)",
    short_names=(
        "kamen",
        "kamen/maf",
        "kamenbliznashki/maf",
        "kamenbliznashki/normalizing_flows",
    ),
    signature=(
        r"(maf\.)?((net\.\d+|mademog)\.)?(net_input\.weight|s_net\.0\.weight)",
        r"base_dist_mean",
    ),
    config=Config,
    infer=infer,
    convert=convert,
    training_only=frozenset(
        {
            *("dataset", "flip_toy_var_order", "seed", "input_order", "input_dims", "device"),
            *("conditional", "n_components", "train", "evaluate", "generate", "restore_file"),
            *("data_dir", "output_dir", "results_file", "no_cuda", "batch_size", "n_epochs"),
            *("start_epoch", "lr", "log_interval"),
        }
    ),
    unfold=_unfold,
)
