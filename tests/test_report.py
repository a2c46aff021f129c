import base64
import hashlib
import io
import itertools
import json
import re
import statistics
import time
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest
from fabricated_failures import fabricate_failures
from fabricated_opening import (
    SAID,
    fabricate_baselines,
    fabricate_champion,
    fabricate_test,
)
from fabricated_run import (
    NOT_LEARNING,
    fabricate_patches,
    fabricate_predictions,
    fabricate_run,
    fabricate_split,
)
from PIL import Image

from ml_core.errors import DataError, RunError
from ml_core.evaluation.openings import Opening, Openings
from ml_core.evaluation.predictions import Predictions, evaluate_predictions
from ml_core.evaluation.report import render_report
from ml_core.evaluation.report.gallery import build_galleries
from ml_core.evaluation.report.run_facts import read_run_facts
from ml_core.page.script import load_script
from ml_core.runs import RunDir, RunRecord, read_json, write_json

HOSTILE = "<script>alert('x')</script>&\"$x_{1}$"


class Page(HTMLParser):
    """Elements with their attributes and all of their text, as a browser would read them."""

    VOID = frozenset({"meta", "img", "br", "col", "input", "line", "circle"})

    def __init__(self, html: str):
        super().__init__()
        self.html = html
        self.elements = []
        self._open = []
        self.feed(html)
        assert not self._open, f"not closed: {[e['tag'] for e in self._open]}"

    def handle_starttag(self, tag, attrs):
        element = {"tag": tag, "text": "", **dict(attrs)}
        element["id"] = element.get("id")
        element["within"] = list(self._open)
        self.elements.append(element)
        if tag not in self.VOID:
            self._open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        if tag in ("td", "th", "p", "dd", "dt", "li"):
            self.handle_data(" ")
        assert self._open and self._open[-1]["tag"] == tag, f"</{tag}> closes {self._open[-1]}"
        self._open.pop()

    def handle_data(self, data):
        for element in self._open:
            element["text"] += data

    def all(self, tag, **attributes):
        wanted = {key.replace("_", "-"): value for key, value in attributes.items()}
        return [
            e for e in self.elements
            if e["tag"] == tag and all(e.get(key) == value for key, value in wanted.items())
        ]  # fmt: skip

    def values_in(self, element):
        """The exact numbers behind what is shown inside `element`."""
        return [
            float(e["value"]) for e in self.all("data") if any(w is element for w in e["within"])
        ]

    @property
    def findings(self):
        return {e["text"] for e in self.all("li") if "finding" in (e.get("class") or "")}

    @property
    def text(self):
        return " ".join(self.all("body")[0]["text"].split())


def render(*runs: RunDir, read_patches=None) -> Page:
    path = render_report(runs, runs[0].path / "report.html", read_patches)
    return Page(path.read_text(encoding="utf-8"))


def messages(run: RunDir) -> list[str]:
    """What the page would say about `run` in its boxes; that it does is tested by others."""
    return [finding.message for finding in read_run_facts(run).findings]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunDir:
    """A good run that tests only read."""
    return fabricate_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def page(run) -> Page:
    """The page about `run`, with examples."""
    return render(run, read_patches=fabricate_patches)


@pytest.fixture(scope="module")
def failing(tmp_path_factory) -> RunDir:
    """A champion that was sliced and explained, tested, and does not learn; tests only read it."""
    run = fabricate_run(tmp_path_factory.mktemp("failing"), findings=[NOT_LEARNING])
    fabricate_failures(run)
    fabricate_test(run)
    return run


@pytest.fixture(scope="module")
def failing_page(failing) -> Page:
    return render(failing, read_patches=fabricate_patches)


def test_every_score_on_the_page_is_the_one_in_metrics_json(run, page):
    scores = read_json(run.metrics_path)
    for name, metric in scores["metrics"].items():
        (row,) = page.all("tr", data_metric=name)
        baselines = [values[name] for values in scores["baselines"].values()]
        expected = [metric["value"], metric["low"], metric["high"], *baselines]
        assert page.values_in(row) == [value for value in expected if value is not None]
    headline = page.all("div", data_metric="roc_auc")[0]
    assert f"{scores['metrics']['roc_auc']['value']:.3f}" in headline["text"]


def test_the_confusion_matrix_shows_counts_and_rates_that_sum_to_n(run, page):
    scores = read_json(run.metrics_path)
    (figure,) = page.all("figure", data_figure="confusion")
    counts = page.values_in(figure)
    assert counts == [scores["confusion"][name] for name in ("tn", "fp", "fn", "tp")]
    assert sum(counts) == scores["n"]
    assert f"{100 * counts[3] / (counts[2] + counts[3]):.1f} % of tumour" in figure["text"]


def test_the_first_lines_say_what_was_scored_with_which_weights_on_which_data(run, page):
    text, scores = page.text, read_json(run.metrics_path)
    first = text[: text.index("Scores and baselines")]
    for fact in (
        "pcam_cnn", "seed 0", "cnn", "valid split", "1,500 patches", "330,242 parameters",
        "threshold 0.5", scores["weights_sha256"][:12], "epoch 8 of 10",
        "train: 20,000 patches, all in the file", "2 min 9 s", "commit 4fbfce8a1b2c", "95 %",
        "always positive",
    ):  # fmt: skip
        assert fact in first, fact


def test_a_subset_of_the_data_is_said_in_the_first_lines(tmp_path):
    data = {
        "train": fabricate_split("train", 2_000, num_rows=20_000, max_patches=2_000),
        "valid": fabricate_split("valid", 1_500),
    }
    text = render(fabricate_run(tmp_path, data=data)).text
    first = text[: text.index("Scores and baselines")]
    assert "train: 2,000 patches, 18,000 of 20,000 in the file not used" in first
    assert "valid: 1,500 patches, all in the file" in first


def test_the_verdict_comes_before_every_part_and_in_its_order(failing_page):
    text = failing_page.text
    words = (
        SAID, "seed 0 · cnn", "Better than the best baseline in", "0.503 cannot be told from",
        "train: 20,000 patches", "Audit of the data", "Weights scored", "test split",
        "always positive", "Worst slices", "duplicates across splits", "Where it fails",
    )  # fmt: skip
    places, place = [], text.index(SAID)
    for word in words:
        place = text.find(word, place)
        places.append(place)
    assert -1 not in places, dict(zip(words, places, strict=True))
    assert "Where it fails" not in text[places[0] : places[-1]], "the verdict is before every part"


def test_the_headline_stands_beside_every_baseline_and_marks_those_not_beaten(tmp_path):
    page = render(run := fabricate_run(tmp_path, separation=1.0))
    (table,) = page.all("table", **{"class": "versus"})
    baselines = read_json(run.metrics_path)["baselines"]
    expected = [
        each[name]
        for each in baselines.values()
        for name in ("roc_auc", "pr_auc", "accuracy", "f2")
    ]
    assert page.values_in(table) == [value for value in expected if value is not None]
    marked = [e["text"] for e in page.all("mark") if any(w is table for w in e["within"])]
    assert marked and f"{baselines['always_positive']['f2']:.3f}" in marked


def test_the_worst_slices_stand_in_the_verdict_with_their_intervals(failing, failing_page):
    worst = [e for e in failing_page.all("li") if "data-worst" in e]
    content = read_json(failing.slices_path("valid"))
    differences = {
        each["name"]: each["differences"]["error"]
        for each in content["slices"] if each["standing"] == "worse"
    } | {
        each["name"]: each["confirmed"]["difference"]
        for each in content["discovery"]["slices"] if each["is_confirmed"]
    }  # fmt: skip
    assert 1 <= len(worst) <= 4
    for shown in worst:
        difference = differences[shown["data-worst"]]
        values = failing_page.values_in(shown)
        assert values[1:] == [difference[end] for end in ("value", "low", "high")]
    assert "Worst slices of valid, tumour from 0.5" in failing_page.text


def test_findings_that_name_the_worst_slices_are_not_said_beside_them(tmp_path):
    run = fabricate_run(tmp_path)
    fabricate_failures(run)
    content = read_json(run.slices_path("valid"))
    named = [{"id": id_, "severity": "warning", "message": f"{id_} are these.", "action": "Look."}
             for id_ in ("slices-worse", "slices-discovered", "slices-lower-recall")]  # fmt: skip
    write_json(run.slices_path("valid"), {**content, "findings": named})
    text = render(run).text
    assert "slices-lower-recall are these." in text and "Look." in text
    assert "slices-worse are these." not in text and "slices-discovered are these." not in text


def test_without_scores_no_threshold_is_said_to_be_the_one_that_calls(tmp_path):
    run = fabricate_run(tmp_path)
    run.metrics_path.write_text("{")
    page = render(run)
    (panel,) = page.all("section", **{"class": "block operating"})
    assert "Tumour is called from" not in page.text
    assert "Set at" not in page.text and "Scored at" not in page.text
    assert panel


def test_the_test_split_is_not_to_be_opened_again_where_it_was(tmp_path):
    run = fabricate_run(tmp_path)
    champion = fabricate_champion(run)
    advice = "Believe the test split: ml-core evaluate champion.json --split test, once."
    champion["findings"] = [
        {"id": "best-of-many", "severity": "info", "message": "best of 6.", "action": advice}
    ]
    out = run.report_path
    champions = {run.path: champion}
    assert advice in render_report([run], out, champions=champions).read_text(encoding="utf-8")
    fabricate_test(run)
    write_json(
        run.scores_path("test"), {**read_json(run.scores_path("test")), "champion": champion}
    )
    text = render_report([run], out).read_text(encoding="utf-8")
    assert "best of 6." in text and "See Test." in text and advice not in text


def test_a_run_that_was_not_sliced_has_no_worst_slices_and_says_how_to_get_them(page):
    assert "Worst slices" not in page.text
    assert "slices.json is absent" in page.text and "ml-core slice" in page.text


def test_errors_that_were_ranked_replace_the_plain_galleries(page, failing_page):
    """Of validation, whose errors.json is there; the test split has none."""
    assert len(page.all("div", **{"class": "gallery"})) == 2
    assert len(failing_page.all("div", **{"class": "gallery"})) == 2
    assert "Test" in [e["text"] for e in failing_page.all("h2")]


def test_damaged_and_absent_files_on_failures_are_said(tmp_path):
    run = fabricate_run(tmp_path)
    fabricate_failures(run)
    run.slices_path("valid").write_text("[1, 2]")
    run.explain_path("valid").unlink()
    facts = read_run_facts(run)
    assert set(facts.failures) == {"errors.json", "uncertainty.json"}
    assert facts.failures_of("valid")["slices"] is None
    assert facts.file("explain.json").state == "absent"
    assert any("slices.json is damaged" in finding.message for finding in facts.findings)


def test_a_run_that_does_not_learn_says_so_before_any_score(tmp_path):
    page = render(fabricate_run(tmp_path, separation=0.0, findings=[NOT_LEARNING]))
    (box,) = [e for e in page.all("li") if e.get("class") == "finding error"]
    assert "0.503 cannot be told from chance" in box["text"]
    assert page.html.index("finding error") < page.html.index('class="headline ')
    assert "Better than the best baseline in 0 of 8 metrics" in page.text


def test_a_score_below_always_positive_is_a_finding(tmp_path):
    page = render(fabricate_run(tmp_path, separation=1.0))
    (finding,) = [text for text in page.findings if "not above baseline" in text]
    assert re.search(r"always positive in .*F2 \(0\.\d+ against 0\.8\d+\)", finding)
    assert "ROC-AUC" not in finding


def test_a_model_far_above_every_baseline_has_no_findings(tmp_path):
    page = render(fabricate_run(tmp_path, separation=4.0))
    assert page.findings == set()
    assert "Better than the best baseline in 8 of 8 metrics" in page.text


def test_scores_that_the_predictions_do_not_give_are_an_error(tmp_path):
    run = fabricate_run(tmp_path)
    scores = read_json(run.metrics_path)
    scores["metrics"]["roc_auc"]["value"] = 0.99
    scores["n"] = 14_000
    write_json(run.metrics_path, scores)
    (finding,) = [text for text in messages(run) if "is not what" in text]
    assert "roc_auc is 0.99, the table gives 0.9" in finding
    assert "n is 14000, the table has 1500 patches" in finding


def test_scores_that_the_predictions_give_are_said_to_be_recomputed(page):
    assert "computed again from predictions/valid.parquet; the largest difference" in page.text


def test_predictions_of_other_weights_than_the_scores_are_an_error(tmp_path):
    run = fabricate_run(tmp_path)
    fabricate_predictions(weights_sha256="f" * 64).save(run.predictions_path("valid"))
    assert any("was made with ffff" in text for text in messages(run))


def test_scores_of_another_checkpoint_than_the_best_are_a_warning(tmp_path):
    best = {"epoch": 3, "metric": "val_roc_auc", "value": 0.9, "weights_sha256": "e" * 64}
    findings = messages(fabricate_run(tmp_path, best=best))
    assert any("are not the best of this run (eeeeeeeeeeee, epoch 3)" in text for text in findings)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("running", "has not ended"),
        ("interrupted", "was interrupted"),
        ("failed", "This run failed. out of memory"),
        ("diverged", "loss or gradient was not finite. out of memory"),
    ],
)
def test_a_run_that_did_not_end_well_says_so(tmp_path, status, words):
    error = "out of memory" if status in ("failed", "diverged") else None
    findings = messages(fabricate_run(tmp_path, status=status, error=error))
    assert any(words in text for text in findings)


def test_code_that_is_in_no_commit_is_a_warning_with_the_changes_below(tmp_path):
    run = fabricate_run(tmp_path, code={"commit": "4fbf", "dirty": True})
    run.diff_path.write_text("-old line\n+new line\n", encoding="utf-8")
    page = render(run)
    assert any("uncommitted code" in text for text in page.findings)
    assert any("+new line" in pre["text"] for pre in page.all("pre"))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("metrics.json", "This run has no scores: metrics.json is absent"),
        ("predictions/valid.parquet", "cannot be recomputed: predictions/valid.parquet is absent"),
        ("metrics.jsonl", "metrics.jsonl is absent"),
        ("steps.jsonl", "steps.jsonl is absent"),
        ("config.yaml", "config.yaml is absent"),
    ],
)
def test_a_file_that_is_absent_is_said_to_be(tmp_path, path, said):
    run = fabricate_run(tmp_path)
    (run.path / path).unlink()
    page = render(run)
    assert said in page.text
    (row,) = [e for e in page.all("tr") if e["text"].split()[:1] == [path]]
    assert row["text"].split()[-1] == "absent"


def test_a_record_and_nothing_else_still_gives_a_page(tmp_path):
    run = RunDir.create(tmp_path, "run")
    record = {"experiment_name": "bare", "seed": 1, "command": "ml-core train x.yaml"}
    write_json(run.record_path, record)
    page = render(run)
    for name in ("metrics.json", "metrics.jsonl", "steps.jsonl", "config.yaml", "valid.parquet"):
        assert name in page.text
    assert page.all("figure") == []


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("metrics.json", "{"),
        ("metrics.json", "{}"),
        ("metrics.jsonl", '{"epoch": 1\n{"epoch": 2}\n'),
        ("steps.jsonl", "nonsense\n"),
        ("predictions/valid.parquet", "PAR1 but not quite"),
    ],
)
def test_a_damaged_file_is_a_finding_that_names_it(tmp_path, path, content):
    run = fabricate_run(tmp_path)
    (run.path / path).write_text(content, encoding="utf-8")
    assert any(text.startswith(f"{path} is damaged") for text in messages(run))
    assert not any(f"{path} is absent" in text for text in messages(run))


def test_a_page_about_damaged_files_says_so_where_they_would_be_shown(tmp_path):
    run = fabricate_run(tmp_path)
    for path in (run.metrics_path, run.metrics_log_path, run.predictions_path("valid")):
        path.write_text("nonsense\n", encoding="utf-8")
    page = render(run)
    assert "metrics.json is damaged: no scores" in page.text
    assert "metrics.jsonl is damaged: its curves are not drawn" in page.text
    assert "predictions/valid.parquet is damaged: no curves are drawn" in page.text
    assert sum("is damaged, so nothing" in text for text in page.findings) == 3


def test_undefined_scores_are_dashes_and_not_zeros(tmp_path):
    run = fabricate_run(tmp_path)
    predictions = fabricate_predictions(y_true=np.ones(1500, int))
    predictions.save(run.predictions_path("valid"))
    write_json(run.metrics_path, evaluate_predictions(predictions, num_resamples=20))
    (row,) = (page := render(run)).all("tr", data_metric="roc_auc")
    assert page.values_in(row) == []
    assert row["text"].count("–") >= 4
    assert "no such patch" in page.text


def test_patches_without_labels_give_a_page_without_curves(tmp_path):
    run = fabricate_run(tmp_path)
    run.metrics_path.unlink()
    fabricate_predictions(y_true=None).save(run.predictions_path("valid"))
    page = render(run)
    assert "has no labels to compare with" in page.text
    assert page.all("figure", data_figure="roc") == []


def test_hostile_names_are_shown_and_never_run(tmp_path):
    run = fabricate_run(
        tmp_path,
        experiment_name=HOSTILE,
        command=HOSTILE,
        findings=[{"id": HOSTILE, "severity": "error", "message": HOSTILE}],
        packages={HOSTILE: HOSTILE},
        model={"name": HOSTILE},
    )
    run.config_path.write_text(HOSTILE, encoding="utf-8")
    run.diff_path.write_text(HOSTILE, encoding="utf-8")
    twin = RunDir.create(tmp_path, "<b>$a$&")
    for path in run.path.iterdir():
        if path.is_file():
            (twin.path / path.name).write_bytes(path.read_bytes())
    for page in (render(run), render(run, twin)):
        (script,) = page.all("script")
        assert script["text"] == load_script() and page.html.count("<script") == 1
        assert page.all("b", text="x") == []
        assert HOSTILE in page.all("h1")[0]["text"]
        assert HOSTILE in page.all("title")[0]["text"]
        assert any(HOSTILE in pre["text"] for pre in page.all("pre"))


def test_the_page_loads_nothing_from_anywhere(page):
    html = page.html
    assert "http://" not in html and "https://" not in html
    for loaded in re.findall(r"src=\"([^\"]*)\"", html):
        assert loaded.startswith("data:image/jpeg;base64,"), loaded
    for loaded in re.findall(r"url\(([^)]*)\)", html):
        assert loaded.startswith(("#", "data:image/jpeg;base64,")), loaded
    assert page.all("link") == [] and page.all("iframe") == []
    assert "@import" not in html and "@font-face" not in html


def test_the_page_lets_its_own_script_run_and_no_other(page):
    (meta,) = page.all("meta", http_equiv="Content-Security-Policy")
    policy = dict(rule.strip().split(" ", 1) for rule in meta["content"].split(";"))
    (script,) = page.all("script")
    digest = base64.b64encode(hashlib.sha256(script["text"].encode()).digest()).decode()
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == f"'sha256-{digest}'"
    assert not [name for e in page.elements for name in e if name.startswith("on")]


def test_every_source_is_a_link_to_the_file_it_names(failing, failing_page):
    links = [e["href"] for e in failing_page.all("a") if not e["href"].startswith("#")]
    targets = {(failing.path / unquote(link)).resolve() for link in links}
    assert all(target.is_file() for target in targets), [t for t in targets if not t.is_file()]
    for name in ("metrics.json", "metrics-test.json", "run.json", "slices.json", "explain.json",
                 "errors.json", "uncertainty.json", "steps.jsonl", "config.yaml"):  # fmt: skip
        assert (failing.path / name).resolve() in targets, name
    named = [e for e in failing_page.elements if "source" in (e.get("class") or "").split()]
    assert len(named) > 40 and all(e["tag"] == "a" for e in named), "each source is a link"


@pytest.mark.parametrize("place", ["report.html", "pages/deep/report.html"])
def test_sources_of_several_runs_are_links_as_seen_from_the_page(tmp_path, place):
    """Also where the name of a folder must be quoted in a link."""
    runs = [fabricate_run(tmp_path / "a run, #1", seed, logs=False) for seed in (1, 2)]
    champion = {**fabricate_champion(runs[1]), "path": str(tmp_path / "champion.json")}
    write_json(tmp_path / "champion.json", champion)
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    path = render_report(runs, tmp_path / place, champions={runs[1].path: champion})
    links = re.findall(r'href="([^#"]+)"', path.read_text(encoding="utf-8"))
    targets = {(path.parent / unquote(link)).resolve() for link in links}
    assert all(target.is_file() for target in targets), [t for t in targets if not t.is_file()]
    for run in runs:
        for name in ("metrics.json", "run.json", "config.yaml", "predictions/valid.parquet"):
            assert (run.path / name).resolve() in targets, name
    assert (tmp_path / "champion.json").resolve() in targets


def test_the_same_files_give_the_same_bytes(run):
    assert render(run).html == render(run).html


def test_ids_are_unique_and_every_link_has_its_target(tmp_path):
    runs = [fabricate_run(tmp_path, seed) for seed in (1, 2)]
    page = render(*runs)
    ids = [element["id"] for element in page.elements if element["id"]]
    assert len(ids) == len(set(ids))
    for target in re.findall(r"(?:href=\"|url\()#([^\")]*)", page.html):
        assert target in ids, target


def test_headings_do_not_skip_a_level_and_pictures_have_words(page, tmp_path):
    runs = [fabricate_run(tmp_path, seed) for seed in (1, 2)]
    for shown in (page, render(*runs)):
        levels = [int(e["tag"][1]) for e in shown.elements if re.fullmatch("h[1-6]", e["tag"])]
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
        for svg in shown.all("svg"):
            assert svg.get("aria-hidden") == "true" or len(svg["aria-label"]) > 10
        assert all(image["alt"] for image in shown.all("img"))


def test_every_figure_names_the_file_it_was_read_from(page):
    figures = page.all("figure")
    assert len(figures) == 9
    for figure in figures:
        assert re.search(r"(predictions/valid\.parquet|(metrics|steps)\.json)", figure["text"])


def test_several_runs_show_each_and_the_mean_and_deviation_of_those_listed(tmp_path):
    runs = [fabricate_run(tmp_path, seed, 2.4 - seed / 10, logs=False) for seed in (1, 2, 3)]
    page = render(*runs)
    (table,) = page.all("table", **{"class": "overview sortable"})
    rows = {row["text"].split()[0]: row for row in page.all("tr")
            if any(e is table for e in row["within"])}  # fmt: skip
    aucs = [read_json(run.metrics_path)["metrics"]["roc_auc"]["value"] for run in runs]
    assert page.values_in(rows["mean"])[0] == pytest.approx(statistics.mean(aucs))
    assert page.values_in(rows["standard"])[0] == pytest.approx(statistics.stdev(aucs))
    assert [auc for auc in aucs if f"{auc:.3f}" in table["text"]] == aucs
    assert len(page.all("article")) == 3
    assert "over 3 runs" in page.text


def test_a_run_without_scores_is_listed_and_not_in_the_mean(tmp_path):
    runs = [fabricate_run(tmp_path, seed, logs=False) for seed in (1, 2, 3)]
    runs[1].metrics_path.unlink()
    page = render(*runs)
    assert "over the 2 scored runs" in page.text
    (table,) = page.all("table", **{"class": "overview sortable"})
    assert "absent" in table["text"] and "seed 2" in table["text"]


def test_runs_that_are_not_alike_are_not_averaged(tmp_path):
    runs = [
        fabricate_run(tmp_path, 1, logs=False),
        fabricate_run(tmp_path, 2, logs=False, experiment_name="pcam_mlp"),
    ]
    page = render(*runs)
    assert any(
        "No mean over these runs is shown" in text and "pcam_cnn or pcam_mlp" in text
        for text in page.findings
    )
    assert "standard deviation" not in page.text
    assert page.all("h1")[0]["text"] == "pcam_cnn, pcam_mlp"


def test_seeds_of_different_code_or_of_the_same_number_are_pointed_out(tmp_path):
    runs = [
        fabricate_run(tmp_path, 1, logs=False),
        fabricate_run(tmp_path, 1, logs=False, code={"commit": "0ther"}),
    ]
    findings = render(*runs).findings
    assert any("differ in more than the seed: commit is 4fbf" in text for text in findings)
    assert any("have the same seed: 1, 1" in text for text in findings)


def test_examples_are_the_most_certain_errors_with_row_and_probability(page):
    predictions = fabricate_predictions()
    wrong = (predictions.y_prob >= 0.5) & (predictions.y_true == 0)
    expected = np.sort(predictions.y_prob[wrong])[::-1][:12]
    false_alarms = page.all("div", **{"class": "gallery"})[0]
    shown = re.findall(r"(0\.\d{3})\s+row (\d+)", false_alarms["text"])
    assert [prob for prob, _ in shown] == [f"{prob:.3f}" for prob in expected]
    for prob, row in shown:
        assert f"{predictions.y_prob[int(row)]:.3f}" == prob
    assert f"The 12 most certain of {wrong.sum()}" in false_alarms["text"]


def test_the_picture_of_an_example_is_the_one_of_its_row():
    galleries = build_galleries(fabricate_predictions(), 0.5, fabricate_patches)
    examples = [example for gallery in galleries for example in gallery.examples]
    assert [e.index for e in examples] != sorted(e.index for e in examples)
    for example in examples:
        data = base64.b64decode(example.image.removeprefix("data:image/jpeg;base64,"))
        picture = np.asarray(Image.open(io.BytesIO(data)), dtype=float)
        (patch,) = fabricate_patches("valid", np.array([example.index]))
        assert np.abs(picture - patch).mean() < 4


def test_examples_that_cannot_be_read_are_said_to_be_missing(run):
    def gone(split, index):
        raise DataError("valid_x.h5 does not exist.")

    page = render(run, read_patches=gone)
    assert any("could not be read. valid_x.h5 does not exist." in text for text in page.findings)


def test_a_run_with_examples_takes_so_little_that_ten_stay_under_five_megabytes(page):
    assert len(page.html.encode()) < 500_000


@pytest.mark.slow
def test_a_report_on_32768_patches_of_two_splits_stays_under_five_megabytes(tmp_path, monkeypatch):
    for module in ("fabricated_run", "fabricated_opening"):
        monkeypatch.setattr(f"{module}.NUM_PATCHES", 32_768)
    run = fabricate_run(tmp_path, 1)
    fabricate_failures(run, 1)
    fabricate_test(run)
    start = time.process_time()
    path = render_report([run], run.report_path, fabricate_patches)
    assert time.process_time() - start < 10
    assert path.stat().st_size < 5_000_000
    assert "32,768 patches" in path.read_text(encoding="utf-8")


def test_no_run_and_no_place_to_write_are_refused(run, tmp_path):
    with pytest.raises(RunError, match="there is no run to report on"):
        render_report([], tmp_path / "report.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write the report"):
        render_report([run], tmp_path / "file" / "report.html")
    with pytest.raises(RunError, match=r"run\.json does not exist"):
        render_report([RunDir(tmp_path)], tmp_path / "report.html")


def test_the_record_on_the_page_is_the_record_of_the_run(run, page):
    text, record = page.text, RunRecord.load(run)
    for fact in (record.command, record.run_id, record.packages["torch"], "AMD EPYC 9654"):
        assert fact in text
    for split in record.data.values():
        assert split["x_sha256"] in text and split["y_sha256"] in text
    assert json.loads(run.record_path.read_text())["seed"] == 0


def test_the_audit_of_the_data_is_named_or_its_absence_said(tmp_path):
    run = fabricate_run(tmp_path)
    html = render_report([run], tmp_path / "r.html").read_text()
    assert "No audit of the data is recorded" in html
    record = RunRecord.load(run)
    record.audit = {
        "path": None, "sha256": "ab" * 32, "mode": "quick", "verdict": "1 error",
        "policy": "ignore", "ignored": ["train: 3 patches are black."],
    }  # fmt: skip
    record.save(run)
    html = render_report([run], tmp_path / "r.html").read_text()
    assert "(quick): 1 error" in html and "abababababab" in html and "None" not in html
    assert "Trained in spite of 1 error" in html and "train: 3 patches are black." in html


# ---- the test split ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sealed(tmp_path_factory) -> RunDir:
    """A champion whose test split was opened; tests only read it."""
    run = fabricate_run(tmp_path_factory.mktemp("sealed"), logs=False)
    fabricate_test(run)
    return run


@pytest.fixture(scope="module")
def sealed_page(sealed) -> Page:
    return render(sealed, read_patches=fabricate_patches)


def first_words(page: Page) -> str:
    return page.all("main")[0]["text"].strip()


def opening(number: int, champion: str | None) -> Opening:
    return Opening(
        id=str(number), time=f"2026-01-03T00:00:0{number}+00:00", who="ada@lab", command="",
        champion=champion, sealed=champion is not None, run_id="", outcome="scored",
    )  # fmt: skip


def test_the_first_line_says_how_often_the_test_set_was_opened_and_by_how_many(sealed_page):
    assert first_words(sealed_page).startswith(SAID)


def test_the_openings_are_counted_when_the_report_is_made(sealed, tmp_path):
    asked = []

    def count(run, x_sha256):
        asked.append((run.path, x_sha256))
        return Openings([opening(n, champion) for n, champion in enumerate("ab")], [])

    path = render_report([sealed], tmp_path / "r.html", read_openings=count)
    page = Page(path.read_text())
    said = "This test set was opened 2 times, by 2 champions."
    assert first_words(page).startswith(said)
    assert asked == [(sealed.path, read_json(sealed.scores_path("test"))["data"]["x_sha256"])]
    assert any("opened 2 times for others" in text for text in page.findings)


def test_a_ledger_that_cannot_be_believed_is_an_error_and_the_old_count_is_said(sealed, tmp_path):
    def refuse(run, x_sha256):
        raise RunError("ledger.jsonl, line 2: does not hold the hash of line 1.")

    path = render_report([sealed], tmp_path / "r.html", read_openings=refuse)
    page = Page(path.read_text())
    assert first_words(page).startswith(f"{SAID} (Counted when it was scored")
    assert any("ledger damaged" in text and "line 2" in text for text in page.findings)


def test_a_run_that_was_never_tested_says_nothing_of_openings(page):
    assert page.all("p", **{"class": "openings"}) == []
    assert "Test split" not in page.text and "UNSEALED" not in page.text


def test_the_test_part_comes_before_validation_with_the_scores_of_metrics_test_json(
    sealed, sealed_page
):
    titles = [e["text"] for e in sealed_page.all("h2")]
    assert titles.index("Test") < titles.index("Champion") < titles.index("Validation")
    scores = read_json(sealed.scores_path("test"))
    for name in ("roc_auc", "recall", "f2"):
        (card,) = sealed_page.all("div", data_test_metric=name)
        metric, promised = scores["metrics"][name], scores["champion"]["threshold"]["expected"]
        promised = promised.get(name, scores["champion"]["evidence"]["metrics"].get(name))
        assert sealed_page.values_in(card) == [
            *(metric[end] for end in ("value", "low", "high")),
            *(promised[end] for end in ("low", "high")),
        ]
        (row,) = sealed_page.all("tr", data_promise=name)
        raw = scores["raw_at_half"]["metrics"][name]["value"]
        assert raw in sealed_page.values_in(row)
    assert "1,500 patches; tumour is called from probability" in sealed_page.text


def test_test_scores_are_computed_again_from_raw_logits_as_the_champion_calibrates_them(
    sealed, tmp_path
):
    assert read_run_facts(sealed).test.recomputed_difference < 1e-9
    run = fabricate_run(tmp_path, logs=False)
    fabricate_test(run, calibration={"kind": "none", "temperature": 1.0, "knots": [], "note": ""})
    page = render(run)
    wrong = [text for text in page.findings if "metrics-test.json is not what" in text]
    assert wrong and "predictions/test.parquet gives" in wrong[0]


def test_a_test_score_outside_what_validation_promised_is_said_to_be(tmp_path):
    run = fabricate_run(tmp_path, logs=False)
    champion = fabricate_champion(run)
    champion["threshold"]["expected"]["recall"].update(value=0.99, low=0.985, high=0.995)
    champion["threshold"]["expected"]["precision"].update(value=0.5, low=0.45, high=0.55)
    fabricate_test(run)
    write_json(
        run.scores_path("test"), {**read_json(run.scores_path("test")), "champion": champion}
    )
    page = render(run)
    assert "below" in page.all("div", data_test_metric="recall")[0]["text"]
    assert "above" in page.all("div", data_test_metric="precision")[0]["text"]
    assert "as promised" in page.all("div", data_test_metric="roc_auc")[0]["text"]


def test_what_the_audit_says_of_test_patches_stands_beside_their_score(sealed_page):
    (finding,) = [text for text in sealed_page.findings if "duplicates across splits" in text]
    assert "test: 53 of 1,500 patches" in finding
    text = sealed_page.text
    assert text.index("test: 53 of 1,500") < text.index("“Raw at 0.5”")


def test_the_champion_is_shown_with_its_rule_runner_up_baselines_and_figures(sealed_page):
    text = sealed_page.text
    for fact in (
        "recall of at least 0.95", "temperature 0.", "20260102-030405-seed7", "6 of 6:",
        "mean colour", "random features", "the highest mean ROC-AUC over 3 seeds",
        "Where 2.0 % of patches are tumour",
    ):  # fmt: skip
        assert fact in text, fact
    for name in ("threshold_sweep", "calibration", "predictive_values"):
        assert len(sealed_page.all("figure", data_figure=name)) == 1


def test_a_champion_is_shown_before_its_test_split_is_opened(run, tmp_path):
    champions = {run.path: fabricate_champion(run)}
    path = render_report([run], tmp_path / "r.html", champions=champions)
    page = Page(path.read_text())
    titles = [e["text"] for e in page.all("h2")]
    assert "Champion" in titles and "Test" not in titles


def test_an_unsealed_score_is_stamped_where_nobody_can_miss_it(tmp_path):
    run = fabricate_run(tmp_path, logs=False)
    fabricate_test(run, sealed=False)
    page = render(run)
    stamps = page.all("p", **{"class": "stamp"})
    assert len(stamps) == 2 and all("UNSEALED:" in each["text"] for each in stamps)
    assert page.html.index('class="stamp"') < page.html.index("<h1")
    assert page.all("title")[0]["text"].startswith("UNSEALED: ")
    assert first_words(page).startswith(SAID)


def test_of_several_runs_the_stamp_stands_at_the_top_and_at_the_run_it_is_about(tmp_path):
    runs = [fabricate_run(tmp_path, seed, logs=False) for seed in (1, 2)]
    fabricate_test(runs[0])
    fabricate_test(runs[1], sealed=False)
    page = render(*runs)
    assert first_words(page).startswith(SAID)
    assert len(page.all("p", **{"class": "openings"})) == 1  # one test set, one line
    articles = page.all("article")
    stamped = [e["within"] for e in page.all("p", **{"class": "stamp"})]
    assert [any(a in within for within in stamped) for a in articles] == [False, True]
    ids = [element["id"] for element in page.elements if element["id"]]
    assert len(ids) == len(set(ids))


def test_a_damaged_test_score_is_an_error_and_not_shown(tmp_path):
    run = fabricate_run(tmp_path, logs=False)
    fabricate_test(run)
    run.scores_path("test").write_text("{}")
    page = render(run)
    assert any("metrics-test.json is damaged" in text for text in page.findings)
    assert "what the test split gave is not known" in page.text
    assert "How often this test set was opened is not known" in first_words(page)


def test_six_baselines_stand_in_the_table_with_their_paired_difference(sealed, sealed_page):
    tables = sealed_page.all("table", **{"class": "scores"})
    assert len(tables) == 2  # of test and of valid
    scores = read_json(sealed.scores_path("test"))
    head = tables[0]["text"]
    for label in ("always positive", "prior", "mean colour", "colour histogram", "random features"):
        assert label in head
    difference = scores["baselines"]["mean_colour"]["auc_difference"]
    assert f"{difference['value']:+.3f}" in head and f"{difference['low']:+.3f}" in head


def test_the_same_files_give_the_same_bytes_also_of_a_champion(sealed):
    assert render(sealed).html == render(sealed).html


def test_baselines_on_the_page_are_those_of_its_own_split(tmp_path):
    run = fabricate_run(tmp_path, logs=False)
    predictions = Predictions.load(run.predictions_path("valid"))
    table = fabricate_baselines(predictions)
    write_json(run.metrics_path, evaluate_predictions(predictions, 0.5, 100, baselines=table))
    page = render(run)
    (row,) = page.all("tr", data_metric="roc_auc")
    baselines = read_json(run.metrics_path)["baselines"]
    assert page.values_in(row)[3:] == [each["roc_auc"] for each in baselines.values()]
