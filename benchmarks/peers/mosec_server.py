"""mosec: two model processes, batches of FLOW_BATCH requests after at most 1 ms."""

from typing import Any

from mosec import Server, Worker

from benchmarks.peers.bodies import MAX_BATCH, MEDIA_TYPE, open_model, parse, render


class Flow(Worker):  # type: ignore[misc]
    """The model's process."""

    resp_mime_type = MEDIA_TYPE

    def __init__(self) -> None:
        super().__init__()
        self.served = open_model()

    def deserialize(self, data: bytes) -> Any:
        """Read a body."""
        return parse(data)

    def forward(self, data: Any) -> Any:
        """Answer a batch; where one request is the most, mosec gives it without a list."""
        return self.served.run(data) if MAX_BATCH > 1 else self.served.run([data])[0]

    def serialize(self, data: dict[str, Any]) -> bytes:
        """Write a body."""
        return render(data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(Flow, num=2, max_batch_size=MAX_BATCH, max_wait_time=1)
    server.run()
