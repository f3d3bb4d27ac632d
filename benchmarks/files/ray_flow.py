"""The class that people write around a flow in torch: python -m benchmarks.files.ray_flow."""

import os
import shutil
import sys

import numpy as np
import ray
import torch

import models


class LogProb:
    """Ten lines: load once an actor, compute a batch."""

    def __init__(self, folder: str) -> None:
        torch.set_num_threads(1)
        self.flow = models.load(folder)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the log-densities of a batch."""
        x = np.stack([*batch.values()], axis=1).astype(np.float32)
        with torch.no_grad():
            return {"log_prob": self.flow.log_prob(torch.from_numpy(x)).numpy()}


def main(folder: str, path: str, out: str) -> None:
    """Compute a Parquet file in one actor a core."""
    cores = os.cpu_count() or 1
    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False)
    shutil.rmtree(out, ignore_errors=True)
    rows = ray.data.read_parquet(path)
    rows.map_batches(
        LogProb,
        fn_constructor_args=(folder,),
        batch_size=8192,
        compute=ray.data.ActorPoolStrategy(size=cores),
        # Actors that take all cores leave none to read with, and Ray waits for ever.
        num_cpus=0.5,
    ).write_parquet(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
