"""A headless Chromium over its DevTools pipe: the page as a phone, a printer or a reader sees it.

https://chromedevtools.github.io/devtools-protocol/
"""

import argparse
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
ARGUMENTS = (
    "--headless=new --hide-scrollbars --no-sandbox --disable-gpu --no-first-run "
    "--remote-debugging-pipe"
)


def find() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One tab. Use it as a context manager."""

    def __init__(self, program: str, profile: Path) -> None:
        ours, theirs = os.pipe(), os.pipe()
        command = (
            f'exec "$0" {ARGUMENTS} --user-data-dir="$1" about:blank 3<&{ours[0]} 4>&{theirs[1]}'
        )
        self.process = subprocess.Popen(
            ["bash", "-c", command, program, str(profile)],
            pass_fds=(ours[0], theirs[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(ours[0])
        os.close(theirs[1])
        self.commands, self.answers = os.fdopen(ours[1], "wb"), os.fdopen(theirs[0], "rb")
        self.buffer, self.number, self.session = b"", 0, None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        self.call("Page.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.commands.close()
        self.answers.close()

    def call(self, method: str, **params: Any) -> Any:
        """The result of a command; events in between are dropped."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        self.commands.write(json.dumps(message).encode() + b"\0")
        self.commands.flush()
        while (answer := self._message()).get("id") != self.number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def _message(self) -> Any:
        while b"\0" not in self.buffer:
            part = self.answers.raw.read(1 << 16)  # type: ignore[attr-defined]
            assert part, "the browser ended"
            self.buffer += part
        line, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(line)

    def open(
        self,
        page: Path,
        width: int,
        height: int = 844,
        *,
        dark: bool = False,
        media: str = "screen",
    ) -> None:
        """Show a file, on a phone below 600 pixels of width."""
        sizes = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **sizes)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.call("Page.navigate", url=page.resolve().as_uri())
        while self._message().get("method") != "Page.loadEventFired":
            pass

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        arguments = {"expression": script, "returnByValue": True, "awaitPromise": True}
        answer = self.call("Runtime.evaluate", **arguments)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, path: Path, whole: bool = True) -> None:
        arguments = {"format": "png", "captureBeyondViewport": whole}
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", **arguments)["data"]))


def picture(page: Path, path: Path, width: int, height: int) -> None:
    """The beginning of a page as PNG. Raises: SystemExit without a Chromium."""
    if (program := find()) is None:
        sys.exit(f"no Chromium on this machine; install one of {', '.join(NAMES)}")
    with tempfile.TemporaryDirectory() as profile, Browser(program, Path(profile)) as tab:
        tab.open(page, width, height)
        tab.screenshot(path, whole=False)


if __name__ == "__main__":  # make picture
    parser = argparse.ArgumentParser(description=picture.__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("path", type=Path)
    parser.add_argument("width", type=int)
    parser.add_argument("height", type=int)
    picture(**vars(parser.parse_args()))
