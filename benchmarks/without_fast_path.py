"""`pushforward` with the fast path switched off: uvicorn's ASGI cycle has every request.

    python -m benchmarks.without_fast_path serve ...

Worker processes run this module anew before they serve, and so do without it too.
"""

from pushforward.cli.main import main
from service.transport.fast_path.head_cache import RequestHeadCache, RoutedRequest


def _read_nothing(_: RequestHeadCache, data: bytes) -> RoutedRequest | None:
    return None


RequestHeadCache.read = _read_nothing  # type: ignore[assignment,method-assign]

if __name__ == "__main__":
    main()
