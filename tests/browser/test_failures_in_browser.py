"""Where a model fails, as Chromium shows it: opened by mouse and keyboard, sorted, on a phone."""

import numpy as np
import pytest
from fabricated_failures import fabricate_failures
from fabricated_run import fabricate_patches, fabricate_run

from ml_core.evaluation.report import render_report
from ml_core.runs import read_json

ROWS = "[...document.querySelectorAll('tbody[data-slice]')]"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = fabricate_run(tmp_path_factory.mktemp("browser"), logs=False)
    fabricate_failures(run)
    render_report([run], run.report_path, fabricate_patches)
    return run


def test_a_click_anywhere_on_a_row_opens_its_patches_and_a_second_closes_them(open_live, run):
    live = open_live(run.report_path)
    is_open = f"{ROWS}[2].querySelector('details').open"
    row = "tbody[data-slice='darkest fifth'] tr.row td:nth-child(4)"
    assert live.ask(is_open) is False
    live.click(row)
    assert live.ask(is_open) is True
    panel = live.ask(f"{ROWS}[2].querySelector('.slice-panel').getBoundingClientRect().height")
    assert panel > 100
    live.click("tbody[data-slice='darkest fifth'] .slice-panel .small")  # to read is not to close
    assert live.ask(is_open) is True
    live.click(row)
    assert live.ask(is_open) is False
    assert live.messages == []


def test_a_row_opens_by_the_keyboard(open_live, run):
    live = open_live(run.report_path)
    live.ask(f"{ROWS}[0].querySelector('summary').focus()")
    live.press("Enter")
    assert live.ask(f"{ROWS}[0].querySelector('details').open") is True
    live.press("Tab")
    live.press("Tab")
    name = live.ask("document.activeElement.closest('tbody')?.dataset.slice ?? ''")
    assert name != live.ask(f"{ROWS}[0].dataset.slice")


def test_sorting_moves_a_row_with_its_patches(open_live, run):
    live = open_live(run.report_path)
    slices = read_json(run.slices_path("valid"))["slices"]
    scored = [each for each in slices if not each["too_small"]]
    live.ask(f"{ROWS}[0].querySelector('details').open = true")
    live.click("table.slices thead th:nth-child(2) button")
    sizes = live.ask(f"{ROWS}.map(row => Number(row.querySelector('td data').value))")
    assert sizes == sorted((each["n"] for each in scored), reverse=True)
    live.click("table.slices thead th:nth-child(8) button")
    recalls = live.ask(f"{ROWS}.map(row => Number(row.querySelectorAll('tr.row td')[6]"
                       ".querySelector('data').value))")  # fmt: skip
    assert recalls == sorted(recalls)
    opened = live.ask(f"{ROWS}.filter(row => row.querySelector('details').open)"
                      ".map(row => row.dataset.slice)")  # fmt: skip
    assert opened == [scored[0]["name"]]


def test_every_picture_is_one_that_the_browser_can_decode(open_live, run):
    live = open_live(run.report_path)
    sizes = live.ask(
        "Promise.all([...document.querySelectorAll('.pic')].map(async node => {"
        "const image = new Image();"
        "image.src = getComputedStyle(node).backgroundImage.slice(5, -2);"
        "await image.decode(); return image.naturalWidth; }))"
    )
    assert len(sizes) > 200 and set(sizes) == {96, 48}
    assert live.messages == []


@pytest.mark.parametrize("width", [390, 820, 1280])
def test_nothing_sticks_out_of_the_page_whatever_is_open(open_live, run, width):
    live = open_live(run.report_path, width=width)
    live.ask("document.querySelectorAll('.failures details').forEach(each => each.open = true)")
    assert live.ask("document.documentElement.scrollWidth") <= width
    outside = live.ask(
        "[...document.querySelectorAll("
        "'.slices .slice-panel, .all-scores div, .worst-card, .found-card, .errors li')]"
        f".filter(node => node.getBoundingClientRect().right > {width}).length"
    )
    assert outside == 0


def test_on_a_phone_a_slice_still_says_how_often_it_is_wrong(open_live, run):
    live = open_live(run.report_path, width=390)
    shown = live.ask(f"{ROWS}[0].querySelector('tr.row').innerText.replaceAll('\\u2212', '-')")
    worst = read_json(run.slices_path("valid"))["slices"][0]
    assert worst["name"] in shown
    assert f"{100 * (1 - worst['metrics']['accuracy']['value']):.1f} %" in shown
    assert "wrong" in live.ask(
        f"getComputedStyle({ROWS}[0].querySelectorAll('tr.row td')[2], '::before').content"
    )


def test_pictures_are_named_for_who_cannot_see_them(open_live, run):
    live = open_live(run.report_path)
    unnamed = live.ask(
        "[...document.querySelectorAll('.failures .pic, .failures img, .failures svg')].filter("
        "node => !node.getAttribute('aria-label') && node.getAttribute('aria-hidden') !== 'true'"
        " && !node.alt).length"
    )
    assert unnamed == 0
    unlabelled = live.ask(
        "[...document.querySelectorAll('.failures summary')]"
        ".filter(node => !node.textContent.trim()).length"
    )
    assert unlabelled == 0


def test_patches_are_printed(open_live, run):
    live = open_live(run.report_path)
    live.send("Emulation.setEmulatedMedia", media="print")
    adjust = live.ask("getComputedStyle(document.querySelector('.pic')).printColorAdjust")
    assert adjust == "exact"
    assert np.all(live.ask(
        "[...document.querySelectorAll('.worst-card .pic')].map(node => node.offsetWidth)"
    ))  # fmt: skip
