"""The report as Chromium shows it: from a file, offline, light and dark, wide, narrow and printed;
and as it is used: the slider, the heads of tables, the keyboard."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
from fabricated_failures import fabricate_failures
from fabricated_opening import fabricate_test
from fabricated_run import fabricate_patches, fabricate_predictions, fabricate_run
from PIL import Image
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    fbeta_score,
    precision_score,
    recall_score,
)

from ml_core.evaluation.predictions import Predictions, evaluate_predictions
from ml_core.evaluation.report import render_report
from ml_core.metrics import f_beta_interval, wilson_interval
from ml_core.runs import RunDir, write_json

DARK = ("--force-dark-mode", "--blink-settings=preferredColorScheme=0")
WIDEST = (
    "Math.round(Math.max(...[...document.querySelectorAll('main *:not(.scroll *):not(svg *)"
    ":not(.visually-hidden):not(.visually-hidden *)')].map(each => "
    "each.getBoundingClientRect().right)))"
)


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """Two runs, one a champion and one unsealed."""
    folder = tmp_path_factory.mktemp("browser")
    runs = [fabricate_run(folder / "runs", seed) for seed in (1, 2)]
    fabricate_test(runs[0])
    fabricate_test(runs[1], sealed=False)
    return render_report(runs, folder / "report.html", fabricate_patches)


@pytest.fixture(scope="module")
def tied(tmp_path_factory) -> RunDir:
    """A run of patches whose probabilities are hundredths, so that many lie on a threshold."""
    run = fabricate_run(tmp_path_factory.mktemp("tied"))
    fabricate_failures(run)
    raw = fabricate_predictions()
    y_prob = np.round(raw.y_prob, 2)
    tied = fabricate_predictions(y_prob=y_prob, logit=np.log((y_prob + 1e-6) / (1 - y_prob + 1e-6)))
    tied.save(run.predictions_path("valid"))
    write_json(run.metrics_path, evaluate_predictions(tied, 0.37, num_resamples=50))
    render_report([run], run.report_path, fabricate_patches)
    return run


# ---- how it looks ------------------------------------------------------------------------------


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
    flags = [f"--screenshot={shot}", "--window-size=1300,4000"]
    chromium(report, *flags, *(DARK if theme == "dark" else ()))
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("L"), dtype=float)
    background = np.median(pixels)
    assert (background < 60) if theme == "dark" else (background > 240)
    drawn = np.abs(pixels - background) > 60
    assert 0.02 < drawn.mean() < 0.5
    bands = np.array_split(drawn, 8)  # from top to bottom: no part of the page is empty
    assert min(band.mean() for band in bands) > 0.003


def test_nothing_sticks_out_of_any_screen_with_everything_open(open_live, report, tied):
    for path in (report, tied.report_path):
        page = open_live(path)
        page.ask("document.querySelectorAll('details').forEach(each => each.open = true)")
        for width in (360, 390, 820, 1280):
            page.resize(width)
            assert page.ask("document.documentElement.scrollWidth") == width, path
            assert page.ask(WIDEST) <= width, path


def test_every_picture_is_shown(open_live, report):
    page = open_live(report)
    assert page.ask("document.images.length") >= 48
    assert page.ask("[...document.images].every(each => each.naturalWidth === 96)")


def test_on_paper_the_page_is_light_and_shows_no_control(open_live, tied):
    page = open_live(tied.report_path)
    page.send("Emulation.setEmulatedMedia", media="print",
              features=[{"name": "prefers-color-scheme", "value": "dark"}])  # fmt: skip
    seen = "getComputedStyle(document.querySelector('{}')).{}"
    assert page.ask(seen.format("body", "backgroundColor")) == "rgb(255, 255, 255)"
    ink = "getComputedStyle(document.documentElement).getPropertyValue('--vermillion')"
    assert page.ask(ink) == "#d55e00", "the colours of the light page"
    for control in ("nav.bar", ".slider", ".presets"):
        assert page.ask(seen.format(control, "display")) == "none"
    assert page.ask(seen.format(".confusion td.right", "display")) == "table-cell"
    paper = base64.b64decode(
        page.send("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)["data"]
    )
    assert paper.startswith(b"%PDF") and 5 <= paper.count(b"/Type /Page\n") <= 35


# ---- the slider --------------------------------------------------------------------------------


def shown_in(page, panel: str = "[data-operating]") -> dict:
    """What the first panel shows: counts by cell, [value, low, high] by metric, the threshold."""
    return page.ask(
        f"(() => {{ const panel = document.querySelector('{panel}');"
        "const values = nodes => [...nodes].map(n => n.value === '' ? null : Number(n.value));"
        "const rates = Object.fromEntries([...panel.querySelectorAll('[data-rate]')].map(row => "
        "[row.dataset.rate, values(row.querySelectorAll('data'))]));"
        "const cells = Object.fromEntries(['tn', 'fp', 'fn', 'tp'].map(name => "
        "[name, values(panel.querySelectorAll(`data[data-cell=${name}]`))]));"
        "const dots = ['roc', 'precision_recall'].map(name => { const dot = panel.querySelector("
        "`[data-figure=${name}] .dot`); return [dot.cx.baseVal.value, dot.cy.baseVal.value]; });"
        "return {threshold: values(panel.querySelectorAll('[data-threshold]'))[0], rates, cells,"
        "roc: dots[0], precision_recall: dots[1]}; })()"
    )


def slide(page, position: int) -> dict:
    page.ask(
        "(() => { const slider = document.querySelector('[data-operating] input');"
        f"slider.value = {position}; slider.dispatchEvent(new Event('input')); }})()"
    )
    return shown_in(page)


def expected_at(predictions: Predictions, threshold: float) -> dict:
    """The same as scikit-learn gives it, with the intervals of ml_core.metrics."""
    y, called = predictions.labels, predictions.y_prob >= threshold
    tn, fp, fn, tp = confusion_matrix(y, called).ravel().tolist()
    f2, f1 = fbeta_score(y, called, beta=2), f1_score(y, called)
    precision = precision_score(y, called) if called.any() else None
    return {
        "cells": {"tn": tn, "fp": fp, "fn": fn, "tp": tp},
        "rates": {
            "recall": [recall_score(y, called), *wilson_interval(tp, tp + fn)],
            "specificity": [recall_score(1 - y, ~called), *wilson_interval(tn, tn + fp)],
            "precision": [precision, *wilson_interval(tp, tp + fp)],
            "f2": [f2, *f_beta_interval(tp, fp, fn, 2)],
            "f1": [f1, *f_beta_interval(tp, fp, fn, 1)],
            "accuracy": [accuracy_score(y, called), *wilson_interval(tp + tn, len(y))],
        },
    }


def agree(shown: dict, predictions: Predictions) -> None:
    expected = expected_at(predictions, shown["threshold"])
    for name, count in expected["cells"].items():
        assert set(shown["cells"][name]) == {count}, (name, shown["threshold"])
    for name, values in expected["rates"].items():
        known = [np.nan if value is None else value for value in values]
        told = [np.nan if value is None else value for value in shown["rates"][name]]
        np.testing.assert_allclose(told, known, rtol=0, atol=1e-9, err_msg=name)


def test_before_it_is_moved_the_slider_is_where_the_split_was_scored(open_live, tied):
    page = open_live(tied.report_path)
    shown = shown_in(page)
    assert shown["threshold"] == 0.37
    agree(shown, Predictions.load(tied.predictions_path("valid")))
    assert page.ask("document.querySelector('[data-operating] input').value") == "370"


def test_at_every_threshold_the_numbers_are_what_scikit_learn_gives(open_live, tied):
    """Every hundredth has patches exactly on it; 0 calls all of them tumour."""
    predictions = Predictions.load(tied.predictions_path("valid"))
    page = open_live(tied.report_path)
    for position in [0, 1, *range(10, 1001, 45), 369, 370, 371, 500, 990, 991, 1000]:
        shown = slide(page, position)
        assert shown["threshold"] == position / 1000
        agree(shown, predictions)
        recall, specificity = shown["rates"]["recall"][0], shown["rates"]["specificity"][0]
        assert shown["roc"] == pytest.approx([1 - specificity, recall], abs=1e-6)
    assert page.messages == []


def test_a_threshold_between_two_positions_has_one_of_its_own(open_live, tmp_path):
    run = fabricate_run(tmp_path)
    predictions = fabricate_predictions()
    frozen = float(np.sort(predictions.y_prob)[700])  # a patch lies exactly on it
    write_json(run.metrics_path, evaluate_predictions(predictions, frozen, num_resamples=50))
    page = open_live(render_report([run], run.report_path))
    assert shown_in(page)["threshold"] == frozen
    around = int(1000 * frozen)
    for position in (around, around + 1, around + 2):
        agree(slide(page, position), predictions)
    assert slide(page, around + 1)["threshold"] == frozen
    page.click("button[data-position='501']")
    assert shown_in(page)["threshold"] == 0.5
    page.click("[data-operating] button[data-position]")
    assert shown_in(page)["threshold"] == frozen


def test_where_nothing_is_called_tumour_precision_is_a_dash_and_has_no_point(open_live, tmp_path):
    run = fabricate_run(tmp_path)
    y_prob = fabricate_predictions().y_prob * 0.9
    fabricate_predictions(y_prob=y_prob).save(run.predictions_path("valid"))
    page = open_live(render_report([run], run.report_path))
    shown = slide(page, 1000)
    assert shown["cells"]["tp"][0] == shown["cells"]["fp"][0] == 0
    assert shown["rates"]["precision"] == [None, None, None]
    row = "document.querySelector('[data-rate=precision]').innerText"
    assert page.ask(row).split("\t")[1:3] == ["–", "–––"]
    point = "document.querySelector('[data-figure=precision_recall] .point').classList.value"
    assert page.ask(point) == "point nowhere"
    assert slide(page, 500)["rates"]["precision"][0] > 0.5 and page.ask(point) == "point"


def test_the_slider_moves_by_keys_and_says_where_it_is(open_live, tied):
    page = open_live(tied.report_path)
    predictions = Predictions.load(tied.predictions_path("valid"))
    page.ask("document.querySelector('[data-operating] input').focus()")
    page.press("ArrowRight", 3)
    assert shown_in(page)["threshold"] == 0.373
    agree(shown_in(page), predictions)
    slider = "document.querySelector('[data-operating] input').getAttribute('aria-valuetext')"
    assert page.ask(slider) == "0.3730"
    page.press("Home")
    assert shown_in(page)["threshold"] == 0
    page.press("End")
    assert shown_in(page)["threshold"] == 1
    page.ask("new Promise(done => setTimeout(done, 500))")
    said = page.ask("document.querySelector('[data-operating] [role=status]').textContent")
    missed = f"{int(((predictions.y_prob < 1) & (predictions.labels == 1)).sum())} tumours missed"
    assert said.startswith("Threshold 1.0000") and missed in said


def test_without_a_script_the_page_stands_at_the_scored_threshold(open_live, tied, tmp_path):
    html = tied.report_path.read_text(encoding="utf-8")
    still = tmp_path / "still.html"
    still.write_text(re.sub(r"<script>.*</script>", "", html, flags=re.DOTALL), encoding="utf-8")
    page = open_live(still)
    agree(shown_in(page), Predictions.load(tied.predictions_path("valid")))
    assert page.ask("document.querySelector('[data-operating] input').checkVisibility()") is False
    assert page.ask("document.querySelectorAll('button:not([data-position])').length") == 0


# ---- tables that sort --------------------------------------------------------------------------


def column(page, table: str, number: int) -> list[str]:
    """The keys of a column from top to bottom, as numbers where they have an exact value."""
    return page.ask(
        f"[...document.querySelectorAll('{table} tbody')].flatMap(body => [...body.rows].slice("
        f"0, document.querySelectorAll('{table} tbody').length > 1 ? 1 : undefined)).map(row => "
        f"row.cells[{number}].querySelector('data')?.value ?? row.cells[{number}].innerText.trim())"
    )


def test_a_click_on_a_head_sorts_and_another_turns_it_round(open_live, report):
    page = open_live(report)
    auc = 3
    before = column(page, "table.overview", auc)
    page.click(f"table.overview thead th:nth-child({auc + 1}) button")
    assert column(page, "table.overview", auc) == sorted(before, key=float)
    order = f"document.querySelector('table.overview thead th:nth-child({auc + 1})').ariaSort"
    assert page.ask(order) == "ascending"
    page.click(f"table.overview thead th:nth-child({auc + 1}) button")
    assert column(page, "table.overview", auc) == sorted(before, key=float, reverse=True)
    assert page.ask(order) == "descending"
    page.click("table.overview thead th button")
    assert page.ask(order) is None, "only the head that sorted last says so"
    assert column(page, "table.overview", 0) == ["seed 1", "seed 2"]
    assert page.messages == []


def test_slices_sort_with_their_details_and_by_keyboard_alone(open_live, tied):
    page = open_live(tied.report_path)
    page.ask("document.querySelector('table.slices thead button').focus()")
    page.press("Tab")
    page.press("Enter")
    sizes = [int(size) for size in column(page, "table.slices", 1)]
    assert len(sizes) > 10 and sizes == sorted(sizes, reverse=True), "most patches first"
    page.press(" ")
    sizes = [int(size) for size in column(page, "table.slices", 1)]
    assert sizes == sorted(sizes)
    alone = page.ask(
        "[...document.querySelectorAll('table.slices tbody')].every(body => body.rows.length === 2 "
        "&& body.rows[1].matches('.more'))"
    )
    assert alone, "each slice keeps the row with its patches"


def test_what_is_undefined_stays_last_whichever_way_a_table_is_sorted(open_live, tmp_path):
    runs = [fabricate_run(tmp_path, seed, 2.0 + seed / 5, logs=False) for seed in (1, 2, 3)]
    runs[1].metrics_path.unlink()
    page = open_live(render_report(runs, tmp_path / "report.html"))
    for _ in range(2):
        page.click("table.overview thead th:nth-child(4) button")
        assert column(page, "table.overview", 3)[-1] == "absent"


# ---- the rest ----------------------------------------------------------------------------------


def test_the_bar_follows_the_reader_and_its_links_lead_below_it(open_live, tied):
    page = open_live(tied.report_path)
    current = "document.querySelector('nav.bar [aria-current]').textContent"
    assert page.ask(current) == "Verdict"
    page.ask("document.documentElement.style.scrollBehavior = 'auto'")
    page.click("nav.bar li:nth-last-child(2) a")
    page.ask("new Promise(done => setTimeout(done, 300))")
    assert page.ask(current) == "Data"
    gap = "{}.getBoundingClientRect()"
    below = page.ask(
        f"{gap.format('document.getElementById(location.hash.slice(1))')}.top - "
        f"{gap.format('document.querySelector(`nav.bar`)')}.bottom"
    )
    assert 0 <= below < 60


def test_a_script_that_is_not_the_pages_own_is_not_run(open_live, tied, tmp_path):
    html = tied.report_path.read_text(encoding="utf-8")
    changed = tmp_path / "changed.html"
    planted = (
        "<script>document.title = 'planted'</script><img src=x onerror=\"document.title='x'\">"
    )
    changed.write_text(html.replace("<main", f"{planted}<main", 1), encoding="utf-8")
    page = open_live(changed)
    assert page.ask("document.title") == "pcam_cnn, seed 0"
    assert any("Content Security Policy" in message for message in page.messages)
    assert shown_in(page)["threshold"] == 0.37 and slide(page, 400)["threshold"] == 0.4


def test_offline_and_used_from_end_to_end_the_console_stays_silent(open_live, report):
    page = open_live(report, width=390)
    page.ask("document.querySelectorAll('details').forEach(each => each.open = true)")
    for button in range(page.ask("document.querySelectorAll('th button').length")):
        page.ask(f"document.querySelectorAll('th button')[{button}].click()")
    page.ask(
        "document.querySelectorAll('input').forEach(slider => { slider.value = 250;"
        "slider.dispatchEvent(new Event('input')); })"
    )
    page.ask("new Promise(done => { scrollTo(0, 1e6); setTimeout(done, 600); })")
    assert page.messages == []
    assert json.loads(page.ask("JSON.stringify(performance.getEntriesByType('resource'))")) == []
