"""miraserver: its Rust front, two model processes, batches of FLOW_BATCH requests.

A model waits at most 1 ms for others. What would take a stopped process for a dead one is off:
who has not the turn is stopped.
"""

import json
import os
from pathlib import Path
from typing import Any

from benchmarks.peers.bodies import MAX_BATCH, PORT
from benchmarks.process import free_port

# Written as JSON, which is YAML too.
SERVER: dict[str, dict[str, Any]] = {
    "server": {
        "host": "127.0.0.1",
        "http_port": PORT,
        "timeout": 60.0,
        "keepalive_timeout": 0.0,
    },
    "grpc": {"enabled": False},
    "metrics": {"enabled": False},
    "logging": {"level": "warn"},
    "orchestration": {"control_mode": "explicit", "load_models": ["flow"]},
    "features": {"alerts": False, "streaming_metrics": False},
}
MODEL = {
    "max_batch_size": MAX_BATCH,
    "batch_timeout": 0.001 if MAX_BATCH > 1 else 0.0,
    "accelerator": "cpu",
    "devices": 1,
    "workers_per_device": 2,
    "max_queue_size": 4096,
    "request_timeout": 60.0,
    "health_check_interval": 0.0,
    "ejection_error_threshold": 0,
}


def write(home: Path) -> Path:
    """Lay out the folder of models and the file of settings.

    Returns:
        The file of settings.
    """
    version = home / "models" / "flow" / "1"
    version.mkdir(parents=True, exist_ok=True)
    (version / "config.yaml").write_text(json.dumps(MODEL))
    (version / "model.py").write_text(Path(__file__).with_name("miraserver_model.py").read_text())
    settings = home / "server.yaml"
    metrics = {**SERVER["metrics"], "port": free_port()}
    found = {**SERVER, "metrics": metrics, "model_repository": {"path": str(home / "models")}}
    settings.write_text(json.dumps(found))
    return settings


if __name__ == "__main__":
    file = write(Path(os.environ["PEER_HOME"]))
    command = ("lite-server", "serve", "--config", str(file), "--no-grpc", "--no-metrics")
    os.execvp(command[0], command)
