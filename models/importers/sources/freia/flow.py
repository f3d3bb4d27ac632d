"""FrEIA: a SequenceINN, or a GraphINN in the order of its nodes, of blocks over vectors.

Data go through `module_list.0`, `module_list.1`, ... to the latents. A checkpoint holds neither the
base, which is the user's (N(0, I) here, as in the library's examples), nor what blocks were given:
clamps, splits, kinds of scales; nor the activations of the user's subnetworks. Options are one
value for all blocks, or a list of one a block that has it.

Reference: github.com/vislearn/FrEIA 0.2, modules/all_in_one_block.py, modules/coupling_layers.py.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from models.importers.layouts import chain_layers
from models.importers.layouts.chain_layers import Part
from models.importers.layouts.networks import ACTIVATIONS, ActivationName
from models.importers.likelihood import Reported, Term
from models.importers.report import ImportRefused
from models.importers.source import Conversion, Count, Inference, Source, SourceConfig
from models.importers.sources.freia import blocks as freia_blocks
from models.importers.sources.freia.blocks import ALL_IN_ONE, CLASSES, TWO_SIDED, Block
from models.importers.weights import Weights

_Clamp = Annotated[float, Field(gt=0)]
_Affine = Literal["SOFTPLUS", "SIGMOID", "EXP"]
_ClampActivation = Literal["ATAN", "TANH", "SIGMOID"]
_Split = Annotated[float, Field(ge=0, le=1)] | Annotated[int, Field(ge=0)]


class Config(SourceConfig):
    """Arguments of the blocks that decide about the function."""

    D: Count
    context: Annotated[int, Field(ge=0)]
    activation: ActivationName | tuple[ActivationName, ...]
    affine_clamping: _Clamp | tuple[_Clamp, ...]
    global_affine_type: _Affine | tuple[_Affine, ...]
    gin_block: bool | tuple[bool, ...]
    reverse_permutation: bool | tuple[bool, ...]
    clamp: _Clamp | tuple[_Clamp, ...]
    clamp_activation: _ClampActivation | tuple[_ClampActivation, ...]
    split_len: _Split | tuple[_Split, ...]


def infer(weights: Weights) -> Inference:
    """Read the sizes off the weights; ask for what the blocks were given.

    Raises:
        ImportRefused: names the first block that cannot be imported.
    """
    found = freia_blocks.recognise(weights)
    seen = Inference()
    features = _features(weights, found)
    seen.know("D", features, "permutations, scales and subnetworks")
    contexts = {block.context(weights, features) for block in found if block.subnets} or {0}
    seen.know("context", max(contexts), "inputs of the subnetworks")
    if any(freia_blocks.has_activation(weights, block) for block in found):
        seen.ask("activation", f"{ACTIVATIONS}; between the layers of the subnetworks")
    else:
        seen.suppose("activation", "identity", "no subnetwork has hidden layers")
    _ask(seen, found)
    _warn_of_gin(weights, found)
    freia_blocks.warn_of_holes(weights)
    _show(weights, seen, found)
    return seen


def convert(config: Config, weights: Weights) -> Conversion:
    """Turn the weights into a chain.

    Raises:
        ImportRefused: names what cannot be expressed.
    """
    found = freia_blocks.recognise(weights)
    parts: list[Part] = []
    nats = 0.0
    for block in found:
        options = _options(config, found, block)
        parts += freia_blocks.convert(weights, block, config.D, options)
        if block.kind == ALL_IN_ONE:
            nats += freia_blocks.rotation_nats(weights, block, options)
    described, layers = chain_layers.chain(parts, config.D, context_features=config.context)
    base = Term("base", 0.0, "N(0, I) is the user's choice: no base stands in the checkpoint")
    rotations = Term(
        "rotations", -nats, "log|det| of rotations rounded to float32, which FrEIA counts as 0"
    )
    return Conversion(
        family="chain",
        config=described,
        layers=layers,
        reported=Reported("log N(z; 0, I) + log_jac_det of FrEIA: nats", (base, rotations)),
        data="the inputs of the flow",
    )


# Argument -> the kinds of blocks that take it, and what fits.
_ASKED = {
    "affine_clamping": ((ALL_IN_ONE,), "a positive number (FrEIA's default is 2)"),
    "global_affine_type": ((ALL_IN_ONE,), "SOFTPLUS (FrEIA's default), SIGMOID or EXP"),
    "clamp": (("glow", "rnvp"), "a positive number (FrEIA's default is 2)"),
    "clamp_activation": (("glow", "rnvp"), "ATAN (FrEIA's default), TANH or SIGMOID"),
}
# Argument -> the kinds of blocks that take it, and the default, which few change.
_SUPPOSED: dict[str, tuple[tuple[str, ...], Any]] = {
    "gin_block": ((ALL_IN_ONE, "glow"), False),
    "reverse_permutation": ((ALL_IN_ONE,), False),
    "split_len": (TWO_SIDED, 0.5),
}
_UNUSED: dict[str, Any] = {
    "affine_clamping": 2.0,
    "global_affine_type": "SOFTPLUS",
    "clamp": 2.0,
    "clamp_activation": "ATAN",
}


def _takers(found: Sequence[Block], kinds: Sequence[str]) -> list[Block]:
    return [block for block in found if block.kind in kinds]


def _ask(seen: Inference, found: Sequence[Block]) -> None:
    for name, (kinds, fitting) in _ASKED.items():
        takers = _takers(found, kinds)
        if takers:
            some = "" if len(takers) == 1 else f"; or a list of {len(takers)}, one a block"
            seen.ask(name, fitting + some)
        else:
            seen.suppose(name, _UNUSED[name], "no block takes it")
    for name, (kinds, default) in _SUPPOSED.items():
        has_takers = bool(_takers(found, kinds))
        seen.suppose(name, default, "FrEIA's default" if has_takers else "no block takes it")


def _warn_of_gin(weights: Weights, found: Sequence[Block]) -> None:
    for block in _takers(found, ("glow",))[:1]:
        weights.report.warning(
            "blocks",
            f"{block.name.rstrip('.')} and its like are taken as GLOWCouplingBlock, unless "
            "gin_block or blocks says GINCouplingBlock, which has the same tensors",
        )


def _show(weights: Weights, seen: Inference, found: Sequence[Block]) -> None:
    features, context = seen.found["D"].value, seen.found["context"].value
    seen.show("dims_in", features, [features], [[features]], reason="D")
    conditions = ([context], [[context]]) if context else ([], None)
    seen.show("dims_c", *conditions, reason="context")
    seen.show("module", "SequenceINN", "GraphINN", reason="module_list")
    classes = [CLASSES[block.kind] for block in found]
    unique = list(dict.fromkeys(classes))
    seen.show("blocks", "+".join(unique), unique, classes, reason="keys of the blocks")
    seen.show("n_blocks", sum(bool(block.subnets) for block in found), reason="the blocks")
    rotations = [block for block in found if block.kind == ALL_IN_ONE]
    if rotations:
        soft = [freia_blocks.is_soft(weights, block) for block in rotations]
        alike = set(soft) if len(set(soft)) == 1 else ()
        seen.show("permute_soft", soft, *alike, reason="w_perm")
        counts = {freia_blocks.householders(weights, block) for block in rotations}
        if len(counts) == 1:
            seen.show("learned_householder_permutation", *counts, reason="vk_householder, or none")


def _options(config: Config, found: Sequence[Block], block: Block) -> freia_blocks.Options:
    """What one block was given, of values for all or lists."""

    def of(name: str) -> Any:
        value = getattr(config, name)
        if not isinstance(value, tuple):
            return value
        kinds = {**_ASKED, **_SUPPOSED}.get(name, (tuple(CLASSES), None))[0]
        takers = [other for other in _takers(found, kinds) if other.subnets]
        if len(value) != len(takers):
            raise ImportRefused(
                f"{name}: expected one value for all blocks, or {len(takers)}, one a block that "
                f"takes it, got {len(value)}"
            )
        return value[takers.index(block)]

    if not block.subnets:
        return freia_blocks.Options()
    names = [name for name, (kinds, _) in {**_ASKED, **_SUPPOSED}.items() if block.kind in kinds]
    return freia_blocks.Options(activation=of("activation"), **{name: of(name) for name in names})


def _features(weights: Weights, found: Sequence[Block]) -> int:
    sizes = {size for block in found if (size := block.features(weights))}
    if len(sizes) != 1:
        raise ImportRefused(
            f"D: expected the same number of features in all blocks, got {sorted(sizes)}"
        )
    return sizes.pop()


def _unfold(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """A GINCouplingBlock has the tensors of a GLOWCouplingBlock: what it is comes as gin_block."""
    blocks = settings.get("blocks")
    if "GINCouplingBlock" not in str(blocks):
        return settings
    names = [blocks] if isinstance(blocks, str) else list(blocks or ())
    plain = [str(name).replace("GINCouplingBlock", "GLOWCouplingBlock") for name in names]
    as_given = plain[0] if isinstance(blocks, str) else plain
    return {"gin_block": True, **settings, "blocks": as_given}


SOURCE = Source(
    name="FrEIA",
    short_names=("vislearn/freia", "vll-hd/freia"),
    signature=(r"module_list\.\d+\.(subnet\d?|subnet_[st][12]|F|G|global_scale|perm)(\.|$)",),
    config=Config,
    infer=infer,
    convert=convert,
    training_only=frozenset({"global_affine_init", "seed", "subnet_constructor"}),
    unfold=_unfold,
)
