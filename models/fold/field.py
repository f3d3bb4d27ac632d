"""Dense vector fields for inference: what depends on the time alone is done for a whole step."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.fold.jacobian_trace import Pushed, fold_trace
from models.ode.fields.activations import Activation
from models.ode.fields.dense import DenseDynamics
from models.ode.fields.dense_layers import Modulated


class Tape(NamedTuple):
    """What an evaluation leaves for the trace: inputs and outputs of every activation, (B, W)."""

    inputs: list[Tensor]
    outputs: list[Tensor]

    @staticmethod
    def joined(tapes: Sequence["Tape"]) -> "Tape":
        """The evaluations of each row one below the other, (B * len(tapes), W)."""

        def join(parts: Sequence[Tensor]) -> Tensor:
            return torch.cat(list(parts), 1).reshape(-1, parts[0].shape[1])

        inputs = [join(parts) for parts in zip(*(tape.inputs for tape in tapes), strict=True)]
        outputs = [join(parts) for parts in zip(*(tape.outputs for tape in tapes), strict=True)]
        return Tape(inputs, outputs)


class Modulation:
    """Gates and shifts of all layers at the times of `stages` stages: gate * (W h + b) + shift.

    Args:
        gate: (B * stages, W), W the width of all layers together; None for 1.
        shift: (B * stages, W); None for 0.
    """

    def __init__(
        self, gate: Tensor | None, shift: Tensor | None, widths: Sequence[int], stages: int
    ) -> None:
        self._gate = gate
        self._stages = stages
        self._widths = list(widths)
        self._gates = self._by_stage(gate)
        self._shifts = self._by_stage(shift)

    def at(self, stage: int) -> list[tuple[Tensor | None, Tensor | None]]:
        """Gate and shift (B, width) of each layer at one stage."""
        return list(zip(self._gates[stage], self._shifts[stage], strict=True))

    def gates(self, first: int = 0) -> list[Tensor | None]:
        """The gates of each layer from stage `first` on, (B * (stages - first), width)."""
        if self._gate is None:
            return [None] * len(self._widths)
        width = self._gate.shape[1]
        rows = self._gate.reshape(-1, self._stages * width)[:, first * width :]
        return list(rows.reshape(-1, width).split(self._widths, 1))

    def _by_stage(self, values: Tensor | None) -> Sequence[Sequence[Tensor | None]]:
        count, stages = len(self._widths), self._stages
        if values is None:
            return [[None] * count] * stages
        parts = values.reshape(-1, stages * values.shape[1]).split(self._widths * stages, 1)
        return [parts[i * count : (i + 1) * count] for i in range(stages)]


class FoldedField(nn.Module):
    """The field of a `DenseDynamics` whose layers are all `Modulated`.

    The inputs of the first layer beside x, the time and the context, become part of its bias.

    Args:
        dynamics: is left as it is.
    """

    gate_weight: Tensor | None
    gate_bias: Tensor | None
    frequencies: Tensor | None
    time_weight: Tensor | None
    shift: Tensor | None
    bias: Tensor
    context_weight: Tensor | None

    def __init__(self, dynamics: DenseDynamics) -> None:
        super().__init__()
        layers = cast(list[Modulated], list(dynamics.layers))
        self.features = dynamics.event_shape[0]
        self.widths = [layer.linear.out_features for layer in layers]
        self.residual = dynamics.residual
        self.activations = dynamics.activations
        weights = [layer.linear.weight[:, layer.time_column :] for layer in layers]
        columns = dynamics.columns
        first = weights[0]
        weights[0] = first[:, columns]
        self.weights = nn.ParameterList(
            nn.Parameter(weight.contiguous(), requires_grad=False) for weight in weights
        )
        after = columns.stop + dynamics.context_features
        context = first[:, columns.stop : after] if dynamics.context_features else None
        self.register_buffer("context_weight", context)
        self.register_buffer("bias", torch.cat([layer.linear.bias for layer in layers]))
        self.fast_form = fold_trace(weights, gated=layers[-1].gate is not None)
        pushed = isinstance(self.fast_form, Pushed)
        self.small_form = self.fast_form if pushed else Pushed(weights)
        self._keep_modulation(layers)
        self._keep_time(layers, first[:, : columns.start], first[:, after:])
        fourier = dynamics.time_input == "fourier"
        self.register_buffer("frequencies", dynamics.frequencies if fourier else None)

    def _keep_modulation(self, layers: list[Modulated]) -> None:
        gates = [layer.gate for layer in layers if layer.gate is not None]
        shifts = [layer.shift.weight[:, 0] for layer in layers if layer.shift is not None]
        weight = torch.cat([gate.weight for gate in gates]) if gates else None
        bias = torch.cat([gate.bias for gate in gates]) if gates else None
        self.register_buffer("gate_weight", weight)
        self.register_buffer("gate_bias", bias)
        self.register_buffer("shift", torch.cat(shifts) if shifts else None)

    def _keep_time(self, layers: list[Modulated], fourier: Tensor, last: Tensor) -> None:
        """Keep the weights of [t, cos(w t), sin(w t)] in the biases, (W, 1 + 2n)."""
        direct = torch.cat([layer.linear.weight[:, : layer.time_column] for layer in layers])
        weight = fourier.new_zeros(sum(self.widths), 1 + fourier.shape[1])
        if layers[0].time_column:
            weight[:, :1] = direct
        weight[: self.widths[0], :1] += last.sum(1, keepdim=True)
        weight[: self.widths[0], 1:] = fourier
        self.register_buffer("time_weight", weight if bool(weight.any()) else None)

    def modulation(self, times: Tensor) -> Modulation:
        """Gates and biases at the times of a number of stages, times (B, stages)."""
        stages = times.shape[1]
        t = times.reshape(-1, 1)
        shift, gate = None, None
        if self.time_weight is not None:
            inputs = t
            if self.frequencies is not None:
                angles = t * self.frequencies
                inputs = torch.cat([t, angles.cos(), angles.sin()], 1)
            shift = F.linear(inputs, self.time_weight)
        if self.gate_weight is not None:
            gate = torch.sigmoid(F.linear(t, self.gate_weight, self.gate_bias))
            shift = None if shift is None else gate * shift
        if self.shift is not None:
            drift = t * self.shift
            shift = drift if shift is None else shift + drift
        return Modulation(gate, shift, self.widths, stages)

    def from_context(self, context: Tensor | None) -> Tensor | None:
        """What the context (B, C) adds in the first layer, (B, width)."""
        if context is None or self.context_weight is None:
            return None
        return context @ self.context_weight.T

    def velocity(
        self,
        x: Tensor,
        modulation: list[tuple[Tensor | None, Tensor | None]],
        extra: Tensor | None,
    ) -> tuple[Tensor, Tape]:
        """dx/dt (B, D), and what the trace at the same place needs."""
        h, tape = x, Tape([], [])
        biases = self.bias.split(self.widths)
        for index, (gate, shift) in enumerate(modulation):
            z = F.linear(h, self.weights[index], biases[index])
            if index == 0 and extra is not None:
                z = z + extra
            z = z if gate is None else gate * z
            z = z if shift is None else z + shift
            if index == len(self.activations):
                return (z - x if self.residual else z), tape
            h = cast(Activation, self.activations[index])(z)
            tape.inputs.append(z)
            tape.outputs.append(h)
        raise RuntimeError("a dense field has one layer more than activations")

    def trace(self, tape: Tape, gates: list[Tensor | None], *, once: bool = False) -> Tensor:
        """Trace of df/dx, one for every row of the tape.

        Args:
            once: outside the loop, where a graph need not hold products of weights a second time.

        Returns:
            (N, 1).
        """
        slopes = []
        for x, y, gate, activation in zip(*tape, gates, self.activations, strict=False):
            slope = cast(Activation, activation).slope(x, y)
            slopes.append(slope if gate is None else slope * gate)
        form = self.small_form if once else self.fast_form
        trace: Tensor = form(slopes, gates[-1]).reshape(-1, 1)
        return trace - self.features if self.residual else trace
