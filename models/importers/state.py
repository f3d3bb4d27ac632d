"""A state dict as the importer handles it: names and tensors."""

from torch import Tensor

State = dict[str, Tensor]


def joined(name: str, key: object) -> str:
    """The name of what stands under a key."""
    return f"{name}.{key}" if name else str(key)
