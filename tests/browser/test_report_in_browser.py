"""The report as Chromium shows it: from a file, light and dark, wide and narrow."""

import re
from pathlib import Path

import numpy as np
import pytest
from fabricated_opening import fabricate_test
from fabricated_run import fabricate_patches, fabricate_run
from PIL import Image

from ml_core.evaluation.report import render_report


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    runs = [fabricate_run(folder / "runs", seed) for seed in (1, 2)]
    fabricate_test(runs[0])
    fabricate_test(runs[1], sealed=False)
    return render_report(runs, folder / "report.html", fabricate_patches)


def test_the_page_opens_without_a_message_on_the_console(chromium, report, tmp_path):
    dom, console = chromium(report, "--dump-dom")
    assert console == []
    assert len(re.findall("<article", dom)) == 2
    assert dom.count("<svg") > 20

    broken = tmp_path / "broken.html"  # a page that does complain, so that silence means something
    broken.write_text("<script>console.error('heard')</script>", encoding="utf-8")
    assert "heard" in chromium(broken, "--dump-dom")[1][0]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_drawn_in_the_theme_of_the_reader(chromium, report, tmp_path, theme):
    shot = tmp_path / f"{theme}.png"
    dark = ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"]
    flags = [f"--screenshot={shot}", "--window-size=1300,4000", *(dark if theme == "dark" else [])]
    chromium(report, *flags)
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("L"), dtype=float)
    background = np.median(pixels)
    assert (background < 60) if theme == "dark" else (background > 240)
    drawn = np.abs(pixels - background) > 60
    assert 0.02 < drawn.mean() < 0.5
    bands = np.array_split(drawn, 8)  # from top to bottom: no part of the page is empty
    assert min(band.mean() for band in bands) > 0.003


@pytest.mark.parametrize("width", [360, 820])
def test_nothing_sticks_out_of_a_narrow_screen(chromium, report, tmp_path, width):
    frame = tmp_path / "frame.html"
    frame.write_text(
        f"<iframe src='{report.as_uri()}' style='width:{width}px;height:700px;border:0'></iframe>"
        "<p id=width></p><script>onload = () => { const page = frames[0].document;"
        "document.getElementById('width').textContent = page.documentElement.scrollWidth;"
        "}</script>",
        encoding="utf-8",
    )
    dom, _ = chromium(frame, "--dump-dom")
    shown = re.search(r'id="width">(\d+)<', dom)
    assert shown is not None, "the frame could not be measured"
    assert int(shown[1]) == width
