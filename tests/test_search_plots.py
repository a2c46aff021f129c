import math

import numpy as np
import pytest
from fabricated_study import SPACE, fabricate_study, fabricate_trial
from PIL import Image

from ml_core.page.figure_style import save_figure
from ml_core.search import plots
from ml_core.search.axis import Axis, axes_of
from ml_core.search.importance import (
    Importance,
    Importances,
    comparable_values,
    compute_importances,
)
from ml_core.search.parallel import plot_parallel
from ml_core.search.space import Space
from ml_core.search.study_dir import StudyRecord
from ml_core.search.timeline import Span, cut_pauses, plot_timeline, spans_of
from ml_core.search.trials import Attempt, Trial, best_trial, load_trials

LONG = "a_very_long_section_of_a_config.and_a_parameter_that_is_longer_still"


def trial(number, value, state="complete", reports=None, **params):
    reports = reports if reports is not None else {1: 0.5, 2: value} if value is not None else {}
    return Trial(number=number, params=params, state=state, value=value, reports=reports)


def texts(figure):
    own = [text.get_text() for ax in figure.axes for text in ax.texts]
    named = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return [text for text in (*own, *named) if text]


def lines_of(figure, **wanted):
    return [
        line for line in figure.axes[0].lines
        if all(getattr(line, f"get_{key}")() == value for key, value in wanted.items())
    ]  # fmt: skip


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """(trials, record, space) of studies of 20 and of 200 trials, with all that goes wrong."""
    made = {}
    space = {**SPACE, LONG: {"low": 1, "high": 9}, "model.widths": {"choices": [[32], [32, 64]]}}
    for number in (20, 200):
        study = fabricate_study(tmp_path_factory.mktemp("study"), number, space=space)
        draw = Space.from_dict(space).draw
        fabricate_trial(study, number, draw(1, 0), [], "failed", start_s=9e4, cause="error")
        fabricate_trial(study, number + 1, draw(1, 1), [math.nan], "pruned", start_s=9e4, worker=1)
        fabricate_trial(study, number + 2, draw(1, 2), [0.1], "running", start_s=9e4, worker=2)
        made[number] = (load_trials(study), StudyRecord.load(study), Space.from_dict(space))
    return made


def all_figures(trials, record, space):
    best = best_trial(trials, record)
    common = {"direction": record.direction, "label": "ROC-AUC"}
    axes = axes_of(space)
    attempts = [attempt for each in trials for attempt in each.attempts]
    return {
        "history": plots.plot_history(trials, best, **common),
        "curves": plots.plot_learning_curves(trials, best, **common),
        "importance": plots.plot_importance(
            Importances((Importance(LONG, 0.7, 0.2, 0.9), Importance("lr", 0.3, 0.1, 0.8)), "", 9)
        ),
        "parallel": plot_parallel(trials, best, axes, **common),
        "timeline": plot_timeline(spans_of(attempts)),
        **{f"slice {axis.key}": plots.plot_slice(trials, best, axis, **common) for axis in axes},
    }


@pytest.mark.parametrize("number", [20, 200])
def test_nothing_is_cut_off_and_nothing_is_empty(studies, number, tmp_path):
    for name, figure in all_figures(*studies[number]).items():
        box = figure.get_tightbbox()  # inches
        width, height = figure.get_size_inches()
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, name
        if number == 20:
            save_figure(figure, tmp_path / "one.png")
            with Image.open(tmp_path / "one.png") as image:
                pixels = np.asarray(image.convert("L"))
            assert 0.005 < (pixels < 200).mean() < 0.5, name


def test_figures_of_no_trials_and_of_failures_only_can_be_drawn(studies):
    _, record, space = studies[20]
    all_figures([], record, space)
    all_figures([trial(0, None, "failed"), trial(1, None, "lost")], record, space)


# ---- history ---------------------------------------------------------------------------------


def test_the_best_so_far_counts_complete_trials_only():
    trials = [
        trial(0, 0.7), trial(1, 0.99, "pruned"), trial(2, 0.6), trial(3, 0.8), trial(4, math.nan),
    ]  # fmt: skip
    figure = plots.plot_history(trials, trials[3], "maximize", "ROC-AUC")
    (course,) = lines_of(figure, drawstyle="steps-post")
    assert course.get_ydata().tolist() == [0.7, 0.7, 0.7, 0.8, 0.8]
    down = plots.plot_history(trials, trials[2], "minimize", "loss")
    assert lines_of(down, drawstyle="steps-post")[0].get_ydata().tolist() == [0.7] * 2 + [0.6] * 3


def test_a_failed_trial_is_a_cross_at_the_edge_and_a_pruned_one_hollow():
    trials = [trial(0, 0.7), trial(1, None, "failed"), trial(2, 0.6, "pruned")]
    figure = plots.plot_history(trials, trials[0], "maximize", "ROC-AUC")
    (cross,) = lines_of(figure, marker="x")
    assert cross.get_xdata()[0] == 1 and cross.get_ydata()[0] == 0.0
    (hollow,) = lines_of(figure, markerfacecolor="none")
    assert hollow.get_xdata()[0] == 2
    assert texts(figure) == ["best", "complete", "pruned", "failed"]


def test_one_diverged_trial_does_not_flatten_the_others():
    trials = [trial(n, 0.3 + 0.01 * n) for n in range(9)] + [trial(9, 500.0)]
    figure = plots.plot_history(trials, trials[0], "minimize", "loss")
    assert figure.axes[0].get_ylim()[1] < 1
    assert len(lines_of(figure, marker="^")) == 1, "and it is still there, at the edge"
    good = [*trials[:9], trial(9, 0.0001)]
    low = plots.plot_history(good, good[9], "minimize", "loss").axes[0].get_ylim()[0]
    assert low < 0.0001, "an outlier on the good side is what the search is for"
    stuck = [trial(n, 0.9 + 0.001 * n) for n in range(9)] + [trial(9, 0.1)]
    up = plots.plot_history(stuck, stuck[8], "maximize", "ROC-AUC")
    assert up.axes[0].get_ylim()[0] > 0.8 and len(lines_of(up, marker="v")) == 1


# ---- slices and lines across all parameters --------------------------------------------------


def test_equal_choices_lie_side_by_side_and_what_is_not_active_is_apart():
    axis = Axis("units", ([64], [128, 64]))
    trials = [trial(n, 0.6, units=[64]) for n in range(3)] + [trial(3, 0.6)]
    places = plots.spread_places(axis, trials)
    assert len({places[n] for n in range(3)}) == 3
    assert all(0 < places[n] < 0.5 for n in range(3))
    assert places[3] == plots.NOT_ACTIVE
    labels = plots.plot_slice(trials, None, axis, "maximize", "AUC").axes[0].get_xticklabels()
    assert [label.get_text() for label in labels] == ["not\nactive", "[64]", "[128, 64]"]


def test_a_range_is_not_spread():
    axis = Axis("lr", (), 1e-4, 1e-2, log=True)
    places = plots.spread_places(axis, [trial(n, 0.6, lr=1e-3) for n in range(3)])
    assert list(places.values()) == pytest.approx([0.5] * 3)


def test_the_best_line_is_drawn_once_on_top_and_pruned_ones_are_fainter():
    axes = [Axis("lr", (), 1e-4, 1e-2, log=True)]
    trials = [trial(0, 0.9, lr=1e-4), trial(1, 0.7, lr=1e-2), trial(2, 0.8, "pruned", lr=1e-3)]
    figure = plot_parallel(trials, trials[0], axes, "maximize", "ROC-AUC")
    lines = {line.get_color(): line for line in lines_of(figure) if len(line.get_xdata()) == 2
             and list(line.get_xdata()) == [0, 1]}  # fmt: skip
    best, complete, pruned = (lines[c] for c in (plots.VERMILLION, plots.BLUE, plots.MUTED))
    assert best.get_ydata() == pytest.approx([0, 1]), "its lr is lowest and its value highest"
    assert best.get_zorder() > complete.get_zorder() > pruned.get_zorder()
    assert "best, trial 0: 0.9000" in texts(figure)


def test_a_trial_without_a_value_has_no_line():
    axes = [Axis("lr", (), 1e-4, 1e-2)]
    figure = plot_parallel([trial(0, None, "failed", lr=1e-3)], None, axes, "maximize", "AUC")
    assert not [line for line in lines_of(figure) if list(line.get_xdata()) == [0, 1]]


def test_where_a_trial_was_pruned_is_a_cross_on_its_curve():
    trials = [trial(0, 0.9, reports={1: 0.5, 2: 0.9}), trial(1, 0.4, "pruned", {1: 0.4})]
    figure = plots.plot_learning_curves(trials, trials[0], "maximize", "AUC")
    crosses = lines_of(figure, marker="x", linestyle="None")
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in crosses] == [(1, 0.4)]
    (best,) = lines_of(figure, color=plots.VERMILLION)
    assert list(best.get_xdata()) == [1, 2]


# ---- time ------------------------------------------------------------------------------------


def attempt(number, claimed_at, pid, seconds, state="complete"):
    worker = {"host": "node1", "pid": pid}
    return Attempt(number, 0, {}, claimed_at, worker, state, seconds=seconds)


def test_a_span_is_as_long_as_its_attempt_and_belongs_to_its_worker():
    spans = spans_of(
        [
            attempt(1, "2026-01-02T03:00:10+00:00", 8, 5.0, "pruned"),
            attempt(0, "2026-01-02T03:00:00+00:00", 7, 20.0),
        ]
    )
    assert spans == [
        Span("node1 7", 0, 0.0, 20.0, "complete"),
        Span("node1 8", 1, 10.0, 15.0, "pruned"),
    ]
    labels = plot_timeline(spans).axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == ["node1 7", "node1 8"]


def test_a_night_between_two_sittings_is_cut_out_and_an_idle_worker_is_not():
    night = 8 * 3600.0
    spans = [
        Span("a", 0, 0.0, 100.0, "complete"),
        Span("b", 1, 0.0, 50.0, "complete"),
        Span("b", 2, 130.0, 200.0, "complete"),  # both idle for 30 s: shown
        Span("a", 3, 200.0 + night, 300.0 + night, "complete"),
    ]
    moved, (pause,) = cut_pauses(spans)
    assert [span.start_s for span in moved] == [0.0, 0.0, 130.0, 200.0]
    assert (pause.at_s, pause.seconds) == (200.0, night)
    assert "8 h 0 min pause" in texts(plot_timeline(spans))


# ---- importance ------------------------------------------------------------------------------

TWO = Space.from_dict(
    {
        "good": {"low": 1e-4, "high": 1e-1, "log": True},
        "idle": {"choices": [[1], [2], [3]]},
        "sometimes": {"low": 0.0, "high": 1.0, "when": {"idle": [[1]]}},
    }
)


def searched(num_trials, state=lambda number: "complete"):
    """Trials whose value depends on `good` alone."""
    trials = []
    for number in range(num_trials):
        params = TWO.draw(0, number)
        value = 0.9 - 0.1 * (math.log10(params["good"]) + 2) ** 2
        reports = {1: value - 0.2, 2: value}
        if state(number) == "pruned":
            reports, value = {1: value - 0.2}, value - 0.2
        trials.append(trial(number, value, state(number), reports, **params))
    return trials


def test_the_parameter_that_decides_comes_first_with_an_interval_that_says_so():
    found = compute_importances(searched(40), TWO, "maximize", num_resamples=15)
    assert found.rows[0].key == "good"
    assert sum(row.value for row in found.rows) == pytest.approx(1)
    first = found.rows[0]
    assert first.low < first.value < first.high and first.value > 0.7
    assert first.low > found.rows[1].value
    assert {row.key for row in found.rows} == set(TWO.parameters), "conditional ones too"
    assert "40 trials" in found.note and "95 % intervals" in found.note


def test_importances_are_the_same_each_time_and_turn_with_the_direction():
    trials = searched(30)
    one, again = (compute_importances(trials, TWO, "maximize", num_resamples=5) for _ in range(2))
    assert one == again
    turned = [trial(t.number, -t.value, **t.params) for t in trials]
    down = compute_importances(turned, TWO, "minimize", num_resamples=5)
    assert [(row.key, row.value) for row in down.rows] == [(row.key, row.value) for row in one.rows]


@pytest.mark.parametrize(
    ("num_trials", "enough"), [(0, False), (7, False), (11, False), (12, True)]
)
def test_too_few_trials_give_words_in_place_of_numbers(num_trials, enough):
    found = compute_importances(searched(num_trials), TWO, "maximize", num_resamples=2)
    assert bool(found.rows) == enough
    assert enough or f"Too few to tell: {num_trials} trials" in found.note


def test_values_of_unlike_epochs_are_not_compared():
    trials = searched(12, state=lambda number: "pruned" if number % 3 else "complete")
    values, of_what = comparable_values(trials)
    assert len(values) == 12 and "after epoch 1" in of_what
    assert all(value == each.reports[1] for each, value in values)
    complete_only, of_what = comparable_values([t for t in trials if t.state == "complete"])
    assert [value for _, value in complete_only] == [t.value for t in trials[::3]]
    assert "best value" in of_what


def test_a_study_whose_values_are_all_alike_has_no_importances():
    trials = [trial(n, 0.5, **TWO.draw(0, n)) for n in range(20)]
    found = compute_importances(trials, TWO, "maximize")
    assert found.rows == () and "nothing mattered" in found.note
