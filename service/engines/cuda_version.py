"""The CUDA versions of the libraries that would compute in one process."""

from service.engines.selection import EngineUnavailable


def require_same_cuda(torch_cuda: str | None, runtime_cuda: str) -> None:
    """See that onnxruntime was built for the CUDA that torch brings.

    Both load libcublas, libcudnn and others by names that hold the major version: of two versions
    only one finds what it was built for, and onnxruntime would compute on the CPU in silence.

    Args:
        torch_cuda: as `torch.version.cuda`, "13.0"; None where torch has none.
        runtime_cuda: as `onnxruntime.cuda_version`, "12.8"; empty where it has none.

    Raises:
        EngineUnavailable: they are not of one major version.
    """
    if not torch_cuda or not runtime_cuda:  # who has no CUDA says so elsewhere
        return
    wanted, got = torch_cuda.partition(".")[0], runtime_cuda.partition(".")[0]
    if wanted != got:
        raise EngineUnavailable(
            f"expected onnxruntime for CUDA {wanted}, that of torch ({torch_cuda}), got one for "
            f"CUDA {got} ({runtime_cuda}): install the onnxruntime-gpu that was built for CUDA "
            f"{wanted}, or choose engine graphs or torch"
        )
