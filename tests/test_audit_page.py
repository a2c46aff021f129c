"""The page of an audit, read as a browser would: its verdict, its evidence, its escapes."""

import copy
import re
import time
import warnings
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from fabricated_audit import SPLITS, fabricate_audit, finding

from ml_core.audit.page import render_audit
from ml_core.audit.page.evidence import MAX_PATCHES_SHOWN, build_cards
from ml_core.audit.page.examples import class_strips, is_flagged, outlier_strips
from ml_core.audit.page.facts import MAX_ROWS, cell, fact_tables
from ml_core.audit.page.measured import find_aucs, find_effects
from ml_core.audit.page.outliers import find_outliers, robust_z
from ml_core.audit.page.splits import size, split_rows
from ml_core.audit.page.thumbnails import load_thumbnails
from ml_core.audit.page.verdict import build_verdict
from ml_core.errors import DataError

HOSTILE = "<script>alert('x')</script>&\"$x_{1}$"


class Page(HTMLParser):
    """Elements with their attributes and all of their text."""

    VOID = frozenset({"meta", "img"})

    def __init__(self, html):
        super().__init__()
        self.html, self.elements, self._open = html, [], []
        self.feed(html)
        assert not self._open, f"not closed: {[e['tag'] for e in self._open]}"

    def handle_starttag(self, tag, attrs):
        element = {"tag": tag, "text": "", "within": list(self._open), **dict(attrs)}
        self.elements.append(element)
        if tag not in self.VOID:
            self._open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.elements.append({"tag": tag, "text": "", "within": list(self._open), **dict(attrs)})

    def handle_endtag(self, tag):
        assert self._open and self._open[-1]["tag"] == tag, f"</{tag}> closes {self._open[-1]}"
        self._open.pop()

    def handle_data(self, data):
        for element in self._open:
            element["text"] += data

    def all(self, tag, within=None, **attributes):
        wanted = {key.replace("_", "-"): value for key, value in attributes.items()}
        return [
            e for e in self.elements
            if e["tag"] == tag
            and all(e.get(key) == value for key, value in wanted.items())
            and (within is None or any(each is within for each in e["within"]))
        ]  # fmt: skip

    def card(self, name):
        return self.all("article", data_finding=name)[0]

    def text_of(self, element):
        return " ".join(element["text"].split())

    @property
    def headline(self):
        return self.text_of(self.all("h1")[0])


@pytest.fixture(scope="module")
def made():
    return fabricate_audit()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("audit")


@pytest.fixture(scope="module")
def page(made, folder):
    return render(made, folder)


@pytest.fixture
def no_figures(monkeypatch):
    """Leave the figures out, which take most of the time, where a test is about the rest."""
    monkeypatch.setattr("ml_core.audit.page.render.build_figures", lambda *_: [])


@pytest.fixture
def no_files(monkeypatch):
    """Draw the figures into the page only."""
    monkeypatch.setattr("ml_core.audit.page.render.save_figure", lambda *_: None)


def render(made, folder, **changes):
    audit = {**made.audit, **changes}
    out = render_audit(audit, made.patches, made.read, folder / "audit.html", folder / "figures")
    return Page(out.read_text(encoding="utf-8"))


def test_the_verdict_is_the_first_thing_that_is_read(page):
    assert page.headline == "✕ 6 errors, 6 warnings: do not train on this as it is"
    first = page.html.index("<h1")
    parts = [page.html.index(f'id="{part}"') for part in ("splits", "findings", "look", "limits",
                                                          "provenance")]  # fmt: skip
    assert [first, *parts] == sorted([first, *parts])


@pytest.mark.parametrize(
    ("severities", "said"),
    [
        ([], "✓ Nothing is wrong that we can see"),
        (["info"], "✓ Nothing is wrong that we can see"),
        (["warning"], "! No errors, 1 warning: read it before you train"),
        (["warning", "warning"], "! No errors, 2 warnings: read them before you train"),
        (["error", "info"], "✕ 1 error: do not train on this as it is"),
    ],
)
def test_the_worst_finding_decides_the_verdict(no_figures, made, tmp_path, severities, said):
    findings = [finding("x", severity, "It is so.") for severity in severities]
    assert render(made, tmp_path, findings=findings).headline == said


def test_a_quick_audit_says_loudly_that_it_is_a_sample(no_figures, made, tmp_path):
    splits = {
        split: {**record, "num_rows": 40 * record["num_rows"]}
        for split, record in made.audit["splits"].items()
    }
    page = render(made, tmp_path, findings=[], mode="quick", splits=splits)
    assert page.headline.endswith("in this sample")
    loud = page.text_of(page.all("p", **{"class": "sample"})[0])
    assert loud.startswith("This is a sample. 240 of 9,600 patches were looked at.")
    commands = [page.text_of(each) for each in page.all("pre")]
    assert commands[0] == "ml-core audit '/data/pcam course'", "next: look at every patch"


def test_a_full_audit_does_not_speak_of_a_sample(page):
    assert not page.all("p", **{"class": "sample"})


def test_what_to_do_next_tells_rows_from_files(page, made):
    steps = page.all("ol", **{"class": "steps"})[0]
    items = [page.text_of(item) for item in page.all("li", within=steps)]
    num = sum(record["num_excluded"] for record in made.audit["splits"].values())
    assert items[0].startswith(f"Train without the {num} patches of exclusions.csv")
    assert "settles black, white, non finite, out of range and duplicates" in items[0]
    assert items[0].endswith("ml-core train CONFIG.yaml --set data.on_findings=exclude")
    assert "no exclusion settles dtype differs" in items[1]
    assert items[2].endswith("data.on_findings=ignore")


def test_every_finding_has_its_mark_sentence_and_extent(page, made):
    cards = page.all("article")
    assert [card["data-finding"] for card in cards] == [f["id"] for f in made.audit["findings"]]
    for card, each in zip(cards, made.audit["findings"], strict=True):
        text = page.text_of(card)
        assert each["severity"] in text and each["message"] in text
        assert each["action"].replace("`", "") in text
        if each["count"]:
            assert f"{each['count']:,}" in text
        mark = page.all("span", within=card)[0]
        assert mark["text"] == {"error": "✕", "warning": "!", "info": "i"}[each["severity"]]


def test_duplicates_stand_side_by_side_with_their_rows(page):
    card = page.card("duplicates-across-splits")
    groups = [e for e in page.all("div", within=card) if e.get("class") == "group"]
    assert len(groups) == 4
    captions = [page.text_of(e) for e in page.all("figcaption", within=groups[2])]
    assert [caption.rsplit(" ", 1)[0] for caption in captions] == ["train 2", "valid 3"]
    assert len(page.all("img", within=groups[2])) == 2


def test_the_label_is_said_beside_a_patch(page, made):
    label = made.patches.query("split == 'train'")["label"].to_numpy()
    for row in made.audit["findings"][0]["indices"]:
        alt = f"train row {row}, {'tumour' if label[row] else 'normal'}, black"
        assert page.all("img", within=page.card("black"), alt=alt)


def test_a_finding_with_rows_but_no_examples_shows_some_of_them(no_figures, made, tmp_path):
    each = finding("x", "warning", "So.", split="test", indices=list(range(0, 60, 2)), count=30)
    page = render(made, tmp_path, findings=[each])
    shown = [e["alt"].split(",")[0] for e in page.all("img", within=page.card("x"))]
    assert shown == [f"test row {row}" for row in (0, 6, 14, 22, 30, 36, 44, 52)]


def test_of_many_rows_the_first_200_are_listed_and_the_file_with_all_is_named(
    no_figures, made, tmp_path
):
    rows = list(range(5, 100_005))
    findings = [
        finding("a", "error", "A.", split="train", indices=rows, count=len(rows), exclude=True,
                examples=[[["train", 5]]]),
        finding("b", "warning", "B.", split="train", indices=rows[:3], count=3),
    ]  # fmt: skip
    page = render(made, tmp_path, findings=findings)
    listed = page.all("p", within=page.card("a"), **{"class": "rows"})[0]["text"].split()
    assert listed == [str(row) for row in rows[:200]]
    assert "First 200 of 100,000 rows of train" in page.text_of(page.card("a"))
    assert "exclusions.csv" in page.card("a")["text"]
    assert "3 rows of train" in page.text_of(page.card("b"))
    assert "patches.parquet" in page.card("b")["text"]


def test_a_patch_that_cannot_be_read_hides_only_itself(no_figures, made, tmp_path):
    row = made.audit["findings"][0]["indices"][1]

    def read(split, rows):
        if split == "train" and row in rows:
            raise DataError(f"{split}: patch {row} <is> damaged.")
        return made.read(split, rows)

    out = render_audit(made.audit, made.patches, read, tmp_path / "a.html", tmp_path / "figures")
    page = Page(out.read_text(encoding="utf-8"))
    card = page.card("black")
    assert page.text_of(card).count("cannot be read") == 1
    assert len(page.all("img", within=card)) == len(made.audit["findings"][0]["indices"]) - 1
    assert (
        f"patch {row} <is> damaged." in page.all("section", aria_labelledby="findings")[0]["text"]
    )


def test_files_that_are_gone_leave_a_page_without_pictures(no_figures, made, tmp_path):
    def read(split, rows):
        raise DataError(f"{split} does not exist.")

    out = render_audit(made.audit, made.patches, read, tmp_path / "a.html", tmp_path / "figures")
    page = Page(out.read_text(encoding="utf-8"))
    assert not page.all("img") and len(page.all("article")) == len(made.audit["findings"])
    assert "test does not exist. train does not exist. valid does not exist." in page.html


def test_the_page_needs_nothing_but_itself(page):
    assert not re.search(r"https?://(?!www\.w3\.org)|<script|<link|@import|url\(http", page.html)
    assert all(e["src"].startswith("data:image/jpeg;base64,") for e in page.all("img"))
    assert "default-src 'none'" in page.html


def test_everything_that_is_seen_is_also_said(page):
    assert all(e["alt"] for e in page.all("img"))
    figures = page.all("figure", **{"class": "figure"})
    for figure in figures:
        svg = page.all("svg", within=figure)[0]
        assert svg["role"] == "img" and len(svg["aria-label"]) > 40


def test_links_lead_somewhere_and_ids_are_unique(page):
    ids = [e["id"] for e in page.elements if e.get("id")]
    assert len(ids) == len(set(ids))
    targets = [e["href"][1:] for e in page.all("a")]
    assert len(targets) > 15 and set(targets) <= set(ids)


def test_every_figure_of_the_page_is_a_file_too(page, folder):
    names = {e["data-figure"] for e in page.all("figure") if "data-figure" in e}
    assert names == {path.stem for path in (folder / "figures").glob("*.png")}
    assert names == {
        "label_counts", "positives_per_batch", "labels_along_file", "intensities", "haematoxylin",
        "eosin", "quality", "drift", "shortcuts",
    }  # fmt: skip


def test_the_same_audit_gives_the_same_bytes(made, page, folder, tmp_path):
    render(made, tmp_path)
    files = ["audit.html", *(f"figures/{p.name}" for p in (folder / "figures").iterdir())]
    for name in files:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_text_from_outside_stays_text(no_files, made, tmp_path):
    audit = copy.deepcopy(made.audit)
    audit["data_path"] = HOSTILE
    audit["not_checked"] = [{"check": HOSTILE, "why": HOSTILE}]
    audit["splits"]["train"] |= {
        "x_path": HOSTILE, "layout": HOSTILE, "x_sha256": HOSTILE, "official": HOSTILE
    }  # fmt: skip
    audit["findings"].append(
        finding(HOSTILE, "error", HOSTILE, f"`{HOSTILE}`", split="train", indices=[1],
                facts={HOSTILE: HOSTILE, "nested": {HOSTILE: {HOSTILE: HOSTILE}},
                       "effects": [{"statistic": HOSTILE, "first": "<b>", "second": "&",
                                    "delta": 0.9}],
                       "table": [{"property": HOSTILE, "auc": 0.9, "split": "<i>"}]})
    )  # fmt: skip
    out = render_audit(audit, made.patches, made.read, tmp_path / "a.html", tmp_path / "figures")
    page = Page(out.read_text(encoding="utf-8"))
    assert not page.all("script")
    assert HOSTILE in page.text_of(page.all("code")[0])
    card = page.card(HOSTILE)
    assert page.text_of(card).count(HOSTILE) >= 4
    assert page.all("code", within=card)[0]["text"] == HOSTILE, "what stood between backticks"


def with_patches(made, change):
    patches = made.patches.copy()
    change(patches)
    return patches


def nan_columns(patches):
    patches[patches.select_dtypes("float").columns] = np.nan


EDGES = {
    "no labels": lambda patches: patches.__setitem__("label", np.int8(-1)),
    "one class": lambda patches: patches.__setitem__("label", np.int8(1)),
    "all NaN": nan_columns,
    "all alike": lambda p: p.__setitem__(list(p.select_dtypes("float").columns), np.float32(7)),
    "few columns": lambda p: [p.pop(name) for name in ("eosin", "focus", "mean_g", "flags")],
}


@pytest.mark.parametrize("edge", EDGES)
def test_odd_tables_give_a_page_without_a_word_on_stderr(no_files, made, tmp_path, edge):
    patches = with_patches(made, EDGES[edge])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        render_audit(made.audit, patches, made.read, tmp_path / "a.html", tmp_path / "figures")
    Page((tmp_path / "a.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("splits", "num"), [(SPLITS, 0), (SPLITS, 1), (("test",), 2), (("valid", "test"), 20), ((), 0)]
)
def test_tiny_data_sets_give_a_page(no_files, made, tmp_path, splits, num):
    patches = made.patches[made.patches["split"].isin(splits)].groupby("split", observed=True)
    patches = patches.head(num).reset_index(drop=True)
    audit = {**made.audit, "splits": {s: made.audit["splits"][s] for s in splits}, "findings": []}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        render_audit(audit, patches, made.read, tmp_path / "a.html", tmp_path / "figures")
    page = Page((tmp_path / "a.html").read_text(encoding="utf-8"))
    assert bool(page.all("svg")) == (len(patches) > 0)


def test_an_audit_of_little_more_than_a_format_gives_a_page(made, tmp_path):
    empty = made.patches.head(0)
    render_audit({"format": 1}, empty, made.read, tmp_path / "a.html", tmp_path / "figures")
    page = Page((tmp_path / "a.html").read_text(encoding="utf-8"))
    assert "No split was found." in page.html and "nothing to draw" in page.html


def test_a_hundred_findings_share_the_room_for_pictures(no_figures, made, tmp_path):
    examples = [[["train", row], ["train", row + 1]] for row in range(12)]
    findings = [finding(f"f{i}", "warning", "W.", examples=examples) for i in range(100)]
    page = render(made, tmp_path, findings=findings)
    cards = page.all("article")
    assert len(cards) == 100
    shown = [len(page.all("img", within=card)) for card in cards]
    assert min(shown) >= 2 and sum(shown) <= MAX_PATCHES_SHOWN
    assert (tmp_path / "audit.html").stat().st_size < 6e6


def test_four_hundred_patches_that_hardly_compress_stay_below_6_mb(no_figures, made, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    examples = [[["train", row], ["train", row + 1]] for row in range(12)]
    findings = [finding(f"f{i}", "error", "E.", examples=examples) for i in range(20)]
    audit = {**made.audit, "findings": findings}
    render_audit(audit, made.patches, lambda _, rows: np.stack([noise] * len(rows)),
                 tmp_path / "a.html", tmp_path / "figures")  # fmt: skip
    assert (tmp_path / "a.html").stat().st_size < 6e6


def test_the_full_pcam_is_rendered_in_seconds(made, tmp_path):
    parts = []
    for split, num in (("train", 262_144), ("valid", 32_768), ("test", 32_768)):
        part = made.patches[made.patches["split"] == split]
        part = part.iloc[np.arange(num) % len(part)].assign(index=np.arange(num))
        parts.append(part)
    patches = pd.concat(parts, ignore_index=True)
    started = time.process_time()
    render_audit(made.audit, patches, lambda split, rows: made.levels[split][rows % 60],
                 tmp_path / "a.html", tmp_path / "figures")  # fmt: skip
    assert time.process_time() - started < 15


def test_a_folder_that_cannot_be_written_is_named(no_figures, made, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write the page .*audit\.html .*another folder"):
        render(made, tmp_path / "file")


def test_splits_that_are_stored_differently_are_marked(made):
    rows = {row.name: row for row in split_rows(made.audit["splits"])}
    assert [cell.text for cell in rows["stored as"].cells] == ["float32", "uint8", "uint8"]
    assert all(cell.is_odd for cell in rows["stored as"].cells)
    assert rows["stored as"].note == "splits differ"
    assert not any(cell.is_odd for cell in rows["layout"].cells)


def test_a_split_under_another_name_is_marked(made):
    splits = copy.deepcopy(made.audit["splits"])
    splits["valid"]["official"], splits["test"]["official"] = "test", "valid"
    splits["test"]["x_sha256"] = splits["valid"]["x_sha256"]
    rows = {row.name: row for row in split_rows(splits)}
    assert [cell.is_odd for cell in rows["identity"].cells] == [False, True, True]
    assert rows["identity"].cells[1].text == "official PCam test"
    assert [cell.is_odd for cell in rows["SHA-256 of x"].cells] == [False, True, True]


def test_sizes_are_said_as_a_file_manager_does():
    assert [size(n) for n in (0, 999, 27_648, 1_327_437_824, None)] == [
        "0 bytes", "999 bytes", "27.6 kB", "1.33 GB", "–",
    ]  # fmt: skip


def test_facts_of_any_shape_become_tables():
    tables = fact_tables(
        {
            "num_patches": 16_600,
            "share_positive": 0.0703,
            "interval": [0.1, 0.25],
            "by_split": {"train": {"n": 3, "auc": 0.7421}, "valid": {"n": 4}},
            "pairs": [{"train": 1, "valid": 2}, {"train": 3, "valid": 4}],
            "dtype": {"train": "float32"},
        }
    )
    assert tables[0].rows == (
        ("patches", "16,600"), ("share positive", "7.0 %"), ("interval", "0.1, 0.25"),
    )  # fmt: skip
    assert tables[1].title == "by split" and tables[1].columns == ("n", "auc")
    assert tables[1].rows == (("train", "3", "0.7421"), ("valid", "4", ""))
    assert tables[2].columns == ("train", "valid") and tables[2].rows[1] == ("2", "3", "4")
    assert tables[3].rows == (("train", "float32"),)


def test_facts_are_cut_to_what_can_be_read():
    (table,) = fact_tables({"many": {f"k{i}": i for i in range(1000)}})
    assert len(table.rows) == MAX_ROWS and table.left_out == 1000 - MAX_ROWS
    assert len(cell("x" * 10_000)) < 200
    assert len(cell(list(range(10_000)))) < 200
    assert len(cell({"deep": {"deeper": list(range(10_000))}})) < 200


@pytest.mark.parametrize(
    ("value", "key", "said"),
    [
        (None, "x", "–"), (True, "x", "yes"), (float("nan"), "x", "–"), (1e5, "largest", "100,000"),
        (0.002, "share", "0.20 %"), (1234.5, "x", "1,234.5"), (-0.5, "delta", "-0.5"),
        (995_000_000, "bytes", "995,000,000"), (1e-9, "p", "1e-09"), ([], "x", "none"),
        ("ab" * 32, "x_sha256", "abababababab"), (3.0, "share", "3"), ((1, 2), "x", "1, 2"),
    ],
)  # fmt: skip
def test_a_fact_is_written_as_a_reader_would(value, key, said):
    assert cell(value, key) == said


def test_aucs_are_found_wherever_a_check_puts_them():
    rows = find_aucs(
        [
            {"id": "shortcut-focus", "split": "train",
             "facts": {"auc": 0.8, "auc_interval": [0.7, 0.9]}},
            {"id": "x", "facts": {"table": [{"property": "mean-colour", "split": "test", "auc": 0.6,
                                             "low": 0.5, "high": 0.7}]}},
            {"id": "x", "facts": {"jpeg_grid": {"auc": 0.55}, "auc": None, "other": "auc"}},
            {"id": "shortcut-focus", "split": "train", "facts": {"auc": 0.1}},
        ]
    )  # fmt: skip
    assert [(r.name, r.split, r.auc, r.low, r.high) for r in rows[:2]] == [
        ("focus", "train", 0.8, 0.7, 0.9), ("mean colour", "test", 0.6, 0.5, 0.7),
    ]  # fmt: skip
    assert (rows[2].name, rows[2].auc) == ("jpeg grid", 0.55) and np.isnan(rows[2].low)
    assert len(rows) == 3


def test_of_several_classes_the_larger_difference_between_splits_is_shown():
    record = {"statistic": "mean_r", "first": "train", "second": "valid"}
    effects = [{**record, "label": 0, "delta": 0.2}, {**record, "label": 1, "delta": -0.4},
               {**record, "second": "test", "delta": None}]  # fmt: skip
    assert find_effects([{"id": "d", "facts": {"effects": effects}}]) == {
        "mean red": {"train → valid": -0.4}
    }


def test_outliers_are_those_farthest_from_the_median():
    values = np.array([1, 2, 3, 4, 5, np.nan, -60, 9, np.inf])
    # of the finite ones median 3, deviations 2 1 0 1 2 63 6: their median is 2
    assert robust_z(values)[6] == pytest.approx(-63 / (2 * 1.4826))
    assert [each.position for each in find_outliers(values, 2)] == [6, 7]
    assert np.isnan(robust_z(values)[[5, 8]]).all()


def test_outliers_of_mostly_equal_values_are_the_others():
    values = np.zeros(100)
    values[[7, 70]] = 1, -3
    assert [each.position for each in find_outliers(values, 10)] == [70, 7]
    assert find_outliers(np.zeros(5), 3) == find_outliers(np.full(5, np.nan), 3) == []
    assert find_outliers(np.array([]), 3) == []


def test_equally_far_patches_come_by_their_place():
    values = np.array([0.0, 5, 0, 5, 1, -1, 5])
    assert [each.position for each in find_outliers(values, 3)] == [1, 3, 6]


def test_patches_that_a_finding_names_are_not_shown_again_as_outliers(made):
    named = {(each["split"], row) for each in made.audit["findings"] for row in each["indices"]}
    strips = outlier_strips(made.patches)
    assert len(strips) == 8
    assert not {example.place for strip in strips for example in strip.examples} & named
    unflagged = outlier_strips(made.patches.drop(columns="flags"))
    assert {example.place for strip in unflagged for example in strip.examples} & named


def test_a_patch_is_flagged_by_any_finding():
    patches = pd.DataFrame({"flags": ["near-blank", "", None, "x blank"]})
    assert is_flagged(patches).tolist() == [True, False, False, True]


def test_notes_are_folded_away_only_where_there_is_worse(no_figures, made, page, tmp_path):
    (notes,) = page.all("details", **{"class": "notes"})
    assert len(page.all("article", within=notes)) == 3 and "open" not in notes
    note = finding("slides-unknown", "info", "Who knows.")
    (alone,) = render(made, tmp_path, findings=[note]).all("details", **{"class": "notes"})
    assert "open" in alone


def test_the_command_that_made_the_audit_is_shown(no_figures, made, tmp_path):
    section = {"aria_labelledby": "provenance"}
    told = render(made, tmp_path, command="ml-core audit x --out y")
    assert "ml-core audit x --out y" in told.all("section", **section)[0]["text"]
    guessed = render(made, tmp_path, mode="quick")
    assert (
        "ml-core audit '/data/pcam course' --quick" in guessed.all("section", **section)[0]["text"]
    )


def test_examples_of_a_class_are_of_that_class_and_spread_over_the_file(made):
    where = {"train": slice(0, 120), "valid": slice(120, 180)}
    strips = {strip.title: strip for strip in class_strips(made.patches, where)}
    label = made.patches.query("split == 'valid'")["label"].to_numpy()
    rows = [example.place[1] for example in strips["valid, tumour"].examples]
    assert (label[rows] == 1).all() and rows == sorted(rows) and rows[-1] - rows[0] > 30
    assert strips["valid, tumour"].total == (label == 1).sum()


def test_each_split_is_read_once_at_rising_rows(made):
    asked = []

    def read(split, rows):
        asked.append((split, rows.tolist(), rows.dtype))
        return made.read(split, rows)

    wanted = [("valid", 5), ("train", 9), ("train", 2), ("train", 9)]
    thumbnails = load_thumbnails(read, wanted)
    assert asked == [("train", [2, 9], np.int64), ("valid", [5], np.int64)]
    assert set(thumbnails.images) == set(wanted)


def test_no_more_patches_are_shown_than_there_is_room_for():
    examples = [[["train", row]] for row in range(12)]
    findings = [finding("x", "error", "E.", examples=examples)] * 1000
    assert sum(len(card.groups) for card in build_cards(findings)) == MAX_PATCHES_SHOWN


def test_labels_are_counted_over_the_file_also_when_only_a_sample_was_examined(made):
    splits = {
        "train": {"num_rows": 20_000, "num_examined": 3000, "num_positive": 10_000},
    }
    rows = {row.name: row for row in split_rows(splits)}
    assert rows["tumour"].cells[0].text.replace("\N{NO-BREAK SPACE}", " ") == "10,000 (50.0 %)"
    found = build_verdict({**made.audit, "splits": splits, "mode": "quick"}, [])
    assert (found.num_labelled, found.num_positive) == (20_000, 10_000)
