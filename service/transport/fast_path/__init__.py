"""The fast path from a socket to an operation, for requests that arrive whole.

    bytes ──head cache──> protocol ──plain──> coalescer ──> coalesced batch, many requests as one
                             │     └──else──> task ───────> OperationEndpoint.serve
                             └──anything else─────────────> uvicorn, ASGI, FastAPI

A one-row request costs about 15 us of HTTP with httptools alone and about 55 us through uvicorn's
ASGI cycle, which is more than all the rest of its way through the service. So a connection looks
at what arrives first: a whole and ordinary request for an operation is answered here. Everything
else, from GET /models to a body in chunks, is uvicorn's, byte for byte, as if this package were not
there: whatever is unusual in any way goes through ASGI.
"""

from service.transport.fast_path.protocol import FastPathProtocol, protocol_over
from service.transport.fast_path.shared import SharedState

__all__ = ["FastPathProtocol", "SharedState", "protocol_over"]
