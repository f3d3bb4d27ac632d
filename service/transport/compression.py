"""Content-Encoding of requests and answers: what is compressed, and in which thread."""

from collections.abc import Awaitable, Callable, Mapping

from service.codec.compression import ENCODERS, choose_encoding, decompress, measure, read_encoding
from service.errors import ServiceError
from service.operations.request_context import RequestContext
from service.operations.response import RawResponse, Response
from service.operations.thread_pool import RequestThreadPool
from service.transport.request import ReceiveBudget

# Below it the bytes that are saved cost more than they bring.
MIN_ANSWER_BYTES = 4096
# Text. Tensors hardly shrink (random digits: by 8 %), pictures are compressed already.
_COMPRESSED = (b"application/json", b"application/problem+json")


async def receive_decompressed(
    headers: Mapping[bytes, bytes],
    receive: Callable[[], Awaitable[bytes | bytearray]],
    max_bytes: int,
    threads: RequestThreadPool,
    request: RequestContext,
    budget: ReceiveBudget,
) -> bytes | bytearray:
    """Read a body, and decompress it in a thread where Content-Encoding says that it is compressed.

    Args:
        receive: reads it as it comes; not called where its encoding is not taken.
        max_bytes: what it may become.
        request: holds as many bytes of the budget until it ends.
        budget: of all bodies together.

    Raises:
        UnsupportedMediaType: in an encoding that is not taken.
        MalformedBody: it is not in its encoding.
        TooLarge: it becomes more than `max_bytes`.
        Overloaded, DeadlineExceeded: it found no thread in time, or no room beside the others.
    """
    encoding = read_encoding(headers.get(b"content-encoding"))
    body = await receive()
    if encoding is None:
        return body
    size, whole = await threads.run(request.deadline, measure, body, encoding, max_bytes)
    budget.grow(0, size)
    request.held_bytes = size
    if whole is not None:
        return whole
    return await threads.run(request.deadline, decompress, body, encoding)


async def compress_answer(
    headers: Mapping[bytes, bytes], answer: Response, threads: RequestThreadPool, deadline: float
) -> Response:
    """Compress a long answer of text in a thread, where the client's Accept-Encoding lets it.

    Where all threads are busy it goes out as it is: waiting would cost more than its bytes.
    """
    if len(answer.body) < MIN_ANSWER_BYTES or not threads.is_free or not _is_text(answer):
        return answer
    encoding = choose_encoding(headers.get(b"accept-encoding"))
    if encoding is None:
        return answer
    try:
        body = await threads.run(deadline, ENCODERS[encoding], answer.body)
    except ServiceError:
        return answer
    kept = [(name, value) for name, value in answer.headers if name != b"content-length"]
    changed = [
        (b"content-length", b"%d" % len(body)),
        (b"content-encoding", encoding.encode()),
        (b"vary", b"Accept-Encoding"),
    ]
    return Response(answer.status, [*kept, *changed], body)


async def compress_raw(
    headers: Mapping[bytes, bytes],
    answer: RawResponse,
    threads: RequestThreadPool,
    deadline: float,
) -> RawResponse:
    """Compress as `compress_answer` does an answer whose headers are lines already."""
    lines = answer.header_lines.split(b"\r\n")
    pairs = [(name, value) for name, _, value in (line.partition(b": ") for line in lines) if name]
    given = Response(answer.status, pairs, answer.body)
    return (await compress_answer(headers, given, threads, deadline)).raw()


def _is_text(answer: Response) -> bool:
    return any(
        name == b"content-type" and value.startswith(_COMPRESSED) for name, value in answer.headers
    )
