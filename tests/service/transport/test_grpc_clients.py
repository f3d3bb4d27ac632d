"""What the clients of the Open Inference Protocol send over gRPC, byte for byte.

KServe 0.21 (InferenceGRPCClient sends `InferRequest.to_grpc`) and MLServer 1.7 (its converters and
codecs): both ask for a protobuf of another major version than ours, so what they write is kept
here. tritonclient is tried as it is, in tests/e2e/test_grpc.py.
"""

import numpy as np
import pytest

from tests.service.transport.grpc_server import Asking, outputs, question, run

ROWS = np.array([[0, 1], [1, -0.5]], np.float32)
_TENSOR = b'*%\n\x01x\x12\x04FP32\x1a\x02\x02\x02"'
_RAW = b"\x00\x00\x00\x00\x00\x00\x80?\x00\x00\x80?\x00\x00\x00\xbf"
_VALUES = b"*\x122\x10" + _RAW
_NP = b'"\x14\n\x0ccontent_type\x12\x04\x1a\x02np'
_MOST = (
    b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xf0?"
    b"\x00\x00\x00\x00\x00\x00\xf0?\x00\x00\x00\x00\x00\x00\xe0\xbf"
)

SENT = {
    "kserve_raw": b"\n\x04wide\x1a\x02r1"
    + _TENSOR
    + b"\x16\n\x10binary_data_size\x12\x02\x10\x10:\x10"
    + _RAW,
    "kserve_values": b'\n\x04wide\x1a\x02r1"\x10\n\x07timeout\x12\x05\x10\xc0\x96\xb1\x02'
    b"*!\n\x01x\x12\x04FP32\x1a\x02\x02\x02" + _VALUES,
    "kserve_fp64": b'\n\x04wide*1\n\x01x\x12\x04FP64\x1a\x02\x02\x02*": ' + _MOST,
    "mlserver_codec": b"\n\x04wide\x1a\x02r1*7\n\x01x\x12\x04FP32\x1a\x02\x02\x02" + _NP + _VALUES,
    "mlserver_raw": b"\n\x04wide*%\n\x01x\x12\x04FP32\x1a\x02\x02\x02" + _NP + b"*\x00:\x10" + _RAW,
    "mlserver_pandas": b'\n\x04wide"\x14\n\x0ccontent_type\x12\x04\x1a\x02pd'
    b"*%\n\x05speed\x12\x04FP64\x1a\x02\x02\x01*\x12:\x10"
    b"\x00\x00\x00\x00\x00\x00\xf0?\x00\x00\x00\x00\x00\x00\xe0\xbf"
    b"*\x17\n\x04mass\x12\x05INT64\x1a\x02\x02\x01*\x04\x1a\x02\x00\x01",
}
# Their parameters know no double: MLServer leaves it out, KServe refuses it.
DRAW = (
    b'\n\x04wide"\x14\n\x0btemperature\x12\x05\x1a\x030.5'
    b'"\n\n\x04seed\x12\x02\x10\x07"\x11\n\x0bnum_samples\x12\x02\x10\x02'
)


@pytest.mark.parametrize("case", SENT)
def test_what_clients_send_is_answered(case: str) -> None:
    async def test(client: Asking) -> None:
        wanted = outputs(await client.call("ModelInfer", question(ROWS, model_name="wide")))
        answer = await client.call("ModelInfer", SENT[case])
        assert answer.id == ("r1" if b"r1" in SENT[case] else "")
        got = outputs(answer)
        assert got.keys() == wanted.keys()
        for name, values in got.items():
            np.testing.assert_array_equal(values, wanted[name])

    run(test)


def test_numbers_that_come_as_text_are_numbers() -> None:
    async def test(client: Asking) -> None:
        drawn = outputs(await client.call("ModelInfer", DRAW))["x"]
        plain = outputs(await client.call("ModelInfer", DRAW.replace(b"0.5", b"1.0")))["x"]
        np.testing.assert_array_equal(drawn, plain / 2)

    run(test)
