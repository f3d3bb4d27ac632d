"""log(1 + exp(x)) to float64's own rounding, for scales and log-dets.

Networks keep torch's own: their weights were trained with it.
"""

import torch.nn.functional as F
from torch import Tensor

# Beyond this torch returns x. Its own threshold of 20 leaves exp(-20) = 2e-9 out, which float64
# sees; exp(-40) = 4e-18 it does not, and float32 holds exp(40).
_THRESHOLD = 40.0


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), any shape."""
    return F.softplus(x, threshold=_THRESHOLD)
