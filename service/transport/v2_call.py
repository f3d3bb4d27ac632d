"""What a request in the Open Inference Protocol asks for: which operation, fields and outputs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from service.codec.columns import gather_tensors
from service.codec.parameters import check_known
from service.codec.v2 import Inference
from service.contracts import ModelCard
from service.errors import InvalidParameter, MissingField, UnknownField
from service.operations import OPERATIONS, Operation
from service.operations.failures import STATUS
from service.operations.fields import CONTEXT, MODEL, RETURN_EVALUATIONS
from service.operations.sample import RETURN_LOG_PROB
from service.operations.solver_stats import EVALUATIONS
from service.operations.spec import SCALE
from service.operations.trajectory import NAME as STATES
from service.operations.trajectory import TRAJECTORY

# What the protocol has words of its own for, or no use.
_NOT_PARAMETERS = {field.name for field in (MODEL, CONTEXT, SCALE, RETURN_LOG_PROB)}
_OWN_PARAMETERS = ("operation", "timeout", "binary_data_output")
# What is meant where no operation is named, by the tensor that is there.
_BY_TENSOR = {"x": "encode", "z": "decode", None: "sample"}
_TENSORS = tuple(name for name in _BY_TENSOR if name is not None)
# Outputs that a parameter asks for: there with it, named or not.
BY_PARAMETER = {EVALUATIONS: RETURN_EVALUATIONS.name, STATES: TRAJECTORY.name}
# Triton's, of schedulers and sequences: a flow has no state and one priority, so they mean nothing.
# MLServer's clients say of themselves how they made the tensors: "content_type".
_RESERVED_PARAMETERS = (
    *("priority", "sequence_id", "sequence_start", "sequence_end", "headers"),
    "content_type",
)
_RESERVED_PREFIX = "triton_"


class V2Call(NamedTuple):
    """What a request asks for.

    operation: makes the engine's input of the fields.
    fields: of that operation.
    outputs: that are asked for: what computes each, and whether it goes as bytes.
    finished_by: what computes them; of the status alone all that it may be about.
    status: whether the codes of the rows go as bytes, where they are asked for by name.
    """

    operation: Operation
    fields: dict[str, Any]
    outputs: dict[str, tuple[Operation, bool]]
    finished_by: tuple[Operation, ...]
    status: bool | None = None


class V2CallReader:
    """Reads what requests ask for.

    Args:
        operations: that there are.
    """

    def __init__(self, operations: Sequence[Operation]) -> None:
        named = {each.name: each for each in operations}
        self._beside = {each: tuple(named[name] for name in each.v2_beside) for each in operations}
        self._fitting = {
            tensor: (named[name], *_others(operations, tensor, named[name]))
            for tensor, name in _BY_TENSOR.items()
        }
        self._parameters = {
            each: frozenset(each.query_fields) - _NOT_PARAMETERS for each in operations
        }
        ordered = dict.fromkeys(name for each in operations for name in each.query_fields)
        self._all_parameters = tuple(name for name in ordered if name not in _NOT_PARAMETERS)

    def read(self, inference: Inference, card: ModelCard) -> V2Call:
        """Tell from inputs, outputs and parameters what is asked for.

        Raises:
            UnknownField, InvalidParameter, MissingField: they do not say one thing.
        """
        if card.feature_names is not None:
            columns = card.feature_names
            tensors = gather_tensors(inference.tensors, columns, _TENSORS, CONTEXT.name)
            inference = inference._replace(tensors=tensors)
        operation, asked = self._choose(inference)
        possible = {
            name: each
            for each in (operation, *self._beside[operation])
            for name in each.answered_names(card, inference.parameters)
        }
        wanted = inference.outputs
        if wanted is None:
            names = possible if asked is operation else asked.output_names(card)
            wanted = dict.fromkeys(names, inference.is_binary)
        possible |= {
            name: asked
            for name, parameter in BY_PARAMETER.items()
            if name in wanted and _is_set(inference.parameters.get(parameter))
        }
        for name in [name for name in wanted if name not in possible]:
            _refuse_without_parameter(name, operation)
            operation.refuse_output(name, card, inference.parameters)
        check_known(wanted, (*possible, STATUS))
        fields: dict[str, Any] = dict(inference.tensors)
        own = self._parameters[operation]
        fields |= {name: value for name, value in inference.parameters.items() if name in own}
        if RETURN_LOG_PROB.name in operation.field_names:
            fields[RETURN_LOG_PROB.name] = "log_prob" in wanted
        outputs = {
            name: (possible[name], is_binary)
            for name, is_binary in wanted.items()
            if name != STATUS
        }
        everything = (operation, *self._beside[operation]) if asked is operation else (asked,)
        finished_by = tuple(dict.fromkeys(each for each, _ in outputs.values())) or everything
        return V2Call(operation, fields, outputs, finished_by, wanted.get(STATUS))

    def _choose(self, inference: Inference) -> tuple[Operation, Operation]:
        """Tell from the tensors and from parameters.operation what is to be done.

        Returns:
            The operation that makes the engine's input, and the one that was asked for: the same,
            or one whose outputs stand beside its own.
        """
        tensors, parameters = inference.tensors, inference.parameters
        own = [name for name in parameters if not _is_reserved(name)]
        check_known(own, (*_OWN_PARAMETERS, *self._all_parameters))
        check_known(tensors, (*_TENSORS, CONTEXT.name))
        given = [name for name in _TENSORS if name in tensors]
        if len(given) > 1:
            raise InvalidParameter(
                f"inputs: expected {' or '.join(_TENSORS)}, got both", at="/inputs"
            )
        asked = parameters.get("operation")
        if not given and asked is None and "num_samples" not in parameters:
            raise MissingField(
                "inputs: expected x or z; parameters.num_samples draws samples", at="/inputs"
            )
        fitting = self._fitting[given[0] if given else None]
        said = [name for name in self._all_parameters if name in parameters]
        for name in said:
            if all(name not in each.field_names for each in fitting):
                raise InvalidParameter(
                    f"{name}: only of {self._whose(name)}", at=f"/parameters/{name}"
                )
        found = next((each for each in fitting if asked in (None, each.name)), None)
        if found is None:
            raise InvalidParameter(
                f"operation: these inputs are for {' or '.join(each.name for each in fitting)}, "
                f"got {asked!r:.40}",
                at="/parameters/operation",
            )
        operation = fitting[0] if found in self._beside[fitting[0]] else found
        for name in said:
            if name not in operation.field_names:
                raise InvalidParameter(f"{name}: not of {found.name}", at=f"/parameters/{name}")
        if CONTEXT.name not in operation.field_names:
            check_known(tensors, given)
        return operation, found

    def _whose(self, parameter: str) -> str:
        """Say which calls have a parameter, by the tensor that they take."""
        takes = [
            tensor
            for tensor, kinds in self._fitting.items()
            if any(parameter in each.field_names for each in kinds)
        ]
        named = [tensor for tensor in takes if tensor is not None]
        calls = f"calls that take {' or '.join(named)}" if named else ""
        if None not in takes:
            return calls
        return f"{calls}, and of samples" if calls else "samples, which take no x and no z"


def _is_set(parameter: Any) -> bool:
    return parameter is not None and parameter is not False


def _refuse_without_parameter(name: str, operation: Operation) -> None:
    """Say which parameter asks for an output that is named without it.

    Raises:
        UnknownField: the operation has that parameter.
    """
    parameter = BY_PARAMETER.get(name)
    if parameter in operation.field_names:
        raise UnknownField(
            f"{name}: it is answered with the parameter {parameter}; send that", at="/outputs"
        )


def _others(
    operations: Sequence[Operation], tensor: str | None, default: Operation
) -> list[Operation]:
    return [each for each in operations if each.tensor_name == tensor and each is not default]


def all_outputs(card: ModelCard) -> tuple[str, ...]:
    """The outputs that a model has, of whatever operation."""
    kinds = {kind.name: kind for kind in OPERATIONS}
    ordered = [kinds[name] for name in _BY_TENSOR.values()] + list(OPERATIONS)
    names = [
        name
        for kind in ordered
        for each in (kind, *(kinds[beside] for beside in kind.v2_beside))
        for name in each.output_names(card)
    ]
    return tuple(dict.fromkeys(names))


def output_dtypes() -> dict[str, np.dtype[Any]]:
    """The dtypes of the outputs that have one of their own, whatever the model computes in."""
    outputs = [each for kind in OPERATIONS for each in kind.outputs]
    return {each.name: np.dtype(each.dtype) for each in outputs if each.dtype is not None}


def _is_reserved(name: str) -> bool:
    return name in _RESERVED_PARAMETERS or name.startswith(_RESERVED_PREFIX)
