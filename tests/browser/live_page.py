"""A browser tab that a test can press keys in, click in and ask, over Chromium's debugging pipe.

Events sent this way are those of a person: a key moves the focus, works a button, moves a slider.
"""

import itertools
import json
import os
import subprocess
from pathlib import Path

KEYS = {  # name -> (code of Windows' virtual keys, text it types)
    "Tab": (9, ""), "Enter": (13, "\r"), " ": (32, " "), "ArrowRight": (39, ""),
    "ArrowLeft": (37, ""), "Home": (36, ""), "End": (35, ""), "PageUp": (33, ""),
}  # fmt: skip


class LivePage:
    """A tab that is offline; `messages` are what the console heard, errors of any kind included."""

    def __init__(self, command: list[str]):
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        command = [*command, "--remote-debugging-pipe", "about:blank"]
        self._process = subprocess.Popen(  # Chromium reads from its file 3 and writes to its 4
            ["bash", "-c", f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}', *command],
            pass_fds=(theirs_in, theirs_out),
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._in, self._out = os.fdopen(ours_in, "rb"), os.fdopen(ours_out, "wb")
        self._unread, self._numbers, self._session = b"", itertools.count(1), None
        self.messages: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Runtime", "Log", "Page", "Network"):
            self.send(f"{domain}.enable")
        self.send("Network.emulateNetworkConditions", offline=True, latency=0,
                  downloadThroughput=0, uploadThroughput=0)  # fmt: skip

    def open(self, page: Path, width: int = 1280) -> "LivePage":
        """Load `page` as a reader would who comes to it for the first time."""
        self.send("Page.navigate", url="about:blank")
        self.send("Emulation.setEmulatedMedia", media="", features=[])
        self.resize(width)
        self.messages.clear()
        self.send("Page.navigate", url=page.as_uri())
        self.ask("new Promise(done => document.readyState === 'complete' && location.href !== "
                 "'about:blank' ? done() : addEventListener('load', done))")  # fmt: skip
        return self

    def send(self, method: str, **params) -> dict:
        """Send one command and return its result; what the console says meanwhile is kept."""
        message = {"id": next(self._numbers), "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        while (answer := self._read()).get("id") != message["id"]:
            self._hear(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def ask(self, expression: str):
        """Return what `expression` is in the page, waited for if it is a promise."""
        answer = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str, times: int = 1) -> None:
        code, text = KEYS[key]
        for _ in range(times):
            for kind in ("keyDown", "keyUp"):
                self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, text=text,
                          windowsVirtualKeyCode=code)  # fmt: skip

    def click(self, selector: str) -> None:
        """Click the middle of the first element of `selector`, scrolled into view."""
        x, y = self.ask(
            f"(() => {{ const node = document.querySelector({json.dumps(selector)});"
            "node.scrollIntoView({block: 'center', behavior: 'instant'});"
            "const box = node.getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def resize(self, width: int, height: int = 900) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=False)  # fmt: skip

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._in.close()
        self._out.close()

    def _read(self) -> dict:
        while b"\0" not in self._unread:
            part = os.read(self._in.fileno(), 1 << 16)
            assert part, "Chromium has ended"
            self._unread += part
        message, _, self._unread = self._unread.partition(b"\0")
        return json.loads(message)

    def _hear(self, event: dict) -> None:
        params = event.get("params", {})
        if event.get("method") == "Runtime.consoleAPICalled":
            self.messages.append(str([each.get("value") for each in params["args"]]))
        elif event.get("method") == "Runtime.exceptionThrown":
            self.messages.append(str(params["exceptionDetails"]))
        elif event.get("method") == "Log.entryAdded":
            self.messages.append(params["entry"]["text"])
