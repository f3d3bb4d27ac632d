"""What wrappers of modules put into the keys of a state dict, and what they count beside them."""

from models.importers.report import ImportRefused, Report
from models.importers.spectral_norm import without_spectral_norm
from models.importers.state import State, joined

# The part of a key that a wrapper puts in front of its module's own, and who does so.
_WRAPPERS = {
    "module": "DataParallel",
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FSDP",
    "_checkpoint_wrapped_module": "activation checkpointing",
    "_forward_module": "Lightning Fabric",
}
_COUNTERS = ("total_ops", "total_params")
# What FSDP calls parameters that it has joined and cut into shards.
_FLAT = ("flat_param", "_flat_param")


def plain_keys(state: State, name: str, report: Report) -> State:
    """Drop wrappers and counters from keys, and write weight norm in its old style.

    Raises:
        ImportRefused: if a key is held twice, or parameters are shards.
    """
    plain: State = {}
    wrapped: set[str] = set()
    for key, tensor in state.items():
        parts = key.split(".")
        if parts[-1] in _COUNTERS:
            report.ignored(joined(name, key), "a counter")
            continue
        if parts[-1] in _FLAT:
            raise ImportRefused(
                f"{key}: parameters that FSDP has joined and cut into shards; expected a whole "
                "state dict: save model.state_dict() under FSDP.state_dict_type(model, "
                "StateDictType.FULL_STATE_DICT)"
            )
        wrapped |= {part for part in parts[:-1] if part in _WRAPPERS}
        short = _old_weight_norm(without_wrappers(key))
        if short in plain:
            raise ImportRefused(f"{key}: the file holds {short} twice, with and without a wrapper")
        plain[short] = tensor
    for part in sorted(wrapped):
        report.mended(name or "keys", f"`{part}.` ({_WRAPPERS[part]}) was taken off the keys")
    if any(key.endswith(".parametrizations.weight.original0") for key in state):
        report.mended(name or "keys", "weight norm is written in its old style")
    return without_spectral_norm(plain, name, report)


def without_wrappers(key: str) -> str:
    """A key as the module inside all wrappers knows it."""
    return ".".join(part for part in key.split(".") if part not in _WRAPPERS)


def _old_weight_norm(key: str) -> str:
    return key.replace("parametrizations.weight.original0", "weight_g").replace(
        "parametrizations.weight.original1", "weight_v"
    )
