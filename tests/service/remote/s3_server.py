"""A server that speaks as much of S3 as is asked of it here, and fails as one is told to."""

import hashlib
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "bucket"
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass
class Bucket:
    """The objects of the bucket, and what goes wrong.

    asked_bytes: of each object, by its key.
    fault: given the key and the part of it that is asked for; it may answer in another way.
    released: ends what stalls.
    """

    url: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    asked_bytes: Counter[str] = field(default_factory=Counter)
    fault: "Callable[[Handler, str, bytes], bool]" = lambda *_: False
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def variables(self) -> dict[str, str]:
        """What an environment needs to find it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }


class Handler(BaseHTTPRequestHandler):
    """Serves a bucket."""

    protocol_version = "HTTP/1.1"
    bucket: Bucket

    def log_message(self, *told: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        key = unquote(parts.path).removeprefix(f"/{BUCKET}").lstrip("/")
        self.bucket.requests.append(("GET", key))
        if not parts.path.startswith(f"/{BUCKET}"):
            self.answer(404, b"<Error><Code>NoSuchBucket</Code></Error>")
            return
        if not key:
            asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
            self.list(**{name.replace("-", "_"): value for name, value in asked.items()})
            return
        content = self.bucket.objects.get(key)
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        part = b""
        if content is not None:
            end = int(asked[2]) + 1 if asked and asked[2] else len(content)
            part = content[int(asked[1]) : end] if asked else content
            self.bucket.asked_bytes[key] += len(part)
            if self.bucket.fault(self, key, part):
                self.close_connection = True
                return
            content = self.bucket.objects[key]
        if content is None:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        elif self.headers.get("If-Match", etag(content)) != etag(content):
            self.answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        else:
            self.begin(content, part, len(part))
            self.wfile.write(part)

    def do_PUT(self) -> None:
        key = unquote(urlsplit(self.path).path).removeprefix(f"/{BUCKET}/")
        self.bucket.requests.append(("PUT", key))
        self.bucket.objects[key] = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, b"", etag(self.bucket.objects[key]))

    def do_POST(self) -> None:
        """Delete what the body names."""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        keys = re.findall(r"<Key>(.+?)</Key>", body)
        for key in keys:
            self.bucket.requests.append(("DELETE", key))
            self.bucket.objects.pop(key, None)
        deleted = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
        self.answer(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())

    def begin(self, content: bytes, part: bytes, length: int) -> None:
        """Send the head of an answer with a part of an object, of this length as it says."""
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        self.send_response(206 if asked else 200)
        if asked:
            first = int(asked[1])
            total = f"{first}-{first + len(part) - 1}/{len(content)}"
            self.send_header("Content-Range", f"bytes {total}")
        self.send_header("ETag", etag(content))
        self.send_header("Last-Modified", "Sun, 29 Nov 2026 00:00:00 GMT")
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def list(self, prefix: str = "", start_after: str = "", delimiter: str = "", **_: str) -> None:
        keys = sorted(
            key for key in self.bucket.objects if key.startswith(prefix) and key > start_after
        )
        inner = {key: key.removeprefix(prefix) for key in keys}
        folders = {
            prefix + path.partition(delimiter)[0] + delimiter
            for path in inner.values()
            if delimiter and delimiter in path
        }
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(content)}</Size>"
            f"<LastModified>2026-11-29T00:00:00Z</LastModified>"
            f"<ETag>{escape(etag(content))}</ETag></Contents>"
            for key in keys
            if not delimiter or delimiter not in inner[key]
            for content in (self.bucket.objects[key],)
        )
        entries += "".join(
            f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>"
            for one in sorted(folders)
        )
        self.answer(
            200,
            f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}"
            "</ListBucketResult>".encode(),
        )

    def answer(self, status: int, body: bytes, tag: str = "") -> None:
        self.send_response(status)
        if tag:
            self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def etag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'


@contextmanager
def s3_server() -> Iterator[Bucket]:
    """Serve a bucket that is empty."""
    bucket = Bucket()
    handler = type("BucketHandler", (Handler,), {"bucket": bucket})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        bucket.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield bucket
        finally:
            bucket.released.set()
            server.shutdown()
            thread.join()


def _is_weights(key: str) -> bool:
    return key.endswith("2/model.safetensors")


def stalls(handler: Handler, key: str, part: bytes) -> bool:
    """Send a half, and nothing more."""
    if not _is_weights(key):
        return False
    handler.begin(handler.bucket.objects[key], part, len(part))
    handler.wfile.write(part[: len(part) // 2])
    handler.wfile.flush()
    handler.bucket.released.wait(20)
    return True


def claims_too_much(handler: Handler, key: str, part: bytes) -> bool:
    """Say that there is more than there is, and end."""
    if not _is_weights(key):
        return False
    handler.begin(handler.bucket.objects[key], part, len(part) + 1000)
    handler.wfile.write(part)
    return True


def gives_too_little(handler: Handler, key: str, part: bytes) -> bool:
    """Give less than was listed, as if that were all."""
    if not _is_weights(key):
        return False
    handler.begin(handler.bucket.objects[key], part[:100], 100)
    handler.wfile.write(part[:100])
    return True


def gives_less_than_it_says(handler: Handler, key: str, part: bytes) -> bool:
    """Name the range that was asked for, and give less of it, as if that were all."""
    if not _is_weights(key):
        return False
    handler.begin(handler.bucket.objects[key], part, 100)
    handler.wfile.write(part[:100])
    return True


def loses_connection(handler: Handler, key: str, part: bytes) -> bool:
    """End in the middle of an answer."""
    if not _is_weights(key):
        return False
    handler.begin(handler.bucket.objects[key], part, len(part))
    handler.wfile.write(part[: len(part) // 3])
    return True


def changes(handler: Handler, key: str, part: bytes) -> bool:
    """Change an object between its being listed and read."""
    if _is_weights(key):
        handler.bucket.objects[key] += b"!"
    return False


# What goes wrong -> what is said of it.
FAULTS = (
    (stalls, "no answer within"),
    (claims_too_much, "cannot be read"),
    (gives_too_little, "got 0..100"),
    (gives_less_than_it_says, "bytes, got 100"),
    (loses_connection, "cannot be read"),
    (changes, "was changed while it was read"),
)
