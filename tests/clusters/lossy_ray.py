"""`examples/ray_data.py` on a local cluster, one of whose workers is killed in the middle.

    python -m tests.clusters.lossy_ray MODEL OUT DIED ALPHA ROWS...

Two processes that compute, of the cluster of this machine; that which comes first to its third
batch is killed there (DIED is the file that it leaves). The cluster ends with this process.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

# Before Ray is imported: it says nothing to its makers, and looks for no new release.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray

from examples import ray_data
from pushforward.batch import Scorer

_STORE_BYTES = 128 * 2**20


class MortalScorer(Scorer):
    """A `Scorer` in one process of which the kernel strikes, as it does for want of memory."""

    died = Path(sys.argv[3])
    calls = 0

    def __call__(self, batch: Any) -> Any:
        """Compute the rows of a batch; the third in a process is the last."""
        self.calls += 1
        if self.calls == 3:
            try:
                self.died.touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(batch)


def main() -> None:
    """Score rows where a worker dies."""
    model, out, _, alpha, *rows = sys.argv[1:]
    ray_data.Scorer = MortalScorer  # type: ignore[misc]
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=_STORE_BYTES,
        log_to_driver=False,
        logging_level="error",
    )
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        ray_data.score(
            model, rows, out, keep=["id"], actors=2, block_rows=12_500, alpha=float(alpha)
        )
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
