"""A real browser for tests of pages: the system's Chromium, spoken to by its DevTools protocol over two pipes."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import io
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["NAMES", "Browser", "Page", "chromium"]

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_S = 120.0

KEYS = {
    " ": ("Space", 32), "ArrowLeft": ("ArrowLeft", 37), "ArrowUp": ("ArrowUp", 38), "ArrowRight": ("ArrowRight", 39),
    "ArrowDown": ("ArrowDown", 40), "Home": ("Home", 36), "End": ("End", 35),
}  # fmt: skip
"""Key -> its code and its number on Windows."""


def chromium() -> str | None:
    """The browser's program, if there is one."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """A browser without a window. A context manager, which ends it."""

    def __init__(self, program: str) -> None:
        self.folder = tempfile.mkdtemp(prefix="keyscale-browser-")
        ours, theirs = os.pipe(), os.pipe()
        # The protocol is spoken on descriptors 3 and 4; what lies there now is moved out of the way.
        reads, writes = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (ours[0], theirs[1]))
        os.close(ours[0])
        os.close(theirs[1])
        self._to, self._from = ours[1], theirs[0]

        def place() -> None:
            os.dup2(reads, 3)
            os.dup2(writes, 4)

        flags = ["--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        flags += ["--disable-background-networking", "--mute-audio", "--autoplay-policy=no-user-gesture-required"]
        self._process = subprocess.Popen(
            [program, *flags, f"--user-data-dir={self.folder}", "--window-size=1200,1000", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=place,  # noqa: PLW1509 - the test has no thread that holds a lock then
            close_fds=False,
        )
        os.close(reads)
        os.close(writes)
        self._number, self._held = 0, b""
        self.events: list[dict[str, Any]] = []
        """All that the browser told unasked."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)
        shutil.rmtree(self.folder, ignore_errors=True)

    def call(self, method: str, session: str | None = None, **values: Any) -> dict[str, Any]:
        """Ask for something and wait for the answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": values} | ({"sessionId": session} if session else {})
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") != self._number:
                self.events.append(answer)
                continue
            assert "error" not in answer, answer
            found: dict[str, Any] = answer["result"]
            return found

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._held:
            assert select.select([self._from], [], [], PATIENCE_S)[0], "the browser does not answer"
            more = os.read(self._from, 1 << 20)
            assert more, "the browser has ended"
            self._held += more
        message, _, self._held = self._held.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def open(self, path: Path) -> Page:
        """Load a file, until its scripts have run."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Network"):
            page.call(f"{domain}.enable")
        page.call("Page.navigate", url=path.as_uri())
        page.wait(f"document.readyState === 'complete' && location.href === {json.dumps(path.as_uri())}")
        return page


class Page:
    """A page in a tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session

    def call(self, method: str, **values: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **values)

    def value(self, expression: str) -> Any:
        """What JavaScript makes of an expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, expression: str) -> None:
        """Until an expression is true."""
        until = time.monotonic() + PATIENCE_S
        while not self.value(expression):
            assert time.monotonic() < until, f"{expression} never came true"
            time.sleep(0.02)

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """Where an element is in the window: left, top, width, height."""
        quoted = json.dumps(selector)
        found = self.value(
            f"(() => {{ const e = document.querySelector({quoted}); e.scrollIntoView({{block: 'nearest'}});"
            "const b = e.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; })()"
        )
        left, top, width, height = found
        return left, top, width, height

    def key(self, key: str, *, shift: bool = False) -> None:
        """Press a key."""
        code, number = KEYS[key]
        about = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": 8 if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown", **about, **({"text": " "} if key == " " else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def click(self, selector: str, across: float = 0.5, down: float = 0.5) -> None:
        """Click at a part of an element's width and height."""
        left, top, width, height = self.box(selector)
        at = {"x": left + across * width, "y": top + down * height, "button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type="mousePressed", **at)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", **at)

    def drag(self, selector: str, begin: float, end: float) -> None:
        """Drag the mouse across an element, from one part of its width to another."""
        left, top, width, height = self.box(selector)
        y = top + height / 2
        self.call(
            "Input.dispatchMouseEvent", type="mousePressed", x=left + begin * width, y=y, button="left", clickCount=1
        )
        for share in (0.5, 1.0):
            x = left + (begin + (end - begin) * share) * width
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, button="left", buttons=1)
        self.call(
            "Input.dispatchMouseEvent", type="mouseReleased", x=left + end * width, y=y, button="left", clickCount=1
        )

    def picture(self, selector: str) -> npt.NDArray[np.uint8]:
        """What is seen of an element `(H, W, 3)`."""
        x, y, width, height = self.box(selector)
        clip = {"x": x, "y": y + self.value("scrollY"), "width": width, "height": height, "scale": 1}
        data = self.call("Page.captureScreenshot", format="png", clip=clip)["data"]
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            return np.asarray(image.convert("RGB"))

    def faults(self) -> list[str]:
        """Errors of scripts, and what the page's rules refused."""
        return [
            json.dumps(event["params"])[:500]
            for event in self._mine()
            if event["method"] == "Runtime.exceptionThrown"
            or (event["method"] == "Runtime.consoleAPICalled" and event["params"]["type"] == "error")
        ]

    def asked_for(self) -> list[str]:
        """Addresses that the page has loaded or tried to, its own and `data:` apart."""
        with contextlib.suppress(AssertionError):
            self.value("0")
        found = [e["params"]["request"]["url"] for e in self._mine() if e["method"] == "Network.requestWillBeSent"]
        return [url for url in found if not url.startswith(("data:", "about:"))]

    def _mine(self) -> list[dict[str, Any]]:
        return [event for event in self._browser.events if event.get("sessionId") == self._session]
