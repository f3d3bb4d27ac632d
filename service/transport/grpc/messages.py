"""The messages of inference.proto, in a pool of their own.

Clients of the protocol bring the same names in files of their own (tritonclient, kserve, mlserver):
in the common pool of protobuf two of them in one process are a conflict.
"""

from importlib.resources import files
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2

from service.errors import MalformedBody
from service.transport.grpc.bounds import check_content

SERVICE = "inference.GRPCInferenceService"


def _load_pool() -> DescriptorPool:
    pool = DescriptorPool()
    data = (files(__package__) / "inference.binpb").read_bytes()
    for file in FileDescriptorSet.FromString(data).file:
        pool.AddSerializedFile(file.SerializeToString())
    # For those who ask by reflection; the health service itself uses the common pool.
    pool.AddSerializedFile(health_pb2.DESCRIPTOR.serialized_pb)
    return pool


POOL = _load_pool()
METHODS = POOL.FindServiceByName(SERVICE).methods_by_name


def message_class(name: str) -> Any:
    """The class of a message, by its name in inference.proto."""
    return GetMessageClass(POOL.FindMessageTypeByName(f"inference.{name}"))


def parse(kind: Any, body: bytes | bytearray) -> Any:
    """Read a message.

    Raises:
        MalformedBody: the bytes are none.
        TooLarge: it would be many times as large as its bytes are.
    """
    check_content(body, kind.DESCRIPTOR)
    try:
        return kind.FromString(bytes(body))
    except DecodeError:
        raise MalformedBody(
            f"message: expected {kind.DESCRIPTOR.full_name} as protobuf, got {len(body)} bytes "
            "that are none"
        ) from None
