import copy
import dataclasses
import re
from urllib.parse import unquote

import pytest
from fabricated_failures import fabricate_failures
from fabricated_opening import SAID, fabricate_baselines, fabricate_champion, fabricate_test
from fabricated_run import NOT_LEARNING, fabricate_predictions, fabricate_run
from markdown_it import MarkdownIt

from ml_core.evaluation.plots import METRIC_LABELS
from ml_core.evaluation.predictions import evaluate_predictions
from ml_core.evaluation.report.markdown import cell_code, code, link, markdown, p_value
from ml_core.evaluation.report.model_card import render_model_card
from ml_core.evaluation.report.run_facts import read_run_facts
from ml_core.findings import Finding
from ml_core.runs import RunDir, RunRecord, read_json, write_json

HOSTILE = "<script>alert('x')</script> | [a](http://b) `c` *d* _e_ $f$ \\| ~g~"
FAILURE_FILES = ("slices.json", "errors.json", "uncertainty.json", "explain.json")


def html(card: str) -> str:
    """What a reader sees of the card, as a browser would get it."""
    return MarkdownIt("commonmark").enable("table").render(card)


def card_of(run: RunDir, champion=None, **arguments) -> str:
    return render_model_card(read_run_facts(run, champion), **arguments)


def headed(card: str) -> list[tuple[str, str]]:
    """Each heading with the text under it."""
    pieces = re.split(r"^#+ (.*)$", card, flags=re.MULTILINE)
    return list(zip(pieces[1::2], pieces[2::2], strict=True))


def sections(card: str) -> dict[str, str]:
    """The text under each heading of a card about one split, by heading."""
    return dict(headed(card))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunDir:
    """A run with everything measured, its test split opened; tests only read it."""
    run = fabricate_run(tmp_path_factory.mktemp("runs"))
    fabricate_failures(run)
    fabricate_test(run)
    return run


@pytest.fixture(scope="module")
def card(run) -> str:
    return card_of(run)


@pytest.fixture
def fresh(tmp_path) -> RunDir:
    """A run that was trained and scored, and nothing else; tests may change it."""
    return fabricate_run(tmp_path)


def test_every_score_of_metrics_json_stands_in_the_card_beside_every_baseline(run, card):
    for name, heading in (("metrics.json", "Validation"), ("metrics-test.json", "Test")):
        scores = read_json(run.path / name)
        table = sections(card)[heading].replace("−", "-")
        for metric, score in scores["metrics"].items():
            shown = f"{score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f})"
            label = METRIC_LABELS[metric]
            (row,) = [line for line in table.splitlines() if line.startswith(f"| {label} |")]
            assert shown in row
            for baseline in scores["baselines"].values():
                value = baseline.get(metric)
                assert ("–" if value is None else f"{value:.3f}") in row
        assert f"missed tumours {scores['confusion']['fn']}" in table
        assert f"{scores['n']:,} patches" in table


def test_every_section_with_a_number_links_to_the_file_that_the_number_is_from(card):
    for heading, text in headed(card):
        if re.search(r"\d", re.sub(r"`[^`]*`|\[[^\]]*\]\([^)]*\)", "", text)):
            assert "](" in text or "Model Cards for Model Reporting, 2019" in text, heading


def test_every_link_leads_to_a_file_of_the_run(run, card):
    links = re.findall(r"\]\(([^)]*)\)", card)
    assert {"run.json", "metrics.json", "metrics-test.json", *FAILURE_FILES} <= set(links)
    for target in links:
        assert (run.path / unquote(target)).is_file(), target


CHANGES = [
    ("metrics.json", ("metrics", "recall", "value"), 0.1234567, "0.123"),
    ("metrics-test.json", ("champion", "threshold", "value"), 0.4321, "0.4321"),
    ("slices.json", ("slices", 0, "differences", "error", "value"), 0.7654, "+76.5 ("),
    ("slices.json", ("num_tested",), 777, "777 slices tested"),
    ("slices.json", ("discovery", "slices", 0, "confirmed", "error"), 0.6543, "65.4 %"),
    ("slices.json", ("shortcuts", "model_auc", "value"), 0.8642, "0.864"),
    ("errors.json", ("false_negatives",), 6543, "6,543 missed tumours"),
    ("uncertainty.json", ("abstention", "coverage"), 0.4567, "45.7 %"),
    ("uncertainty.json", ("seeds", "kappa"), 0.1357, "0.136"),
    ("explain.json", ("visibility", "views", "ring_only", "metrics", "roc_auc", "value"), 0.5791,
     "0.579"),
    ("explain.json", ("saliency", "methods", "occlusion", "random_weights", "value"), 0.1928,
     "0.193"),
    ("explain.json", ("robustness", "worst", "label"), "quality 3", "quality 3"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "keys", "value", "shown"), CHANGES)
def test_a_figure_that_changes_in_a_file_changes_in_the_card(run, card, name, keys, value, shown):
    path = run.path / name
    before = path.read_bytes()
    content = read_json(path)
    part = content
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    try:
        write_json(path, content)
        changed = card_of(run)
    finally:
        path.write_bytes(before)
    assert shown in changed
    assert changed.count(shown) > card.count(shown)
    assert card_of(run) == card


def test_the_whole_patch_is_not_compared_with_itself(card):
    assert re.search(r"^\| whole \| [\d.]+ \([^|]*\| – \|", card, re.MULTILINE)
    assert re.search(r"^\| ring only \| [^|]*\| −0\.190 \(", card, re.MULTILINE)


def test_an_unsealed_test_split_and_a_method_that_cannot_be_used_have_their_place(fresh):
    fabricate_failures(fresh)
    fabricate_test(fresh, sealed=False)
    path = fresh.path / "explain.json"
    content = read_json(path)
    content["saliency"]["methods"]["grad_cam"] = {"why_not": "no convolution"}
    write_json(path, content)
    pieces = headed(card_of(fresh))
    assert "Test" in dict(pieces)
    assert any("| grad cam | no convolution | – | – |" in text for _, text in pieces)


def test_what_was_not_measured_is_said_with_the_command_and_without_a_number(fresh):
    card = card_of(fresh)
    for name in FAILURE_FILES:
        stage = "explain" if name == "explain.json" else "slice"
        assert f"{name} is absent: not measured (`ml-core {stage} {fresh.path}`)." in card
    assert sections(card)["Calibration"].strip() == "Not measured (`ml-core select`)."
    assert "Test" not in sections(card)
    assert "champion" in sections(card)["Intended use"]
    fresh.metrics_path.unlink()
    card = card_of(fresh)
    said = sections(card)["Validation"].strip()
    assert said == f"metrics.json is absent: not measured (`ml-core evaluate {fresh.path}`)."


def test_a_part_that_was_left_out_of_a_file_is_not_measured(fresh):
    fabricate_failures(fresh)
    path = fresh.path / "explain.json"
    write_json(path, {**read_json(path), "saliency": None})
    card = card_of(fresh)
    assert (
        sections(card)["Attribution"].strip() == f"Not measured (`ml-core explain {fresh.path}`)."
    )
    assert "ring only" in sections(card)["Centre and surroundings"]


def test_on_test_only_slice_of_the_champion_is_recommended(fresh):
    fabricate_test(fresh)
    text = card_of(fresh)
    on_test = text[text.index("## Where it fails, on test") : text.index("## Caveats")]
    assert on_test.count("(`ml-core slice champion.json --split test`)") == 3
    assert "explain" not in on_test
    assert not {"Attribution", "Robustness"} & dict(headed(on_test)).keys()
    champion = {**fabricate_champion(fresh), "path": "runs/champion.json"}
    assert "(`ml-core slice runs/champion.json --split test`)" in card_of(fresh, champion)
    other = {**champion, "sha256": "f" * 64}  # for which the test split was not opened
    assert "(`ml-core slice champion.json --split test`)" in card_of(fresh, other)


def test_a_found_slice_has_its_rate_among_the_patches_that_it_counts(fresh):
    fabricate_failures(fresh)
    path = fresh.path / "slices.json"
    content = read_json(path)
    found = content["discovery"]["slices"][0]
    found |= {"n": 187, "target": "missed tumours"}
    difference = {"value": 0.182, "low": 0.091, "high": 0.27}
    found["confirmed"] |= {"n": 43, "error": 0.7209, "rest_error": 0.015, "difference": difference}
    write_json(path, content)
    text = sections(card_of(fresh))["Slices that a search found"]
    (row,) = [line for line in text.splitlines() if line.startswith("| dark and blurred |")]
    cells = "187 | missed tumours | 72.1 % of 43 | 1.5 % | +18.2 (+9.1 to +27.0) |"
    assert cells in row


def test_robustness_shows_the_strength_that_costs_most_and_not_the_last(fresh):
    fabricate_failures(fresh)
    path = fresh.path / "explain.json"
    content = read_json(path)
    points = content["robustness"]["curves"][0]["points"]
    for place, point in enumerate(points):
        point["label"] = f"step {place}"
        point["difference"]["roc_auc"]["value"] = -0.4 if place == 1 else -0.1
    write_json(path, content)
    text = sections(card_of(fresh))["Robustness"]
    name = content["robustness"]["curves"][0]["name"]
    assert "worst strength" in text
    assert re.search(rf"^\| {name} \| \w+ \| step 1 \| .* \| −0\.400 \(", text, re.MULTILINE)


def test_of_a_file_of_other_weights_the_card_has_no_number(fresh):
    fabricate_failures(fresh)
    path = fresh.path / "errors.json"
    write_json(path, {**read_json(path), "weights_sha256": "f" * 64, "num_errors": 987654})
    card = card_of(fresh)
    text = sections(card)["Errors"]
    assert "errors.json is not of what metrics.json is of: not shown" in text
    assert "987,654" not in card


def test_the_advice_to_open_test_is_not_given_where_it_was_opened(fresh):
    champion = fabricate_champion(fresh)
    advice = "Believe the test split: ml-core evaluate champion.json --split test, once."
    champion["findings"] = [
        {"id": "best-of-many", "severity": "info", "message": "best of 6.", "action": advice}
    ]
    assert advice in card_of(fresh, champion)
    fabricate_test(fresh, champion=champion)
    card = card_of(fresh)
    assert advice not in card and "best of 6. See Test." in card


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 0}, "of format 0, and this version reads 1: not shown"),
        ({"num_errors": None, "doubtful_labels": None}, "is not as this version writes it"),
    ],
)
def test_a_file_of_another_format_or_without_its_keys_is_said_to_be_so(fresh, change, said):
    fabricate_failures(fresh)
    path = fresh.path / "errors.json"
    write_json(path, {**read_json(path), **change})
    text = sections(card_of(fresh))["Errors"]
    assert said in text
    assert f"ml-core slice {fresh.path}" in text


def test_a_damaged_file_is_said_to_be_damaged_and_the_rest_of_the_card_stands(fresh):
    fabricate_failures(fresh)
    (fresh.path / "slices.json").write_text("{")
    card = card_of(fresh)
    assert "slices.json is damaged: not shown" in card
    assert "kappa" in card


def test_scores_of_other_weights_are_a_caveat(fresh):
    fabricate_failures(fresh, seed=1)
    assert (
        "slices.json is not of what metrics.json is of"
        in sections(card_of(fresh))["Caveats and recommendations"]
    )


def test_findings_are_listed_worst_first_under_the_file_that_they_are_from(tmp_path):
    run = fabricate_run(tmp_path, findings=[Finding("a-note", "info", "note."), NOT_LEARNING])
    text = sections(card_of(run))["Caveats and recommendations"]
    assert text.index("error, not learning") < text.index("info, a note")
    assert text.index("From [run.json](run.json):") < text.index("error, not learning")
    assert text.count("not learning") == 1


def test_a_run_without_a_finding_says_so(tmp_path):
    predictions = fabricate_predictions()
    run = fabricate_run(tmp_path)
    baselines = dataclasses.replace(fabricate_baselines(predictions), facts={})
    scores = evaluate_predictions(predictions, 0.3, baselines=baselines)
    write_json(run.metrics_path, scores)
    text = sections(card_of(run))["Caveats and recommendations"]
    assert text.strip() == "None of these files holds a finding."


def test_the_champion_brings_its_threshold_its_rule_and_its_calibration(fresh):
    champion = fabricate_champion(fresh)
    card = card_of(fresh, {**champion, "path": str(fresh.path / "champion.json")})
    use = sections(card)["Intended use"]
    assert f"{champion['threshold']['value']:.6g}" in use
    assert "recall of at least 0.95" in use
    assert "[champion.json](champion.json)" in use
    text = sections(card)["Operating point and calibration"]
    assert f"{champion['calibration']['before']['ece']:.4f}" in text
    assert f"{champion['calibration']['after']['ece']:.4f}" in text
    expected = champion["threshold"]["expected"]["specificity"]
    assert f"{expected['value']:.3f} ({expected['low']:.3f} to {expected['high']:.3f})" in text


def test_the_openings_are_those_counted_now_if_given_and_else_those_that_were_known(run):
    assert SAID in card_of(run)
    assert "opened 9 times" in card_of(run, openings="This test set was opened 9 times.")


def test_own_slices_are_shown_whatever_they_are_and_many_worse_ones_are_cut(fresh):
    fabricate_failures(fresh)
    path = fresh.path / "slices.json"
    content = read_json(path)
    worse = next(each for each in content["slices"] if each["standing"] == "worse")
    copies = [{**copy.deepcopy(worse), "name": f"copy {i}", "kind": "standard"} for i in range(13)]
    own = [each for each in content["slices"] if each["kind"] == "own"]
    assert len(own) == 2
    write_json(path, {**content, "slices": [*copies, *own]})
    text = sections(card_of(fresh))["Slices"]
    assert [f"copy {i} " in text for i in range(13)] == [True] * 10 + [False] * 3
    assert "3 more that are worse are in the file" in text
    for each in own:
        assert each["name"] in text


def test_no_content_of_a_file_becomes_markup(fresh):
    fabricate_failures(fresh)
    record = RunRecord.load(fresh)
    record.command = HOSTILE
    record.packages = {HOSTILE: HOSTILE}
    record.findings = [Finding("x", "warning", HOSTILE)]
    record.save(fresh)
    path = fresh.path / "slices.json"
    content = read_json(path)
    for each in content["slices"]:
        each["name"] = each["where"] = HOSTILE
    write_json(path, content)
    rendered = html(card_of(fresh))
    shown = HOSTILE.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert rendered.count(f"<td>{shown}</td>") >= 1
    assert f"<code>{shown}</code>" in rendered
    for tag in ("<script", "<em>", 'http://b"', "<s>"):
        assert tag not in rendered
    assert len(set(re.findall(r"<tr>.*?</tr>", rendered, re.DOTALL))) > 20
    for table in re.findall(r"<table>.*?</table>", rendered, re.DOTALL):
        cells = {row.count("<td") for row in re.findall(r"<tr>.*?</tr>", table, re.DOTALL)} - {0}
        assert len(cells) == 1, table


def test_text_is_written_so_that_markdown_shows_it_as_it_is():
    for text in (HOSTILE, "pcam_cnn", "_x_", "a\nb", "<b>", "1 < 2 & 3", "\\", "# a", "``"):
        shown = re.sub(r"<.?p>|\n", "", html(f"x {markdown(text)} y"))
        plain = " ".join(text.split())
        escaped = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        assert shown == f"x {escaped} y"
    assert markdown("pcam_cnn") == "pcam_cnn"
    assert "<code>a `b` c</code>" in html(code("a `b` c"))
    assert "<td><code>a | b</code></td>" in html(f"| x |\n|---|\n| {cell_code('a | b')} |")
    assert link("a b.json", "seed%201/") == "[a b.json](seed%201/a%20b.json)"
    assert link("champion.json", None) == "`champion.json`"
    assert [p_value(each) for each in (0.0123, 1e-9, None)] == ["0.0123", r"\< 0.0001", "–"]
