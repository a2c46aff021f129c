"""The page of a study as Chromium shows it: light and dark, wide and narrow."""

import re
from pathlib import Path

import numpy as np
import pytest
from fabricated_study import SPACE, fabricate_study
from PIL import Image

from ml_core.pipeline.searching.study_report import study_report

LONG = "a_very_long_section_of_a_config.and_a_parameter_that_is_longer_still"


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    space = {**SPACE, LONG: {"choices": ["a" * 60, "b"]}}
    study = fabricate_study(tmp_path_factory.mktemp("browser"), 40, space=space)
    return Path(study_report(study.path)["report"])


def test_the_page_opens_without_a_message_on_the_console(chromium, page):
    dom, console = chromium(page, "--dump-dom")
    assert console == []
    assert dom.count("<svg") == 5 + len(SPACE) + 1


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_drawn_in_the_theme_of_the_reader(chromium, page, tmp_path, theme):
    shot = tmp_path / f"{theme}.png"
    dark = ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"]
    flags = [f"--screenshot={shot}", "--window-size=1280,4400", *(dark if theme == "dark" else [])]
    chromium(page, *flags)
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("L"), dtype=float)
    background = np.median(pixels)
    assert (background < 60) if theme == "dark" else (background > 240)
    bands = np.array_split(np.abs(pixels - background) > 60, 8)
    assert min(band.mean() for band in bands) > 0.003, "no part of the page is empty"


@pytest.mark.parametrize("width", [390, 820])
def test_nothing_sticks_out_of_a_narrow_screen(chromium, page, tmp_path, width):
    frame = tmp_path / "frame.html"
    frame.write_text(
        f"<iframe src='{page.as_uri()}' style='width:{width}px;height:700px;border:0'></iframe>"
        "<p id=said></p><script>onload = () => { const page = frames[0].document;"
        "const ends = [...page.querySelectorAll('main *:not(.scroll *):not(svg *)"
        ":not(.visually-hidden)')].map(each => each.getBoundingClientRect().right);"
        "document.getElementById('said').textContent = Math.round(Math.max(...ends));"
        "}</script>",
        encoding="utf-8",
    )
    dom, _ = chromium(frame, "--dump-dom")
    widest = re.search(r'id="said">(\d+)<', dom)
    assert widest is not None, "the frame could not be measured"
    assert int(widest[1]) <= width
