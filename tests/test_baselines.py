import hashlib
import json
import math
import tracemalloc
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from real_patches import read_patches
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ml_core.errors import DataError, RunError
from ml_core.evaluation.baselines import BASELINES, BaselineTable, linear_probe, score_baselines
from ml_core.evaluation.baselines.colours import NUM_BINS, colour_histogram, mean_colour
from ml_core.evaluation.baselines.fit import fit_baselines, fit_positions
from ml_core.evaluation.baselines.linear_probe import fit_linear_probe
from ml_core.evaluation.baselines.random_features import NUM_FEATURES, _weights, random_features
from ml_core.evaluation.predictions import Predictions, evaluate_predictions
from ml_core.metrics import compute_metrics, delong_test

PROBED = ("mean_colour", "colour_histogram", "random_features")


def noise(num_patches, height=96, width=96, seed=0):
    shape = (num_patches, height, width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def coloured_centres(num_patches, seed, separation=1.81):
    """Grey patches whose centre's brightness tells the class, with an AUC of 0.90 at best."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_patches) % 2
    brightness = 128 + 15 * (rng.normal(size=num_patches) + separation * labels)
    patches = np.full((num_patches, 48, 48, 3), 128, np.uint8)
    patches[:, 8:40, 8:40] = np.clip(brightness, 0, 255).astype(np.uint8)[:, None, None, None]
    return patches, labels


def answers_of(train, scored, **options):
    """The baselines' probabilities for the patches `scored`, fitted on (patches, labels)."""
    patches, labels = train
    options = {"balanced": True, **options}
    baselines = fit_baselines(lambda at: patches[at], labels, **options)
    return baselines.predict(lambda at: scored[at], len(scored))


def auc(labels, probs):
    return compute_metrics(labels, probs)["roc_auc"]


# ---- features ----------------------------------------------------------------------------------


def test_mean_colour_is_the_mean_of_the_centre_and_then_of_the_whole():
    patches = np.zeros((1, 96, 96, 3), np.uint8)
    patches[0, :, :, 0] = 90
    patches[0, 32:64, 32:64] = (180, 9, 255)
    assert mean_colour(patches).tolist() == [[180, 9, 255, 100, 1, pytest.approx(255 / 9)]]


def test_the_histogram_counts_the_pixels_of_each_colour_whatever_their_place():
    patches = np.zeros((2, 8, 8, 3), np.uint8)
    patches[0, :2] = (255, 31, 32)  # a quarter of the pixels; 31 is of level 0, 32 of level 1
    patches[1] = patches[0, ::-1, ::-1]
    histograms = colour_histogram(patches)
    assert histograms.shape == (2, NUM_BINS)
    expected = np.zeros(NUM_BINS)
    expected[0], expected[7 * 64 + 0 * 8 + 1] = math.sqrt(0.75), math.sqrt(0.25)
    assert histograms[0] == pytest.approx(expected)
    assert np.array_equal(histograms[0], histograms[1])


def test_random_weights_are_these_bits_in_every_release_of_torch_and_numpy():
    bits = b"".join(weight.contiguous().numpy().astype("<f4").tobytes() for weight in _weights())
    assert len(bits) == 4 * (16 * 75 + 32 * 144 + 64 * 288)
    digest = hashlib.sha256(bits).hexdigest()
    assert digest == "7c20d011c2316e1067f0df2211ad430fcb1d98f9f61e25aa2f92fe14beb51bf4"


def test_random_weights_have_the_variance_that_keeps_activations_alive():
    for weight in _weights():
        fan_in = weight[0].numel()
        assert weight.var().item() == pytest.approx(2 / fan_in, rel=0.06)
        assert abs(weight.mean().item()) < 0.05 * math.sqrt(2 / fan_in)


def test_random_features_look_at_the_centre_and_at_the_whole():
    patches = noise(1)
    corner, centre = patches.copy(), patches.copy()
    corner[0, :16, :16] = 255
    centre[0, 44:52, 44:52] = 255
    before, in_corner, in_centre = (random_features(each)[0] for each in (patches, corner, centre))
    halves = np.repeat([0, 1] * 3, [16, 16, 32, 32, 64, 64])  # centre, whole, of each layer
    assert len(before) == len(halves) == NUM_FEATURES
    assert np.array_equal(before[halves == 0], in_corner[halves == 0])
    assert (before[halves == 1] != in_corner[halves == 1]).mean() > 0.9
    assert (before != in_centre).mean() > 0.9


@pytest.mark.parametrize("features", [mean_colour, colour_histogram, random_features])
@pytest.mark.parametrize(("height", "width"), [(96, 96), (64, 80), (20, 33), (3, 3)])
def test_features_of_a_patch_are_its_own_for_any_size(features, height, width):
    patches = noise(9, height, width)
    together = features(patches)
    assert together.dtype == np.float32 and np.isfinite(together).all()
    assert np.allclose(features(patches[4:5])[0], together[4], rtol=1e-5, atol=1e-5)


# ---- the linear probe --------------------------------------------------------------------------


@pytest.mark.parametrize("balanced", [True, False])
def test_a_probe_says_what_scikit_learns_own_pipeline_says(balanced):
    rng = np.random.default_rng(0)
    labels = (rng.random(300) < 0.2).astype(np.int64)
    features = (rng.normal(size=(300, 4)) * [1, 50, 0.01, 1] + labels[:, None]).astype(np.float32)
    probe = fit_linear_probe(features, labels, balanced=balanced, standardise=True)
    scaler = StandardScaler().fit(features.astype(np.float64))
    model = LogisticRegression(C=1.0, class_weight="balanced" if balanced else None)
    inputs = scaler.transform(features.astype(np.float64))
    expected = model.fit(inputs, labels).predict_proba(inputs)[:, 1]
    assert probe.predict(features) == pytest.approx(expected, abs=1e-6)
    assert probe.facts["converged"] is True


def test_a_constant_feature_counts_for_nothing():
    labels = np.arange(40) % 2
    features = np.stack([labels + 0.1, np.full(40, 0.1)], axis=1).astype(np.float32)
    probe = fit_linear_probe(features, labels, balanced=True, standardise=True)
    assert probe.coefficients[1] == 0
    features[:, 1] = 1e6  # what train never showed cannot be weighed
    assert auc(labels, probe.predict(features)) == 1.0


def test_certain_answers_are_0_and_1_and_no_overflow():
    labels = np.arange(40) % 2
    features = labels[:, None].astype(np.float32)
    probe = fit_linear_probe(features, labels, balanced=True, standardise=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert probe.predict(np.float32([[-1e6], [1e6]])).tolist() == [0.0, 1.0]


def test_a_fit_that_is_cut_off_says_so_and_warns_nobody(monkeypatch):
    monkeypatch.setattr(linear_probe, "_MAX_ITERATIONS", 1)
    train = coloured_centres(100, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        baselines = fit_baselines(lambda at: train[0][at], train[1], balanced=True)
    assert baselines.not_converged
    name = baselines.not_converged[0]
    assert baselines.facts["probes"][name]["converged"] is False
    assert baselines.facts["probes"][name]["iterations"] == 1


# ---- which patches are fitted on ---------------------------------------------------------------


@pytest.mark.parametrize("balanced", [True, False])
def test_the_patches_fitted_on_are_spread_over_the_whole_file(balanced):
    labels = np.arange(10_000) % 2
    chosen = fit_positions(labels, balanced, 1000)
    assert len(chosen) == 1000 and (np.diff(chosen) > 0).all()
    assert np.histogram(chosen, 10, (0, 10_000))[0].tolist() == pytest.approx([100] * 10, abs=4)
    assert labels[chosen].mean() == pytest.approx(0.5, abs=0 if balanced else 0.05)


def test_balanced_as_in_training_takes_all_of_a_rare_class_and_half_of_the_other():
    labels = np.zeros(1000, np.int64)
    labels[::50] = 1
    chosen = fit_positions(labels, True, 200)
    assert labels[chosen].sum() == 20 and len(chosen) == 120
    assert labels[fit_positions(labels, False, 200)].sum() < 20


def test_the_patches_fitted_on_have_their_own_labels():
    patches, labels = coloured_centres(600, seed=0)
    in_order = np.argsort(labels, kind="stable")  # a file with all the normal patches first
    train = patches[in_order], labels[in_order]
    scored, truth = coloured_centres(400, seed=1)
    for balanced in (True, False):
        answers = answers_of(train, scored, balanced=balanced, max_patches=200)
        assert auc(truth, answers["mean_colour"]) == pytest.approx(0.90, abs=0.05)


def test_both_classes_weigh_the_same_where_training_balances_them():
    labels = (np.arange(400) % 10 == 0).astype(np.int64)
    patches = noise(400, 8, 8)
    for balanced, expected in ((True, 0.5), (False, 0.1)):
        answers = answers_of((patches, labels), noise(200, 8, 8, seed=1), balanced=balanced)
        assert answers["prior"][0] == pytest.approx(expected)
        assert answers["mean_colour"].mean() == pytest.approx(expected, abs=0.05)


def test_a_train_split_of_one_class_is_refused():
    rare = np.zeros(1000, np.int64)
    rare[1] = 1  # and not among the ten that are taken
    for labels, words in ((np.ones(4, np.int64), "4 .* label 1"), (rare, "10 .* label 0")):
        with pytest.raises(DataError, match=f"the {words}; needed are both, 0"):
            fit_baselines(lambda at: noise(len(at)), labels, balanced=False, max_patches=10)


def test_the_facts_say_what_the_baselines_were_fitted_on():
    patches, labels = coloured_centres(90, seed=0)
    facts = fit_baselines(lambda at: patches[at], labels, balanced=False, max_patches=60).facts
    json.dumps(facts, allow_nan=False)
    assert (facts["train_patches"], facts["fitted_on"], facts["balanced"]) == (90, 60, False)
    assert (facts["prior"], facts["prior_is"]) == (0.5, "share of tumour in train")
    assert set(facts["probes"]) == set(PROBED)


# ---- what they score ---------------------------------------------------------------------------


def test_a_class_that_the_centres_colour_tells_is_told_about_as_well_as_can_be():
    patches, labels = coloured_centres(600, seed=1)
    answers = answers_of(coloured_centres(1000, seed=0), patches)
    assert tuple(answers) == BASELINES
    assert auc(labels, answers["mean_colour"]) == pytest.approx(0.90, abs=0.03)
    assert auc(labels, answers["colour_histogram"]) > 0.8  # it knows 8 levels of grey
    assert auc(labels, answers["random_features"]) > 0.85
    assert (answers["always_positive"] == 1).all() and (answers["always_negative"] == 0).all()
    assert (answers["prior"] == 0.5).all()


def test_shuffled_labels_leave_every_baseline_at_chance():
    shuffle = np.random.default_rng(5).permutation
    patches, labels = coloured_centres(600, seed=0)
    scored, truth = coloured_centres(600, seed=1)
    truth = shuffle(truth)
    four_standard_errors = 4 * math.sqrt((1 / 300 + 1 / 300) / 12)
    for name, probs in answers_of((patches, shuffle(labels)), scored).items():
        assert auc(truth, probs) == pytest.approx(0.5, abs=four_standard_errors), name


def test_on_real_patches_colour_alone_goes_far_and_each_baseline_is_where_it_was_measured(
    real_pcam,
):
    train = read_patches(real_pcam, "train", np.arange(0, 20_000, 10))
    patches, labels = read_patches(real_pcam, "valid", np.arange(0, 1500, 3))
    answers = answers_of(train, patches)
    aucs = {name: auc(labels, probs) for name, probs in answers.items()}
    assert aucs["prior"] == aucs["always_positive"] == 0.5
    assert aucs["mean_colour"] == pytest.approx(0.79, abs=0.04)
    assert aucs["colour_histogram"] == pytest.approx(0.86, abs=0.04)
    assert aucs["random_features"] == pytest.approx(0.82, abs=0.04)


def test_the_same_patches_give_the_same_bits_twice():
    train, scored = coloured_centres(300, seed=0), noise(50, 48, 48)
    first, second = answers_of(train, scored), answers_of(train, scored)
    assert all(np.array_equal(first[name], second[name]) for name in BASELINES)


def test_memory_does_not_grow_with_the_patches_that_are_scored():
    patches, labels = coloured_centres(200, seed=0)
    baselines = fit_baselines(lambda at: patches[at], labels, balanced=True)

    def peak_of(num_patches):
        tracemalloc.start()
        baselines.predict(lambda at: noise(len(at), 32, 32), num_patches)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_of(128)  # what is made once
    growth = peak_of(1280) - peak_of(256)
    assert growth < 2 * 1024 * len(BASELINES) * 8  # probabilities; as patches it were 3 MB


def test_of_the_patches_fitted_on_only_features_are_held():
    labels = np.arange(1000) % 2
    held = []

    def read(at):
        held.append(tracemalloc.get_traced_memory()[0])
        return noise(len(at), 48, 48)

    tracemalloc.start()
    fit_baselines(read, labels, balanced=True)
    tracemalloc.stop()
    per_patch = (held[-1] - held[1]) / (128 * (len(held) - 2))
    assert per_patch < 4 * (6 + 512 + 224) * 1.2  # bytes; a patch here has 6,912


# ---- the table ---------------------------------------------------------------------------------


def make_table(num_patches=60, **changes):
    rng = np.random.default_rng(3)
    fields = {
        "split": "valid",
        "index": 5 + 2 * np.arange(num_patches),
        "y_true": np.arange(num_patches) % 2,
        "y_prob": {name: rng.random(num_patches) for name in BASELINES},
        "facts": {"recipe": 1, "prior": 0.5},
    }
    return BaselineTable(**{**fields, **changes})


def predictions_for(table, order=None, **changes):
    order = np.arange(len(table)) if order is None else order
    logit = np.random.default_rng(4).normal(size=len(table)) + 2 * table.y_true - 1
    fields = {
        "split": table.split,
        "index": table.index[order],
        "y_true": table.y_true[order],
        "y_prob": (1 / (1 + np.exp(-logit)))[order],
        "logit": logit[order],
    }
    return Predictions(**{**fields, **changes})


def test_a_saved_table_comes_back_bit_for_bit_with_its_facts(tmp_path):
    table = make_table()
    table.save(tmp_path / "baselines" / "valid.parquet")
    loaded = BaselineTable.load(tmp_path / "baselines" / "valid.parquet")
    assert np.array_equal(loaded.index, table.index)
    assert np.array_equal(loaded.y_true, table.y_true) and loaded.y_true.dtype == np.int64
    for name in BASELINES:
        assert np.array_equal(loaded.y_prob[name], table.y_prob[name])
    assert (loaded.split, loaded.facts) == ("valid", table.facts)


def with_column(name, values):
    return lambda t: t.set_column(t.column_names.index(name), name, values)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop_columns(["mean_colour"]), "lacks the columns mean_colour; it has"),
        (lambda t: t.slice(0, 0), "holds no patches"),
        (with_column("split", pa.array(["valid", "test", "test"])), "holds the splits"),
        (with_column("index", pa.array([1, 1, 2])), "more than once, index 1"),
        (with_column("prior", pa.array([0.1, None, 0.2])), "not what a table of baselines holds"),
        (with_column("prior", pa.array([0.1, math.nan, 0.2])), "prior hold values that are no"),
        (with_column("prior", pa.array([0.1, 1.5, 0.2])), "prior hold values that are no"),
        (with_column("y_true", pa.array([0, 2, 1], pa.int8())), "labels other than 0 and 1"),
        (lambda t: t.replace_schema_metadata({}), "does not say what its baselines were fitted"),
        (lambda t: t.replace_schema_metadata({"facts": "{"}), "its facts are no JSON"),
    ],
)
def test_a_table_of_another_kind_is_refused_with_what_is_wrong(tmp_path, change, words):
    path = tmp_path / "valid.parquet"
    make_table(3).save(path)
    pq.write_table(change(pq.read_table(path)), path)
    with pytest.raises(RunError, match=words):
        BaselineTable.load(path)


def test_a_patch_that_is_there_twice_is_not_saved(tmp_path):
    with pytest.raises(RunError, match="more than once, index 7"):
        make_table(3, index=np.array([7, 1, 7])).save(tmp_path / "valid.parquet")


def test_rows_are_joined_by_index_and_never_by_order():
    table = make_table()
    order = np.random.default_rng(0).permutation(len(table))
    straight = evaluate_predictions(predictions_for(table), num_resamples=20, baselines=table)
    turned = evaluate_predictions(predictions_for(table, order), num_resamples=20, baselines=table)
    for name in BASELINES:
        for key in ("roc_auc", "f2", "brier"):
            values = [each["baselines"][name][key] for each in (straight, turned)]
            assert values[0] == pytest.approx(values[1], abs=1e-12)
    other = table.probs_of("valid", table.index[order], table.y_true[order])
    assert np.array_equal(other["prior"], table.y_prob["prior"][order])


def test_baselines_of_other_rows_are_refused():
    table = make_table(60)
    fewer = predictions_for(make_table(50))
    with pytest.raises(RunError, match=r"hold 60 patches and the predictions 50: 0 are in the pre"):
        evaluate_predictions(fewer, baselines=table)
    moved = predictions_for(table, index=table.index + 2)
    with pytest.raises(RunError, match=r"1 are in the predictions only \(index 125\), 1 in the b"):
        evaluate_predictions(moved, baselines=table)


def test_baselines_of_another_split_or_with_other_labels_are_refused():
    table = make_table()
    with pytest.raises(RunError, match="of split 'valid' and the predictions of 'test'"):
        evaluate_predictions(predictions_for(table, split="test"), baselines=table)
    y_true = table.y_true.copy()
    y_true[3] = 1 - y_true[3]
    with pytest.raises(RunError, match=r"1 patches of valid have another label .* \(index 11\)"):
        evaluate_predictions(predictions_for(table, y_true=y_true), baselines=table)


# ---- beside the model --------------------------------------------------------------------------


def test_metrics_json_has_every_metric_of_each_baseline_and_the_paired_difference():
    table = make_table()
    predictions = predictions_for(table)
    result = evaluate_predictions(predictions, num_resamples=20, baselines=table)
    json.dumps(result, allow_nan=False)
    assert tuple(result["baselines"]) == BASELINES
    assert result["baseline_facts"] == table.facts
    for name, scores in result["baselines"].items():
        expected = compute_metrics(table.y_true, table.y_prob[name])
        assert scores["roc_auc"] == expected["roc_auc"] and scores["f2"] == expected["f2"]
        test = delong_test(table.y_true, predictions.y_prob, table.y_prob[name])
        assert scores["auc_difference"] == {
            "value": test.difference, "low": test.interval.low,
            "high": test.interval.high, "p": test.p_value,
        }  # fmt: skip
        model = result["metrics"]["roc_auc"]["value"]
        assert scores["auc_difference"]["value"] == pytest.approx(model - expected["roc_auc"])


def test_constants_have_no_loss_and_the_prior_has_its_entropy():
    labels = np.arange(40) % 2
    constants = {"always_positive": np.ones(40), "always_negative": np.zeros(40),
                 "prior": np.full(40, 0.5)}  # fmt: skip
    scores = score_baselines(labels, labels * 0.8, constants)
    assert math.isnan(scores["always_positive"]["loss"])
    assert math.isnan(scores["always_negative"]["loss"])
    assert scores["prior"]["loss"] == pytest.approx(math.log(2))
    assert scores["always_positive"]["f2"] == pytest.approx(5 / 6)


def test_a_models_threshold_is_not_put_on_a_baseline_unless_one_is_given_for_it():
    table = make_table()
    predictions = predictions_for(table)
    result = evaluate_predictions(
        predictions, 0.9, num_resamples=20, baselines=table, baseline_thresholds={"prior": 0.2}
    )["baselines"]
    assert result["mean_colour"]["threshold"] == 0.5
    assert (
        result["mean_colour"]["recall"]
        == compute_metrics(table.y_true, table.y_prob["mean_colour"], 0.5)["recall"]
    )
    assert result["prior"]["threshold"] == 0.2
    expected = compute_metrics(table.y_true, table.y_prob["prior"], 0.2)
    assert result["prior"]["recall"] == expected["recall"]


def test_a_model_that_is_the_baseline_is_not_above_it():
    table = make_table()
    probs = table.y_prob["mean_colour"]
    scores = score_baselines(table.y_true, probs, table.y_prob)
    assert scores["mean_colour"]["auc_difference"] == {"value": 0, "low": 0, "high": 0, "p": 1}


def test_with_one_class_what_is_undefined_is_null():
    table = make_table(y_true=np.ones(60, np.int64))
    result = evaluate_predictions(predictions_for(table), num_resamples=20, baselines=table)
    text = json.dumps(result, allow_nan=False)
    scores = json.loads(text)["baselines"]["colour_histogram"]
    assert scores["roc_auc"] is None
    assert set(scores["auc_difference"].values()) == {None}
    assert scores["recall"] is not None
