"""The table of engines. It imports none of them, so that settings and help cost no library."""

import importlib
from dataclasses import dataclass
from typing import Any

# What networks compute in, as the model has it; the rest is a choice that is certified for a model.
FLOAT32 = "float32"
PRECISIONS = (FLOAT32, "tf32", "tf32x3", "bf16", "fp16")
# Asks for a comparison, where an engine's name is expected.
AUTO = "auto"


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One line of the table of engines.

    module: in `service.engines`; its `make_engine` is a `service.engines.selection.MakeEngine`.
    description: what computes, as the help of the settings says it.
    lead: how many times faster than this engine another must be to be taken in its place.
    device: the only kind of device it is for, "cuda"; empty for one that computes on any.
    takes_precision: whether it can compute networks in another precision than float32.
    """

    module: str
    description: str
    lead: float = 1.0
    device: str = ""
    takes_precision: bool = False

    def serves(self, device: str) -> bool:
        """Whether it is for a kind of device: "cpu", "cuda"."""
        return self.device in ("", device)

    def load(self) -> Any:
        """Import the engine: its `make_engine`."""
        return importlib.import_module(self.module).make_engine


# Name -> engine. The first is measured before the others, to know what these may cost.
ENGINES = {
    "torch": EngineSpec("service.engines.torch", "torch"),
    "folded": EngineSpec(
        "service.engines.folded", "torch on the folded flow", takes_precision=True
    ),
    # It gives every row the same bits in every batch, and minds busy neighbours less.
    "onnx": EngineSpec("service.engines.onnx", "onnx", lead=1.05),
    "graphs": EngineSpec(
        "service.engines.cuda.graphs",
        "the folded flow in CUDA graphs",
        device="cuda",
        takes_precision=True,
    ),
    "fused": EngineSpec(
        "service.engines.cuda.fused",
        "whole couplings and solves as Triton kernels",
        device="cuda",
        takes_precision=True,
    ),
}
# What a setting may name.
CHOICES = (AUTO, *ENGINES)
