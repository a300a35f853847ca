"""What a browser makes of pages: errors, requests, sizes, pictures, paper.

    with Browser(folder) as browser:
        look = browser.open(page, width=360, dark=True)

It speaks the DevTools protocol (https://chromedevtools.github.io/devtools-protocol/) over a pipe:
nothing but Chromium itself is needed, and one Chromium serves for all that a test asks.
"""

import base64
import json
import os
import select
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

needs_browser = pytest.mark.skipif(
    shutil.which("chromium") is None, reason="there is no chromium on the PATH"
)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--disable-dev-shm-usage --remote-debugging-pipe"
)
PATIENCE = 120  # seconds for one answer
HEIGHT = 900  # pixels of a window
A4 = 695  # pixels between the margins of the report's sheets of paper
_CUT = """
[...document.querySelectorAll(".scroll")]
  .filter(box => box.scrollWidth > box.clientWidth)
  .map(box => box.getAttribute("aria-labelledby") || box.getAttribute("aria-label"))
"""


@dataclass
class Look:
    """A page as it was opened."""

    errors: list[str] = field(default_factory=list)  # of the console, and exceptions
    requests: list[str] = field(default_factory=list)  # for what does not lie in the page itself


class Browser:
    """A headless Chromium with one window, whose profile lies in `folder`."""

    def __init__(self, folder: Path) -> None:
        ours, theirs = os.pipe(), os.pipe()  # what it reads, what it writes
        # Bash puts the ends of the pipes where Chromium looks for them.
        command = (
            f'exec chromium {FLAGS} --user-data-dir="$0" about:blank 3<&{ours[0]} 4>&{theirs[1]}'
        )
        self._process = subprocess.Popen(
            ["bash", "-c", command, str(folder / "chromium")],
            pass_fds=(ours[0], theirs[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(ours[0])
        os.close(theirs[1])
        self._write, self._read = ours[1], theirs[0]
        self._rest, self._asked = b"", 0
        self._events: list[dict[str, Any]] = []
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._write)  # it ends when nobody can ask any more
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The answer to one command; what happens meanwhile is kept."""
        self._asked += 1
        message = {"id": self._asked, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._asked:
            self._events.append(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], PATIENCE)
            assert ready, "Chromium does not answer"
            new = os.read(self._read, 1 << 20)
            assert new, "Chromium has ended"
            self._rest += new
        one, _, self._rest = self._rest.partition(b"\0")
        return json.loads(one)

    def open(self, page: Path, width: int, dark: bool = False, media: str = "") -> Look:
        """Load a page in a window of that many pixels; `media`: print, to see it as on paper."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self._events.clear()
        self.call("Page.navigate", url=page.as_uri())
        while not any(one.get("method") == "Page.loadEventFired" for one in self._events):
            self._events.append(self._next())
        self.evaluate("document.fonts.ready.then(() => 0)")
        look = Look()
        for event in self._events:
            self._note(event.get("method", ""), event.get("params", {}), look, page)
        return look

    @staticmethod
    def _note(method: str, facts: dict[str, Any], look: Look, page: Path) -> None:
        if method == "Log.entryAdded" and facts["entry"]["level"] in ("error", "warning"):
            look.errors.append(facts["entry"]["text"])
        elif method in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
            look.errors.append(json.dumps(facts))
        elif method == "Network.requestWillBeSent":
            address = facts["request"]["url"]
            if address != page.as_uri() and not address.startswith("data:"):
                look.requests.append(address)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page's own script engine."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def overflow(self, selector: str) -> int:
        """How many pixels of the first `selector` do not fit."""
        element = f"document.querySelector({json.dumps(selector)})"
        return self.evaluate(f"{element}.scrollWidth - {element}.clientWidth")

    def cut(self) -> list[str]:
        """Names of the tables and figures that do not fit where they stand."""
        return self.evaluate(_CUT)

    def picture(self, file: Path) -> None:
        """Write the whole page as PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        answer = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(answer["data"]))

    def paper(self) -> bytes:
        """The page as PDF."""
        answer = self.call("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
        return base64.b64decode(answer["data"])
