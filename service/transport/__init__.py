"""The clients of the operations: ASGI, the fast path, and the Open Inference Protocol."""
