"""The page of an audit as Chromium shows it: light and dark, wide and narrow, closed and open."""

import re
from pathlib import Path

import numpy as np
import pytest
from fabricated_audit import fabricate_audit
from PIL import Image

from ml_core.audit.page import render_audit

DARK = ("--force-dark-mode", "--blink-settings=preferredColorScheme=0")


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    made = fabricate_audit()
    return render_audit(
        made.audit, made.patches, made.read, folder / "audit.html", folder / "figures"
    )


@pytest.fixture
def measure(chromium, tmp_path):
    """Evaluate a script's expression on a page inside a frame of some width."""

    def evaluate(page: Path, width: int, expression: str) -> str:
        frame = tmp_path / "frame.html"
        frame.write_text(
            f"<iframe src='{page.as_uri()}' style='width:{width}px;height:700px;border:0'></iframe>"
            "<p id=said></p><script>onload = () => { const page = frames[0].document;"
            f"document.getElementById('said').textContent = {expression};"
            "}</script>",
            encoding="utf-8",
        )
        dom, _ = chromium(frame, "--dump-dom")
        said = re.search(r'id="said">([^<]*)<', dom)
        assert said is not None, "the frame could not be measured"
        return said[1]

    return evaluate


def test_the_page_opens_without_a_message_on_the_console(chromium, page):
    dom, console = chromium(page, "--dump-dom")
    assert console == []
    assert dom.count("<svg") == 9 and dom.count("<article") == 15


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_drawn_in_the_theme_of_the_reader(chromium, page, tmp_path, theme):
    shot = tmp_path / f"{theme}.png"
    flags = [f"--screenshot={shot}", "--window-size=1300,8000"]
    chromium(page, *flags, *(DARK if theme == "dark" else ()))
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("L"), dtype=float)
    background = np.median(pixels)
    assert (background < 60) if theme == "dark" else (background > 240)
    drawn = np.abs(pixels - background) > 60
    assert 0.02 < drawn.mean() < 0.5
    bands = np.array_split(drawn, 16)  # from top to bottom: no part of the page is empty
    assert min(band.mean() for band in bands) > 0.003


@pytest.mark.parametrize("width", [360, 390, 820, 1920])
def test_nothing_sticks_out_of_the_screen(measure, page, width):
    assert measure(page, width, "page.documentElement.scrollWidth") == str(width)


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_sticks_out_when_everything_is_open(measure, page, width):
    """Also not to the right of `main`, which cuts off what does."""
    opened = "(page.querySelectorAll('details').forEach(each => each.open = true)"
    widest = (
        "Math.round(Math.max(...[...page.querySelectorAll('main *:not(.scroll *):not(svg *)"
        ":not(.visually-hidden)')].map(each => each.getBoundingClientRect().right)))"
    )
    assert int(measure(page, width, f"{opened}, {widest})")) <= width


def test_every_picture_of_a_patch_is_shown(measure, page):
    broken = "[...page.images].filter(each => each.naturalWidth !== 96).length"
    counted = measure(page, 800, f"page.images.length + ' ' + {broken}")
    assert int(counted.split()[0]) > 100 and counted.split()[1] == "0"
