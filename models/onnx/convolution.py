"""Convolutions: onnxruntime's own in float32, products with a matrix in float64, which it lacks."""

import torch

from models.onnx.graph import Graph, UnsupportedOperator, Value
from models.onnx.operators import on, operand
from models.onnx.structure import reshaped


@on(torch.ops.aten.convolution.default)
def _convolution(
    g: Graph,
    out: list[Value],
    input: Value,
    weight: Value,
    bias: Value | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> list[str]:
    if transposed:
        raise UnsupportedOperator("a transposed convolution")
    if out[0].dtype == torch.float64:
        if groups != 1 or weight.constant is None:
            raise UnsupportedOperator("a float64 convolution in groups, or of weights that move")
        patches = _patches(g, input, out[0], weight.shape[2:], stride, padding, dilation)
        return _product(g, patches, weight.constant, bias, out[0])
    names = [g.ref(input), g.ref(weight), *([] if bias is None else [g.ref(bias)])]
    return g.add(
        "Conv",
        names,
        strides=list(stride),
        pads=[*padding, *padding],
        dilations=list(dilation),
        group=groups,
    )


def _patches(
    g: Graph,
    x: Value,
    out: Value,
    kernel: tuple[int, ...],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> str:
    """What every output pixel sees: (B, C, H, W) -> (B, kernel pixels x C, H', W')."""
    name = g.ref(x)
    if any(padding):
        pads = g.ints([0, 0, *padding, 0, 0, *padding])
        (name,) = g.add("Pad", [name, pads, operand(g, 0.0, x.dtype)])
    steps = g.ints(stride)
    seen = []
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            first = [row * dilation[0], column * dilation[1]]
            # One behind the last pixel of this offset.
            ends = [
                start + (size - 1) * step + 1
                for start, size, step in zip(first, out.shape[2:], stride, strict=True)
            ]
            given = [name, g.ints(first), g.ints(ends), g.ints([2, 3]), steps]
            seen += g.add("Slice", given)
    return seen[0] if len(seen) == 1 else g.add("Concat", seen, axis=1)[0]


def _product(
    g: Graph, patches: str, weight: torch.Tensor, bias: Value | None, out: Value
) -> list[str]:
    channels, height, width = out.shape[1:]
    matrix = weight.permute(0, 2, 3, 1).reshape(channels, -1)
    flat = g.add("Reshape", [patches, g.ints([-1, matrix.shape[1], height * width])])
    product = g.add("MatMul", [g.constant(matrix), *flat])
    names = reshaped(g, product[0], out)
    if bias is None:
        return names
    if bias.constant is None:
        raise UnsupportedOperator("a float64 convolution of a bias that moves")
    return g.add("Add", [*names, g.constant(bias.constant.reshape(-1, 1, 1))])
