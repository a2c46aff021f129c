import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# The fabricated run lies with the tests one folder up, which pytest puts on the path only for them.
sys.path.insert(0, str(Path(__file__).parents[1]))

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--enable-logging=stderr", "--allow-file-access-from-files",
)  # fmt: skip


@pytest.fixture
def chromium(tmp_path):
    """Run Chromium on a file; returns what it printed, and its console messages."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: the pages are not looked at")

    def open_page(page: Path, *flags: str) -> tuple[str, list[str]]:
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *flags]
        done = subprocess.run(
            [*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True
        )
        console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
        return done.stdout, console

    return open_page
