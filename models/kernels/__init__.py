"""Parts of flows as single kernels, written in Triton; imported only where that is installed."""
