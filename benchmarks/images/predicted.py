"""What was predicted before the models were there: rows a second on two cores.

By arithmetic: a core does 40 GFLOP/s. A PixelCNN multiplies 0.2 GFLOP a row and takes as long
again for 784 x 256 probabilities in float64; a sample costs as much as eight rows, since 28 rows
of pixels take some ten passes each over a 28th of the image. A TarFlow of 49 patches multiplies
0.05 GFLOP a row; a sample costs the overhead of 49 small steps a block.
"""

from collections.abc import Mapping

_TARFLOW = {"log_prob": 1000, "encode": 1000, "sample": 200, "decode": 200}
PREDICTED: Mapping[str, Mapping[str, float]] = {
    "digits-tarflow": _TARFLOW,
    "digits-classes": _TARFLOW,
    "digits-pixelcnn": {"log_prob": 200, "encode": 200, "sample": 25, "decode": 25},
}
