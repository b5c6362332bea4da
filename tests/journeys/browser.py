"""A headless Chromium, driven over the DevTools protocol: just what the journeys need."""

import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import websocket

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
    "--window-size=1400,1000",
)


def find_chromium() -> str | None:
    """Return the path of Chromium or Chrome, if there is one."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


class Browser:
    """One page of a Chromium of its own; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)

    def __enter__(self) -> "Browser":
        self._process = subprocess.Popen(
            [find_chromium(), *FLAGS, f"--user-data-dir={self._folder}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        port_file = self._folder / "DevToolsActivePort"
        wait_for(lambda: port_file.exists() and port_file.read_text().strip(), 60, "Chromium")
        port = port_file.read_text().split("\n")[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
            page = next(target for target in json.load(answer) if target["type"] == "page")
        self._socket = websocket.create_connection(page["webSocketDebuggerUrl"], timeout=120)
        self._call("Page.enable")
        self._call("Emulation.setFocusEmulationEnabled", enabled=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def open(self, url: str) -> None:
        """Go to ``url``."""
        self._call("Page.navigate", url=url)

    def reload(self) -> None:
        """Load the page anew, and return when the old one is gone."""
        self.run("window.isOld = true")
        self._call("Page.reload", ignoreCache=True)
        self.wait("!window.isOld", 60, "the page, anew")

    def run(self, script: str) -> Any:
        """Return the value of a JavaScript expression, of its promise if it is one.

        Raises:
            RuntimeError: with what the script threw.
        """
        answer = self._call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", answer))
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float, what: str) -> Any:
        """Return the value of ``script`` as soon as it is true; errors count as not yet."""

        def value() -> Any:
            try:
                return self.run(script)
            except RuntimeError:
                return None

        try:
            return wait_for(value, seconds, what)
        except TimeoutError:
            self.picture(self._folder / "failed.png")
            raise

    def picture(self, file: Path) -> None:
        """Write a PNG of what is on the screen."""
        file.write_bytes(base64.b64decode(self._call("Page.captureScreenshot")["data"]))

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(message["error"])
                return message["result"]


def wait_for(value: Any, seconds: float, what: str) -> Any:
    """Return ``value()`` as soon as it is true.

    Raises:
        TimeoutError: naming ``what`` was waited for.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := value():
            return found
        time.sleep(0.2)
    raise TimeoutError(f"{what}: nothing within {seconds:g} s")
