"""What everybody writes first: ten lines of FastAPI around the model."""

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.peers.bodies import PORT, from_json
from benchmarks.peers.flow import Served

app, served = FastAPI(), Served()


class Body(BaseModel):
    """A request."""

    x: list[list[float]] | list[list[list[list[float]]]] | None = None
    num_samples: int = 0


@app.post("/predict")
def predict(body: Body) -> dict[str, object]:
    """Answer one request by one call."""
    answer = served.run([from_json(body.model_dump())])[0]
    return {name: value.tolist() for name, value in answer.items()}


if __name__ == "__main__":
    uvicorn.run(app, port=PORT, log_level="warning", access_log=False)
