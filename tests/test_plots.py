from pathlib import Path

import numpy as np
from fabricated_run import fabricate_predictions
from matplotlib.figure import Figure
from PIL import Image

from ml_core.evaluation import plots
from ml_core.evaluation.figures import prediction_figures, training_figures
from ml_core.metrics import Confusion
from ml_core.page.svg import figure_to_svg
from ml_core.runs import RunDir

EPOCHS = [
    {"epoch": 1, "train_loss": 0.6, "val_loss": 0.65, "val_roc_auc": 0.7, "val_f1": None},
    {"epoch": 2, "train_loss": 0.4, "val_loss": 0.5, "val_roc_auc": 0.8, "val_f1": 0.7},
]
STEPS = [
    {"step": step, "loss": 0.5, "learning_rate": 1e-3, "grad_norm": 1.0} for step in range(1, 21)
]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_every_figure_of_a_run_is_drawn_and_saved_under_its_name(tmp_path: Path):
    figures = {**prediction_figures(fabricate_predictions()), **training_figures(EPOCHS, STEPS, 2)}
    assert set(figures) == {
        "roc", "precision_recall", "confusion_matrix", "probabilities", "reliability",
        "loss", "metrics_by_epoch", "step_loss", "learning_rate", "gradient_norm",
    }  # fmt: skip
    for path in plots.save_figures(RunDir(tmp_path), figures):
        assert path.parent == tmp_path / "figures"
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        assert (pixels[0, 0] == 255).all(), "on white, so that it can be read anywhere"
        assert 0.01 < (pixels < 200).any(axis=2).mean() < 0.6, path.name


def test_nothing_is_cut_off_at_the_edge_of_a_figure():
    steps = [{**step, "learning_rate": 0.00025 * step["step"]} for step in STEPS]
    figures = {**prediction_figures(fabricate_predictions()), **training_figures(EPOCHS, steps, 2)}
    epochs = [{**EPOCHS[0], **{f"val_{name}": 0.5 for name in plots.METRIC_LABELS}}]
    figures["metrics_by_epoch"] = plots.plot_epoch_metrics(epochs, best_epoch=1)
    for name, figure in figures.items():
        box = figure.get_tightbbox()  # inches
        width, height = figure.get_size_inches()
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, name


def test_no_log_no_figure():
    assert training_figures([], []) == {}
    assert set(training_figures(EPOCHS, [])) == {"loss", "metrics_by_epoch"}


def test_drawing_leaves_matplotlib_as_it_was():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    plots.plot_loss(EPOCHS, best_epoch=2)
    assert dict(mpl.rcParams) == before


def test_the_confusion_matrix_shows_counts_and_the_share_of_each_true_class():
    shown = texts(plots.plot_confusion_matrix(Confusion(tn=900, fp=100, fn=1, tp=3)))
    assert shown == [
        "900", "90.0% of normal", "100", "10.0% of normal",
        "1", "25.0% of tumour", "3", "75.0% of tumour",
    ]  # fmt: skip


def test_a_class_without_patches_has_no_share():
    shown = texts(plots.plot_confusion_matrix(Confusion(tn=0, fp=0, fn=1, tp=3)))
    assert shown[1] == shown[3] == "no such patch"


def test_lines_are_named_at_their_ends_and_the_best_epoch_is_marked():
    shown = texts(plots.plot_loss(EPOCHS, best_epoch=2))
    assert set(shown) == {"train", "valid", "best epoch 2"}


def test_names_at_line_ends_do_not_touch_though_the_lines_do():
    epochs = [{"epoch": 1, "val_roc_auc": 0.9, "val_pr_auc": 0.9, "val_f1": 0.9, "val_f2": 0.9}]
    labels = plots.plot_epoch_metrics(epochs).axes[0].texts
    heights = sorted(label.xy[1] for label in labels)
    assert len(heights) == 4
    assert min(np.diff(heights)) > 0.05
    assert heights[-1] <= 1.0


def test_a_metric_that_is_never_defined_has_no_line():
    epochs = [{"epoch": 1, "val_roc_auc": None, "val_f1": 0.5}]
    assert texts(plots.plot_epoch_metrics(epochs)) == ["F1"]


def test_a_long_log_keeps_its_extremes_in_a_few_hundred_points():
    steps = [{"step": i, "grad_norm": 1.0} for i in range(1, 100_001)]
    steps[54_321]["grad_norm"] = 40.0
    steps[12_345]["grad_norm"] = None
    axes = plots.plot_gradient_norm(steps).axes[0]
    (band,) = axes.collections
    assert band.get_paths()[0].vertices[:, 1].max() == 40.0
    assert len(axes.lines[0].get_xdata()) <= plots.MAX_POINTS


def test_a_run_named_like_a_broken_formula_is_written_as_it_is():
    curve = plots.CurvePoints(np.array([0, 1.0]), np.array([0, 1.0]))
    figure = plots.plot_roc({r"$\nothing{$": curve, "$": curve})
    svg = figure_to_svg(figure, "roc", "two curves")
    assert r">$\nothing{$</text>" in svg
