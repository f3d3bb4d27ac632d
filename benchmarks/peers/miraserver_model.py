"""The model of miraserver, which copies this file into its folder of models."""

from typing import Any

from lite_server import LitAPI, Response

from benchmarks.peers.bodies import FORMAT, MEDIA_TYPE, from_json, open_model, parse, render


class Flow(LitAPI):  # type: ignore[misc]
    """One of its processes."""

    def setup(self, device: str) -> None:
        """Load the model."""
        self.served = open_model()

    def decode_request(self, request: Any) -> Any:
        """Read a body: JSON comes parsed."""
        return parse(request) if isinstance(request, bytes) else from_json(request)

    def batch(self, inputs: list[Any]) -> list[Any]:
        """Keep requests apart: they differ in rows."""
        return inputs

    def predict(self, x: Any) -> Any:
        """Answer a batch."""
        return self.served.run(x) if isinstance(x, list) else self.served.run([x])[0]

    def unbatch(self, output: list[Any]) -> list[Any]:
        """Answers, one a request."""
        return output

    def encode_response(self, output: dict[str, Any]) -> Any:
        """Write a body."""
        body = render(output)
        return body if FORMAT == "json" else Response(content=body, media_type=MEDIA_TYPE)
