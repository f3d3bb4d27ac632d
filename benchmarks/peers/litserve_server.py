"""LitServe: two model processes, batches of FLOW_BATCH requests after at most 1 ms. JSON only."""

from typing import Any

import litserve

from benchmarks.peers.bodies import MAX_BATCH, PORT, from_json
from benchmarks.peers.flow import Served


class Flow(litserve.LitAPI):  # type: ignore[misc]
    """The model's process."""

    def setup(self, device: str) -> None:
        """Load the model."""
        self.served = Served()

    def decode_request(self, request: dict[str, Any]) -> Any:
        """Read a body."""
        return from_json(request)

    def batch(self, inputs: list[Any]) -> list[Any]:
        """Keep requests apart: they differ in rows."""
        return list(inputs)

    def predict(self, x: Any) -> Any:
        """Answer a batch; where one request is the most, LitServe gives it without a list."""
        return self.served.run(x) if MAX_BATCH > 1 else self.served.run([x])[0]

    def unbatch(self, output: list[Any]) -> list[Any]:
        """Answers, one a request."""
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """Write a body."""
        return {name: value.tolist() for name, value in output.items()}


if __name__ == "__main__":
    api = Flow(max_batch_size=MAX_BATCH, batch_timeout=0.001)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=2, timeout=60)
    server.run(host="127.0.0.1", port=PORT, generate_client_file=False, log_level="warning")
