"""A headless Chromium, driven by the DevTools protocol over a pair of pipes.

Reference: https://chromedevtools.github.io/devtools-protocol/ (the flag --remote-debugging-pipe:
messages are JSON that ends with a zero byte, read from descriptor 3 and written to 4).
"""

import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 60.0
# Of the audits' findings, those that say that something was blocked.
ISSUES = ("ContentSecurityPolicyIssue", "CorsIssue", "MixedContentIssue")


def find() -> str | None:
    """The command of a Chromium that is installed here."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Connection:
    """The pipes to a browser: calls go in, their results and events come out, one at a time."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write = read, write
        self._pending = b""
        self._last_id = 0
        self.on_event: Callable[[dict[str, Any]], None] = lambda event: None

    def send(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """One call of the protocol; gives its result."""
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        until = time.monotonic() + SECONDS
        while True:
            answer = self._receive(until)
            if answer.get("id") != self._last_id:
                self.on_event(answer)
                continue
            assert "error" not in answer, answer
            result: dict[str, Any] = answer["result"]
            return result

    def _receive(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._pending:
            ready, _, _ = select.select([self._read], [], [], max(until - time.monotonic(), 0))
            assert ready, "the browser does not answer"
            data = os.read(self._read, 2**20)
            assert data, "the browser has ended"
            self._pending += data
        text, _, self._pending = self._pending.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message


class Page:
    """One page that shares nothing with those before it, and all that it reported.

    events: as the protocol has them, in order.
    """

    def __init__(self, browser: Connection) -> None:
        self._browser = browser
        self.events: list[dict[str, Any]] = []
        browser.on_event = self.events.append
        context = browser.send("Target.createBrowserContext")["browserContextId"]
        place = {"url": "about:blank", "browserContextId": context}
        target = browser.send("Target.createTarget", **place)["targetId"]
        attached = browser.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One call of the protocol that concerns this page; gives its result."""
        return self._browser.send(method, self._session, **parameters)

    def run(self, code: str) -> Any:
        """Evaluate JavaScript in the page; a promise is awaited."""
        result = self.send(
            "Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, (code, result["exceptionDetails"])
        return result["result"].get("value")

    def until(self, code: str) -> Any:
        """Wait for JavaScript to give something true."""
        end = time.monotonic() + SECONDS
        while True:
            value = self.run(code)
            if value:
                return value
            assert time.monotonic() < end, (code, self.run("document.body.innerText"))
            time.sleep(0.05)

    def open(self, url: str) -> None:
        """Load another document, until it and what it names are there."""
        self.send("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def click(self, selector: str) -> None:
        """Click as a user does: what the point shows gets it."""
        point = self.until(
            f"""(() => {{
                const found = document.querySelector({json.dumps(selector)});
                if (!found) return null;
                found.scrollIntoView({{ block: "center", behavior: "instant" }});
                const box = found.getBoundingClientRect();
                return box.width && [box.x + box.width / 2, box.y + box.height / 2];
            }})()"""
        )
        at = dict(zip("xy", point, strict=True)) | {"button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, **at)

    def write(self, selector: str, text: str) -> None:
        """Click into a field, and write what replaces its text."""
        self.click(selector)
        self.run("document.activeElement.select()")
        self.send("Input.insertText", text=text)

    def resize(self, width: int, *, dark: bool = False) -> None:
        """Give the page another width and colour scheme."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=scheme)
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **size)

    def requested(self) -> list[str]:
        """The addresses of all requests that were made, or tried."""
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def faults(self) -> list[dict[str, Any]]:
        """Violations of the policy, exceptions, and whatever else a console shows in red.

        That a request was answered with an error is not among them: a page that asks without a key
        is answered 401.
        """
        self.run("new Promise(done => setTimeout(done, 100))")  # the last may be on their way
        return [
            event["params"]
            for event in self.events
            if event["method"] == "Runtime.exceptionThrown"
            or (
                event["method"] == "Audits.issueAdded"
                and event["params"]["issue"]["code"] in ISSUES
            )
            or (
                event["method"] == "Runtime.consoleAPICalled" and event["params"]["type"] == "error"
            )
            or (
                event["method"] == "Log.entryAdded"
                and event["params"]["entry"]["level"] in ("error", "warning")
                and event["params"]["entry"]["source"] != "network"
            )
        ]


@contextmanager
def browser(command: str, profile: Path) -> Iterator[Connection]:
    """A new browser, which reaches this machine's loopback and no other address."""
    (inner_read, write), (read, inner_write) = os.pipe(), os.pipe()
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    flags += ["--no-first-run", "--disable-background-networking", "--remote-debugging-pipe"]
    flags += [f"--user-data-dir={profile}", "about:blank"]
    flags += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    # The shell gives the pipes the numbers that the browser expects.
    shell = f'exec "$0" "$@" 3<&{inner_read} 4>&{inner_write}'
    with subprocess.Popen(
        ["bash", "-c", shell, command, *flags],
        pass_fds=(inner_read, inner_write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        os.close(inner_read)
        os.close(inner_write)
        try:
            yield Connection(read, write)
        finally:
            os.close(write)
            os.close(read)
            process.kill()
