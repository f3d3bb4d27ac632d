"""The opset of a graph: what an older one can hold is said in it, without a change to a node."""

import onnx

_CHECKER_ERRORS = (onnx.checker.ValidationError, onnx.shape_inference.InferenceError)


def in_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Say in a graph that its operators are of an opset; it holds the same nodes.

    Between 18 and 23 the operators of our graphs have only come to take more types, so that a graph
    that is well-formed in the older opset means the same there. (onnx's own converter writes other
    nodes: one graph of the zoo had other bits then.)

    Args:
        model: of any opset; it is left alone.
        opset: one of a newer graph is lowered to this, an older graph stays as it is.

    Raises:
        ValueError: something in the graph is not in that opset.
    """
    lowered = onnx.ModelProto()
    lowered.CopyFrom(model)
    (given,) = (one for one in lowered.opset_import if one.domain == "")
    if given.version <= opset:
        return lowered
    given.version = opset
    try:
        onnx.checker.check_model(lowered, full_check=True)
    except _CHECKER_ERRORS as error:
        raise ValueError(
            f"expected operators of opset {opset}, and a node of the graph has another form "
            f"({error}): export the model again with --opset {opset}"
        ) from None
    return lowered
