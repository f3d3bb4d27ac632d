"""BentoML: adaptive batching over rows. JSON and log_prob only.

It refuses what it expects to take longer than `max_latency_ms`, and learns what to expect from its
last batches; one in which it was stopped, while others had their turn, would make it refuse nearly
all. So this is as long as the longest that anybody waits.
"""

import bentoml
import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.flow import Served


@bentoml.service(workers=1, traffic={"timeout": 60})
class Flow:
    """The service."""

    def __init__(self) -> None:
        self.served = Served()

    @bentoml.api(batchable=True, max_batch_size=1024, max_latency_ms=60_000)  # type: ignore[untyped-decorator]
    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Answer a batch of rows."""
        answer: NDArray[np.float32] = self.served.run([x.astype(np.float32)])[0]["log_prob"]
        return answer
