"""What a server counts about itself, read before and after a load."""

import re
from dataclasses import dataclass

import httpx

_LINE = re.compile(r"^pushforward_(\w+?)\{([^}]*)\} (\S+)$", re.M)
_COUNTED = ("batch_rows", "queue_duration_seconds", "compute_duration_seconds")


@dataclass(frozen=True, slots=True)
class ServerCounts:
    """Sums over one model: how many batches, rows and seconds there were so far."""

    sums: dict[str, float]

    def since(self, before: "ServerCounts") -> dict[str, float | None]:
        """What came to it, as means; None where nothing was counted."""

        def mean(name: str, unit: float = 1.0) -> float | None:
            total, count = (
                self.sums.get(f"{name}_{part}", 0.0) - before.sums.get(f"{name}_{part}", 0.0)
                for part in ("sum", "count")
            )
            return unit * total / count if count > 0 else None

        return {
            "batches": self.sums.get("batch_rows_count", 0.0)
            - before.sums.get("batch_rows_count", 0.0),
            "mean_batch_rows": mean("batch_rows"),
            "mean_queue_ms": mean("queue_duration_seconds", 1e3),
            "mean_compute_ms": mean("compute_duration_seconds", 1e3),
        }


def read_counts(text: str, model: str) -> ServerCounts:
    """Read them of the text of /metrics."""
    wanted = {f"{name}_{part}" for name in _COUNTED for part in ("sum", "count")}
    sums: dict[str, float] = {}
    for name, labels, value in _LINE.findall(text):
        if name in wanted and f'model="{model}"' in labels.split(","):
            sums[name] = sums.get(name, 0.0) + float(value)
    return ServerCounts(sums)


def ask_counts(base_url: str, model: str, api_key: str | None) -> ServerCounts | str:
    """Ask a server for them.

    Returns:
        They, or why they cannot be had.
    """
    headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
    try:
        answer = httpx.get(f"{base_url.rstrip('/')}/metrics", headers=headers, timeout=10)
    except httpx.HTTPError as error:
        return f"/metrics: {error}"
    if answer.status_code != httpx.codes.OK:
        return f"/metrics: {answer.status_code}"
    return read_counts(answer.text, model)
