import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from live_page import LivePage

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


@pytest.fixture(scope="session")
def live_page(tmp_path_factory):
    """One tab for all tests that press keys in a page, click in it and ask."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: the pages are not used")
    profile = f"--user-data-dir={tmp_path_factory.mktemp('profile')}"
    live = LivePage([CHROMIUM, *FLAGS, profile])
    yield live
    live.close()


@pytest.fixture
def open_live(live_page):
    """Load a page in that tab, offline, as wide as is asked for; returns the tab."""
    return live_page.open
