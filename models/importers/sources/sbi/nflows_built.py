"""Estimators that sbi builds of nflows: `maf`, `maf_rqs`, `nsf` and `made`.

Activations are not in a checkpoint, but sbi has no argument for them: tanh in masked networks, relu
in those of couplings and of `made`. Its splines end at 3 and not, as the library's own, at 1. The
network of `made` has one input in front of the features, which is zero.
"""

from models.importers.source import Conversion, Inference, Source
from models.importers.sources.nflows import flow as nflows
from models.importers.sources.nflows import mixture as nflows_mixture
from models.importers.sources.nflows.leaves import Leaf
from models.importers.sources.sbi import common
from models.importers.weights import Weights

_TAIL_BOUND = 3.0


class Config(nflows.Config):
    """Arguments of sbi's builders that decide about the function."""


def infer(weights: Weights) -> Inference:
    """Read what nflows' keys show, and add what sbi fixes."""
    leaves = nflows.leaves(weights)
    seen = nflows.infer(weights)
    is_made = nflows_mixture.is_base(weights)
    if is_made:
        seen.know("features", nflows_mixture.inputs(weights) - 1, f"inputs of {nflows_mixture.NET}")
    if seen.found["num_bins"].value is None:
        seen.suppose("num_bins", None, "there are no splines")
    is_masked = any(leaf.kind == "autoregressive" for leaf in leaves)
    seen.asked.pop("activation", None)
    seen.know("activation", "tanh" if is_masked else "relu", "sbi's builders fix it")
    if "tail_bound" in seen.asked:
        del seen.asked["tail_bound"]
        seen.suppose("tail_bound", _TAIL_BOUND, "sbi's default")
    model = "made" if is_made else _model(leaves)
    common.show_builder(seen, model, reason="the transforms and the base")
    affine = [leaf for leaf in leaves[:1] if leaf.kind == "affine"]
    common.show_standardising(weights, seen, f"{affine[0].name}_scale" if affine else None)
    for leaf in leaves:
        if leaf.kind == "context_spline":
            hidden = len(leaf.linears(weights)) - 2
            seen.show("hidden_layers_spline_context", hidden, reason=f"layers of {leaf.net}")
            for name in ("num_transforms", "num_layers"):
                count = sum(other.kind == leaf.kind for other in leaves)
                seen.show(name, count, reason=f"{count} splines")
    return seen


def convert(config: Config, weights: Weights) -> Conversion:
    """Turn the weights into a chain, as those of nflows."""
    converted = nflows.convert(config, weights)
    return Conversion(
        family=converted.family,
        config=converted.config,
        layers=converted.layers,
        reported=common.REPORTED,
        embedding=converted.embedding,
        data="the modelled variable",
    )


def _model(leaves: list[Leaf]) -> str:
    nets = [leaf for leaf in leaves if leaf.has_net]
    if any(leaf.kind == "autoregressive" for leaf in nets):
        return "maf_rqs" if nets[0].params > 2 else "maf"
    return "nsf"


SOURCE = Source(
    name=common.NAME,
    short_names=common.SHORT_NAMES,
    signature=(r"(net\.)?(_transform\._transforms\.\d+|_distribution\._made)\.",),
    claims=(r"(net\.)?_embedding_net\.0\._mean$",),
    builders=common.builders_of("maf", "maf_rqs", "nsf", "made"),
    config=Config,
    infer=infer,
    convert=convert,
    plain_key=common.without_net,
    unfold=lambda settings: nflows.SOURCE.unfold(common.unfold(settings)),
    training_only=nflows.SOURCE.training_only | common.TRAINING_ONLY,
)
