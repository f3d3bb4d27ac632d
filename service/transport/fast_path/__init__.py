"""The short way from a socket to an operation, for requests that arrive whole.

    bytes ──heads──> connection ──plain──> burst ──> company, many requests as one
                         │  └──────else──> task ───> operation
                         └──anything else────────────> uvicorn, FastAPI

A one-row request costs about 15 us of HTTP with httptools alone and about 55 us through uvicorn's
ASGI cycle, which is more than all the rest of its way through the service. So a connection looks
at what arrives first: a whole and ordinary request for an operation is answered here. Everything
else, from GET /models to a body in chunks, is uvicorn's, byte for byte, as if this package were not
there: whatever is unusual in any way goes the ordinary way.
"""

from service.transport.fast_path.head_cache import RequestHeadCache
from service.transport.fast_path.http_protocol import ExpressProtocol, protocol_over

__all__ = ["ExpressProtocol", "RequestHeadCache", "protocol_over"]
