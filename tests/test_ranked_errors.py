import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fabricated_run import fabricate_predictions
from real_patches import read_patches

from ml_core.errors import RunError
from ml_core.evaluation.errors import rank_errors
from ml_core.evaluation.errors.doubt import LEAST_ODDS
from ml_core.evaluation.neighbours import Neighbours
from ml_core.evaluation.predictions import Predictions, sigmoid


def make_predictions(logit, y_true, **changes) -> Predictions:
    logit = np.array(logit, dtype=float)
    fields = {"split": "valid", "index": np.arange(len(logit)) + 10, "y_true": np.array(y_true)}
    return Predictions(**{**fields, "logit": logit, "y_prob": sigmoid(logit), **changes})


def rows_of(predictions: Predictions, **columns) -> pd.DataFrame:
    return pd.DataFrame({"index": predictions.index, **columns})


def neighbours_of(predictions: Predictions, labels) -> Neighbours:
    labels = np.array(labels)
    return Neighbours(
        split="train",
        query_index=predictions.index,
        index=np.arange(labels.size).reshape(labels.shape) + 100,
        label=labels,
        distance=np.ones(labels.shape) * [0.5, 1.0, 2.0],
    )


def listed(predictions, threshold=0.5, **known) -> list[dict]:
    rows = known.pop("rows", rows_of(predictions))
    return rank_errors(predictions, threshold, rows, **known).to_dict()["errors"]


def test_errors_come_by_falling_loss_with_their_kind():
    predictions = make_predictions([3.0, -1.0, -5.0, 2.0, 0.5], [0, 0, 1, 1, 0])
    table = rank_errors(predictions, 0.5, rows_of(predictions)).to_dict()
    errors = table["errors"]
    assert [error["index"] for error in errors] == [12, 10, 14]
    assert [error["kind"] for error in errors] == [
        "false_negative", "false_positive", "false_positive",
    ]  # fmt: skip
    assert errors[0]["loss"] == pytest.approx(5.0067, abs=1e-4)
    assert errors[0]["y_prob"] == pytest.approx(0.0067, abs=1e-4) and errors[0]["y_true"] == 1
    assert (table["num_errors"], table["false_positives"], table["false_negatives"]) == (3, 2, 1)


def test_a_probability_at_the_threshold_is_a_call_of_tumour():
    predictions = make_predictions([0.0, -0.1], [0, 1], y_prob=np.array([0.3, 0.2999]))
    assert [error["index"] for error in listed(predictions, 0.3)] == [11, 10]
    assert listed(predictions, 0.3001) == listed(predictions, 0.3)[:1]


def test_the_largest_loss_comes_first_at_any_threshold():
    probs = np.array([0.3, 0.19, 0.5])  # the second is a missed tumour, the others false alarms
    errors = listed(make_predictions(np.log(probs / (1 - probs)), [0, 1, 0]), 0.2)
    assert [error["index"] for error in errors] == [11, 12, 10]


def test_the_order_of_the_rows_changes_nothing():
    logit = np.round(fabricate_predictions().logit, 1)  # with losses that are the same
    predictions = fabricate_predictions(logit=logit, y_prob=sigmoid(logit))
    shuffled = np.random.default_rng(0).permutation(len(predictions))
    columns = ("index", "y_true", "y_prob", "logit")
    again = replace(predictions, **{name: getattr(predictions, name)[shuffled] for name in columns})
    assert listed(again) == listed(predictions)


def test_without_any_witness_nothing_is_said_of_the_labels():
    predictions = make_predictions([9.0, -3.0], [0, 0])
    table = rank_errors(predictions, 0.5, rows_of(predictions))
    (error,) = table.to_dict()["errors"]
    assert (error["doubt"], error["why"], error["label_belief"]) == ("unclear", [], None)
    assert error["flags"] == error["neighbours"] == []
    assert table.to_dict()["doubtful_labels"]["found_if_wrong"] is None
    (finding,) = table.findings
    assert finding.id == "labels-not-judged" and "ml-core audit" in finding.action


def test_a_sure_model_alone_never_makes_a_label_doubtful():
    """However sure: neighbours and seeds see with its eyes, and the audit is on the other side."""
    predictions = make_predictions([30.0, 1.0], [0, 1])
    sides = {
        "neighbours": neighbours_of(predictions, [[1, 1, 1], [1, 1, 1]]),
        "seed_predictions": {"seed1": predictions, "seed2": predictions},
    }
    (error,) = listed(predictions, **sides)
    assert (error["doubt"], error["neighbours_agree"], error["seeds_agree"]) == ("unclear", 1, 1)
    (error,) = listed(predictions, rows=rows_of(predictions, label_belief=[0.51, 0.9]), **sides)
    assert error["doubt"] == "model"


def test_a_label_is_doubtful_when_the_odds_of_model_and_audit_multiply_to_the_least():
    # the model says e^2 = 7.39 to 1 against the label, so the audit must say 6.77 to 1: 0.1287
    belief = 1 / (1 + LEAST_ODDS / np.exp(2))
    predictions = make_predictions([2.0] * 3, [0] * 3)
    rows = rows_of(predictions, label_belief=[belief * 0.99, belief * 1.01, np.nan])
    table = rank_errors(predictions, 0.5, rows).to_dict()
    assert [error["doubt"] for error in table["errors"]] == ["label", "unclear", "unclear"]
    assert table["errors"][0]["odds_against_label"] == pytest.approx(LEAST_ODDS / 0.99, rel=0.01)
    assert table["doubtful_labels"]["indices"] == [10] and table["doubtful_labels"]["n"] == 1
    assert "at least 50 to 1" in table["doubtful_labels"]["rule"]


def test_a_witness_on_the_side_of_the_label_makes_it_the_models_error():
    predictions = make_predictions([2.0], [0])
    against, split = (
        neighbours_of(predictions, [[0, 0, 1]]),
        neighbours_of(predictions, [[1, 0, 1]]),
    )
    assert listed(predictions, neighbours=against)[0]["doubt"] == "model"
    assert listed(predictions, neighbours=split)[0]["doubt"] == "unclear"
    right = {"seed1": make_predictions([-1.0], [0])}
    assert listed(predictions, seed_predictions=right)[0]["doubt"] == "model"


def test_what_each_witness_says_is_written_in_figures():
    predictions = make_predictions([2.0, -1.0], [0, 0])
    seeds = {"a": make_predictions([1.0, 1.0], [0, 0]), "b": make_predictions([-1.0, 1.0], [0, 0])}
    (error,) = listed(
        predictions,
        rows=rows_of(predictions, label_belief=[0.05, 0.9], flags=["near-blank label-errors", ""]),
        neighbours=neighbours_of(predictions, [[1, 0, 1], [0, 0, 0]]),
        seed_predictions=seeds,
    )
    assert error["why"] == [
        "the audit's model, which has not seen this label, gives it 5.0 %; with this model's, the "
        "odds against it are 140 to 1",
        "2 of the 3 nearest train patches are labelled tumour",
        "1 of 2 other seeds call it tumour as well",
    ]
    assert error["flags"] == ["near-blank", "label-errors"]
    assert error["neighbours"][1] == {"split": "train", "index": 101, "label": 0, "distance": 1.0}
    assert (error["neighbours_agree"], error["seeds_agree"]) == (pytest.approx(2 / 3), 0.5)


def test_witnesses_are_joined_by_patch_not_by_position():
    predictions = make_predictions([2.0, -3.0], [0, 1])
    turned = make_predictions([-1.0, 2.0], [1, 0], index=np.array([11, 10]))
    neighbours = neighbours_of(turned, [[0, 0, 0], [0, 0, 1]])
    first, second = listed(predictions, neighbours=neighbours, seed_predictions={"s": turned})
    assert (first["index"], first["neighbours_agree"], first["seeds_agree"]) == (11, 1, 1)
    assert (second["index"], second["seeds_agree"]) == (10, 1)
    assert second["neighbours_agree"] == pytest.approx(1 / 3)
    assert second["neighbours"][2] == {"split": "train", "index": 105, "label": 1, "distance": 2.0}


def test_witnesses_of_other_patches_are_refused():
    predictions = make_predictions([2.0, -3.0], [0, 1])
    for other, match in (
        (replace(predictions, split="test"), "of split 'test', these of 'valid'"),
        (
            replace(predictions, index=np.array([10, 99])),
            "lack 1 of the 2 patches .* have 1 others",
        ),
        (replace(predictions, y_true=np.array([1, 1])), "1 of 2 labels .* differ between seed1"),
    ):
        with pytest.raises(RunError, match=match):
            listed(predictions, seed_predictions={"seed1": other})
    elsewhere = neighbours_of(make_predictions([1.0], [0], index=np.array([10])), [[0, 0, 0]])
    with pytest.raises(
        RunError, match=r"1 of 2 patches of split 'valid' have no features.* index 11"
    ):
        listed(predictions, neighbours=elsewhere)
    with pytest.raises(ValueError, match="in their order: join them first"):
        rank_errors(predictions, 0.5, rows_of(predictions)[::-1])
    with pytest.raises(RunError, match="have no labels"):
        rank_errors(replace(predictions, y_true=None), 0.5, rows_of(predictions))


def test_neighbours_are_listed_for_the_first_200_and_counted_for_all():
    predictions = make_predictions(np.linspace(9, 1, 205), [0] * 205)
    errors = listed(predictions, neighbours=neighbours_of(predictions, [[1, 1, 0]] * 205))
    assert [bool(error["neighbours"]) for error in errors] == [True] * 200 + [False] * 5
    assert all(error["neighbours_agree"] == pytest.approx(2 / 3) for error in errors)


def test_no_error_is_an_empty_table_without_a_finding():
    predictions = make_predictions([2.0, -3.0], [1, 0])
    table = rank_errors(predictions, 0.5, rows_of(predictions, label_belief=[0.9, 0.1]))
    content = table.to_dict()
    assert content["errors"] == content["doubtful_labels"]["indices"] == content["findings"] == []


def fabricate_belief(predictions: Predictions, seed: int = 1) -> np.ndarray:
    """Return what an audit that errs independently of the model believes of each label."""
    return sigmoid(2.0 + 2.5 * np.random.default_rng(seed).normal(size=len(predictions)))


def test_what_the_rule_promises_is_what_it_finds_when_each_label_is_really_turned():
    predictions = fabricate_predictions()
    columns = ("index", "y_true", "y_prob", "logit")
    predictions = replace(
        predictions, **{name: getattr(predictions, name)[::5] for name in columns}
    )
    belief = fabricate_belief(predictions)
    rows = rows_of(predictions, label_belief=belief)
    promised = rank_errors(predictions, 0.5, rows).to_dict()["doubtful_labels"]
    found = 0
    for row in range(300):
        y_true, turned = predictions.labels.copy(), belief.copy()
        y_true[row], turned[row] = 1 - y_true[row], 1 - turned[row]
        noisy = replace(predictions, y_true=y_true)
        doubtful = rank_errors(noisy, 0.5, rows.assign(label_belief=turned)).doubtful
        found += int(predictions.index[row]) in [error.index for error in doubtful]
    assert promised["found_if_wrong"]["value"] == found / 300
    assert 0.3 < found / 300 < 0.9
    assert promised["marked_as_they_are"]["value"] == promised["n"] / 300 > 0


def test_planted_flips_are_most_of_the_doubtful_labels_when_the_audit_errs_by_itself():
    predictions = fabricate_predictions()
    belief, flipped = fabricate_belief(predictions), np.random.default_rng(2).random(1500) < 0.05
    noisy = replace(
        predictions, y_true=np.where(flipped, 1 - predictions.labels, predictions.labels)
    )
    rows = rows_of(noisy, label_belief=np.where(flipped, 1 - belief, belief))
    content = rank_errors(noisy, 0.5, rows).to_dict()["doubtful_labels"]
    doubtful, promised = content["indices"], content["found_if_wrong"]["value"]
    hits = flipped[doubtful].sum()
    assert hits / len(doubtful) > 0.75
    assert hits / flipped.sum() == pytest.approx(promised, abs=3 * np.sqrt(0.25 / flipped.sum()))


def test_the_table_is_plain_json_without_nan():
    predictions = fabricate_predictions()
    rows = rows_of(predictions, label_belief=np.float32(np.nan), flags=None)
    table = rank_errors(predictions, 0.3, rows).to_dict()
    assert json.loads(json.dumps(table, allow_nan=False)) == json.loads(json.dumps(table))


@pytest.mark.slow
def test_on_real_patches_flipped_labels_are_found_among_the_errors(real_pcam):
    """The model is linear in what the audit's filters see; the audit's own learns other rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    from ml_core.audit.checks.label_errors import rank_label_errors
    from ml_core.audit.measures.block import Block
    from ml_core.audit.measures.features import fit_features

    train = read_patches(real_pcam, "train", np.arange(0, 20_000, 5))
    valid = read_patches(real_pcam, "valid", np.arange(1500))
    bank = fit_features(train[0][:1000], seed=0)
    features = [
        np.concatenate(
            [bank.measure(Block(part))["features"] for part in np.array_split(levels, 100)]
        )
        for levels, _ in (train, valid)
    ]
    scaler = StandardScaler().fit(features[0])
    model = LogisticRegression(C=0.01, max_iter=500).fit(scaler.transform(features[0]), train[1])
    logit = model.decision_function(scaler.transform(features[1]))
    flipped = np.random.default_rng(0).random(1500) < 0.05
    labels = np.where(flipped, 1 - valid[1], valid[1])
    believed = rank_label_errors(np.concatenate(features), np.append(train[1], labels))
    predictions = make_predictions(logit, labels, index=np.arange(1500))
    rows = rows_of(predictions, label_belief=believed.prob_given[-1500:])
    table = rank_errors(predictions, 0.5, rows).to_dict()
    is_flip = {
        kind: flipped[[each["index"] for each in table["errors"] if each["doubt"] == kind]]
        for kind in ("label", "model", "unclear")
    }
    base = flipped[[error["index"] for error in table["errors"]]].mean()
    assert is_flip["label"].mean() > 2 * base
    assert is_flip["label"].sum() > 0.3 * flipped.sum()
    assert is_flip["model"].mean() < base / 2
