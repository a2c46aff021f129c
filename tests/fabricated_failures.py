"""slices.json, errors.json, uncertainty.json and explain.json of a fabricated run, no model needed.

Errors and scores are those of the run's own predictions; what a patch looks like is made up so that
the model is worse on dark patches and on one slide, and is as good on the others as chance has it.
"""

import math

import numpy as np
from fabricated_run import fabricate_predictions

from ml_core.evaluation.predictions import Predictions
from ml_core.metrics import compute_intervals, compute_metrics, wilson_interval
from ml_core.runs import RunDir, write_json

NUM_SLIDES, WEAK_SLIDE = 12, "slide_07"
NUMBERS = {  # fact -> (mean, deviation, how far it falls where the model is wrong)
    "brightness": (148.0, 26.0, 0.9),
    "contrast": (46.0, 11.0, 0.1),
    "hue": (291.0, 9.0, 0.0),
    "saturation": (0.31, 0.07, 0.0),
    "haematoxylin": (0.42, 0.1, -0.5),
    "eosin": (0.21, 0.06, 0.0),
    "focus": (12_000.0, 4_000.0, 0.25),
    "blockiness": (1.02, 0.06, 0.0),
    "tissue_share": (0.82, 0.12, 0.0),
}
EXTREMES = {"brightness": ("darkest", "brightest"), "focus": ("most blurred", "sharpest")}


def fabricate_failures(
    run: RunDir, seed: int = 0, separation: float = 2.3, split="valid", facts=None
) -> None:
    """Write the four files of a run that `fabricate_run` wrote with the same seed.

    `facts` are those of another run, where both are to be compared on the same slices.
    """
    predictions = fabricate_predictions(seed, separation, split=split)
    contents = {
        run.slices_path(split): fabricate_slices(predictions, facts=facts),
        run.errors_path(split): fabricate_errors(predictions),
        run.uncertainty_path(split): fabricate_uncertainty(predictions),
        run.explain_path(split): fabricate_explain(predictions),
    }
    for path, content in contents.items():
        write_json(path, content)


def header(predictions: Predictions, threshold: float = 0.5, **changes) -> dict:
    """What each of the four files begins with."""
    content = {
        "format": 1,
        "split": predictions.split,
        "n": len(predictions),
        "threshold": threshold,
        "calibration": {"kind": "none", "temperature": 1.0, "knots": [], "note": ""},
        "champion_sha256": None,
        "run_id": predictions.run_id,
        "weights_sha256": predictions.weights_sha256,
        "epoch": predictions.epoch,
        "seed": 0,
    }
    return {**content, **changes}


def score(value, low=None, high=None) -> dict:
    """A score as JSON has it: NaN as null."""
    named = {"value": value, "low": low, "high": high}
    return {
        key: None if each is None or math.isnan(each) else round(float(each), 6)
        for key, each in named.items()
    }


def fabricate_facts(predictions: Predictions, seed: int = 5) -> dict[str, np.ndarray]:
    """Return made-up facts of the patches by name, each (N,), some of which follow the loss."""
    generator = np.random.default_rng(seed)
    wrong = _wrong(predictions, 0.5)
    facts = {
        name: mean + sd * (generator.normal(size=len(predictions)) - pull * wrong)
        for name, (mean, sd, pull) in NUMBERS.items()
    }
    slide = generator.integers(0, NUM_SLIDES - 1, len(predictions))
    slide[slide >= 7] += 1  # the weak slide takes its patches from everywhere
    slide[generator.random(len(predictions)) < np.where(wrong, 0.2, 0.035)] = 7
    facts["slide"] = np.array([f"slide_{number:02d}" for number in slide], dtype=object)
    facts["num_copies"] = np.where(generator.random(len(predictions)) < 0.04, 2, 1)
    facts["white_share"] = np.where(generator.random(len(predictions)) < 0.012, 0.97, 0.1)
    return facts


def fabricate_slices(
    predictions: Predictions, threshold: float = 0.5, facts=None, **changes
) -> dict:
    """Return the content of slices.json, worst slices first, with two slices of the user's own."""
    facts = facts or fabricate_facts(predictions)
    rows = [
        _slice_row(predictions, threshold, facts["slide"], *named) for named in _named_masks(facts)
    ]
    scored = [row for row in rows if row["standing"] != "not scored"]
    for kind in ("error", "recall", "specificity", "roc_auc"):
        pairs = [row["differences"][kind] for row in scored if kind in row["differences"]]
        for each, q in zip(pairs, _false_discovery([each["p"] for each in pairs]), strict=True):
            each["q"] = q
    for row in scored:
        error = row["differences"]["error"]
        if error["q"] is not None and error["q"] <= 0.05:
            row["standing"] = "worse" if error["value"] > 0 else "better"
    rows.sort(key=lambda row: -(row["differences"].get("error", {}).get("value") or -9.0))
    worse = [row for row in rows if row["standing"] == "worse"]
    content = {
        **header(predictions, threshold),
        "level": 0.95,
        "num_resamples": 200,
        "false_discovery_rate": 0.05,
        "min_patches": 30,
        "min_per_class": 10,
        "clustered_by": "slide",
        "overall": _metrics(predictions, np.ones(len(predictions), bool), threshold),
        "slices": rows,
        "num_tested": len(scored),
        "num_worse": len(worse),
        "findings": [
            {
                "id": "worse-slices",
                "severity": "warning",
                "message": f"{len(worse)} of {len(scored)} slices are worse than the rest: "
                f"{', '.join(row['name'] for row in worse)}.",
                "action": "Look at their patches.",
            }
        ] if worse else [],
        "discovery": fabricate_discovery(predictions, facts, threshold),
        "shortcuts": fabricate_shortcuts(),
    }  # fmt: skip
    return {**content, **changes}


def fabricate_discovery(predictions: Predictions, facts: dict, threshold: float = 0.5) -> dict:
    """Return what a search for slices found: two that were confirmed, and one that was not."""
    dark, blurred = facts["brightness"] < 122, facts["focus"] < 9_000
    pale = (facts["eosin"] < 0.14) & (facts["hue"] > 295)
    found = [
        ("dark and blurred", "brightness < 122 and focus < 9000", dark & blurred, "rule", True),
        ("cluster 4: bluer, darker", "", facts["haematoxylin"] > 0.53, "cluster", True),
        ("pale and red", "eosin < 0.14 and hue > 295", pale, "rule", False),
    ]
    half = np.random.default_rng(9).random(len(predictions)) < 0.5
    return {
        "split_by": "slide",
        "num_suggesting": int(half.sum()),
        "num_confirming": int((~half).sum()),
        "num_tried": 4_120,
        "num_suggested": len(found),
        "num_confirmed": 2,
        "false_discovery_rate": 0.05,
        "level": 0.95,
        "max_terms": 3,
        "seed": 0,
        "slices": [_found_slice(predictions, threshold, half, *each) for each in found],
        "notes": ["slides keep their patches together in one half"],
        "findings": [],
    }


def _found_slice(predictions, threshold, half, name, where, mask, found_by, is_confirmed) -> dict:
    wrong = _wrong(predictions, threshold)
    rates = {
        side: {"n": int((mask & of).sum()), "error": float(wrong[mask & of].mean()),
               "rest_error": float(wrong[of & ~mask].mean())}
        for side, of in (("suggested", half), ("confirmed", ~half))
    }  # fmt: skip
    differences = {side: each["error"] - each["rest_error"] for side, each in rates.items()}
    spread = 1.96 * math.sqrt(wrong.var() / rates["confirmed"]["n"])
    value = differences["confirmed"]
    return {
        "name": name,
        "group": "discovered",
        "kind": "discovered",
        "where": where,
        "said": "patches that look alike to the model" if not where else f"{name} patches",
        "n": int(mask.sum()),
        "found_by": found_by,
        "target": "errors",
        "suggested": {**rates["suggested"], "difference": differences["suggested"]},
        "confirmed": {
            **rates["confirmed"],
            "errors": int(wrong[mask & ~half].sum()),
            "difference": score(value, value - spread, value + spread),
            "p": 1e-5 if is_confirmed else 0.41,
            "q": 4e-5 if is_confirmed else 0.46,
        },
        "is_confirmed": is_confirmed,
        "looks": [
            {"fact": "brightness", "z": -1.4, "words": "darker"},
            {"fact": "haematoxylin", "z": 0.9, "words": "more haematoxylin"},
        ],
        "examples": _examples(predictions, mask & ~half, threshold),
    }


def fabricate_errors(predictions: Predictions, threshold: float = 0.5, **changes) -> dict:
    """Return the content of errors.json: all of them, most confident first; some labels doubted."""
    generator = np.random.default_rng(3)
    wrong = np.flatnonzero(_wrong(predictions, threshold))
    order = wrong[np.argsort(-predictions.nll[wrong], kind="stable")]
    errors = [_error(predictions, row, rank, generator) for rank, row in enumerate(order)]
    doubted = [error["index"] for error in errors if error["doubt"] == "label"]
    kinds = [error["kind"] for error in errors]
    content = {
        **header(predictions, threshold),
        "num_errors": len(errors),
        "false_positives": kinds.count("false_positive"),
        "false_negatives": kinds.count("false_negative"),
        "errors": errors,
        "doubtful_labels": {
            "n": len(doubted),
            "rule": "the audit, the neighbours and every other seed side with the model",
            "indices": sorted(doubted),
        },
        "findings": [],
    }
    return {**content, **changes}


def _error(predictions: Predictions, row: int, rank: int, generator) -> dict:
    label = int(predictions.labels[row])
    is_doubted = rank % 7 == 2
    agree = 1.0 if is_doubted else float(generator.integers(0, 3)) / 5
    labels = [1 - label if place < round(5 * agree) else label for place in range(5)]
    neighbours = [
        {
            "split": "train",
            "index": int(generator.integers(0, 20_000)),
            "label": each,
            "distance": round(0.4 + 0.1 * place, 3),
        }
        for place, each in enumerate(labels)
    ]
    return {
        "index": int(predictions.index[row]),
        "y_true": label,
        "y_prob": float(predictions.y_prob[row]),
        "logit": float(predictions.logit[row]),
        "kind": "false_negative" if label else "false_positive",
        "loss": float(predictions.nll[row]),
        "label_belief": 0.08 if is_doubted else 0.7,
        "flags": ["label-errors"] if is_doubted else ["near-blank"] if rank % 11 == 5 else [],
        "neighbours": neighbours if rank < 200 else [],
        "neighbours_agree": agree if rank < 200 else None,
        "seeds_agree": 1.0 if is_doubted else 0.5,
        "doubt": "label" if is_doubted else "model" if rank % 3 else "unclear",
        "why": ["the audit gives the label a belief of 0.08", "5 of 5 neighbours are labelled so"]
        if is_doubted
        else [],
    }


def fabricate_uncertainty(predictions: Predictions, threshold: float = 0.5, **changes) -> dict:
    """Return the content of uncertainty.json, with two other seeds."""
    wrong = _wrong(predictions, threshold)
    order = np.argsort(-np.abs(predictions.logit))
    kept = np.unique(np.linspace(15, len(order), 100).astype(int))
    intervals = [wilson_interval(int(wrong[order[:n]].sum()), int(n), 0.95) for n in kept]
    target = float(wrong.mean() / 2)
    risks = [float(wrong[order[:n]].mean()) for n in kept]
    widest = max(range(len(kept)), key=lambda at: (intervals[at].high <= target, kept[at]))
    edge = float(predictions.y_prob[order[kept[widest] - 1]])
    low, high = sorted((edge, 1 - edge))
    runs = [predictions.run_id, f"{1:032x}", f"{2:032x}"]
    content = {
        **header(predictions, threshold),
        "level": 0.95,
        "risk_coverage": {
            "coverage": [n / len(order) for n in kept.tolist()],
            "risk": risks,
            "low": [each.low for each in intervals],
            "high": [each.high for each in intervals],
        },
        "aurc": score(float(np.mean(risks)), np.mean(risks) - 0.01, np.mean(risks) + 0.01),
        "aurc_of_chance": float(wrong.mean()),
        "aurc_of_an_oracle": float(wrong.mean() ** 2 / 2),
        "abstention": {
            "target_risk": target,
            "coverage": float(kept[widest] / len(order)),
            "below": low,
            "above": high,
            "risk": score(risks[widest], intervals[widest].low, intervals[widest].high),
            "how": "the largest coverage whose bound keeps the target (Geifman and El-Yaniv 2017)",
        },
        "why_no_abstention": "",
        "seeds": {
            "runs": runs,
            "num_runs": len(runs),
            "all_agree": 0.871,
            "kappa": 0.782,
            "error_when_agree": score(0.071, 0.058, 0.087),
            "error_when_split": score(0.412, 0.345, 0.482),
            "by_votes": [
                {"votes": 0, "n": 668, "error": 0.064},
                {"votes": 1, "n": 92, "error": 0.37},
                {"votes": 2, "n": 101, "error": 0.44},
                {"votes": 3, "n": 639, "error": 0.078},
            ],
        },
        "findings": [],
    }
    return {**content, **changes}


def fabricate_explain(predictions: Predictions, **changes) -> dict:
    """Return the content of explain.json."""
    content = {
        **header(predictions),
        "saliency": fabricate_saliency(predictions),
        "visibility": fabricate_visibility(),
        "robustness": fabricate_robustness(),
    }
    return {**content, **changes}


def fabricate_saliency(predictions: Predictions) -> dict:
    maps = {name: _bump(6, width) for name, width in (("grad_cam", 1.6), ("occlusion", 1.1))}
    rows = np.argsort(-predictions.nll)[:4].tolist() + np.argsort(predictions.nll)[:4].tolist()
    return {
        "n": 128,
        "centre": {"box": [32, 64, 32, 64], "share_of_area": 1 / 9},
        "methods": {
            "grad_cam": {
                "layer": "features.9",
                "share_in_centre": score(0.243, 0.221, 0.266),
                "random_weights": score(0.118, 0.104, 0.133),
                "difference": score(0.125, 0.098, 0.152),
                "correlation_with_random": 0.06,
                "mean_map": maps["grad_cam"],
                "mean_map_random": _bump(6, 30),
            },
            "occlusion": {
                "share_in_centre": score(0.412, 0.371, 0.455),
                "random_weights": score(0.109, 0.098, 0.121),
                "difference": score(0.303, 0.262, 0.345),
                "correlation_with_random": -0.02,
                "mean_map": maps["occlusion"],
                "mean_map_random": _bump(6, 30),
            },
        },
        "examples": [
            {
                "index": int(predictions.index[row]),
                "y_true": int(predictions.labels[row]),
                "y_prob": float(predictions.y_prob[row]),
                "grad_cam": np.roll(maps["grad_cam"], (place - 3) // 2, axis=1).tolist(),
                "occlusion": np.roll(maps["occlusion"], (place - 3) // 2, axis=0).tolist(),
            }
            for place, row in enumerate(rows)
        ],
        "findings": [],
    }


def fabricate_visibility() -> dict:
    drops = {"whole": 0.0, "centre_only": 0.03, "ring_only": 0.19,
             "centre_on_other_ring": 0.05, "ring_on_other_centre": 0.31}  # fmt: skip
    values = {"roc_auc": 0.952, "recall": 0.861, "specificity": 0.893, "accuracy": 0.877}
    return {
        "n": 1000,
        "fill": [178.2, 137.5, 176.3],
        "views": {
            view: {
                "metrics": {
                    name: score(value - drop, value - drop - 0.015, value - drop + 0.013)
                    for name, value in values.items()
                },
                "difference": {name: score(-drop, -drop - 0.01, -drop + 0.01) for name in values},
            }
            for view, drop in drops.items()
        },
        "findings": [],
    }


CORRUPTIONS = [  # name, unit, expect, fact, strengths, fall of ROC-AUC at each, range of train
    ("rotation", "degrees", "flat", None, [0, 90, 180, 270], [0, 0.002, 0.001, 0.002], None),
    ("flip", "", "flat", None, [0, 1, 2], [0, 0.001, 0.0], None),
    ("blur", "px", "falls", "focus", [0, 0.5, 1, 2, 3], [0, 0.004, 0.02, 0.11, 0.21], [3e3, 2e4]),
    ("jpeg", "quality", "falls", "blockiness", [100, 90, 70, 50, 20], [0, 0.0, 0.004, 0.01, 0.05],
     [0.9, 1.1]),
    ("brightness", "levels", "falls", "brightness", [0, -15, -30, -50, -70],
     [0, 0.01, 0.06, 0.16, 0.29], [98, 196]),
    ("haematoxylin", "×", "falls", "haematoxylin", [1.0, 1.15, 1.3, 1.6, 2.0],
     [0, 0.005, 0.02, 0.06, 0.13], [0.24, 0.61]),
]  # fmt: skip


def fabricate_robustness() -> dict:
    curves = []
    for name, unit, expect, fact, strengths, falls, train_range in CORRUPTIONS:
        medians = np.linspace(sum(train_range) / 2, train_range[0] * 0.7, len(strengths)) if fact \
            else [None] * len(strengths)  # fmt: skip
        curves.append(
            {
                "name": name,
                "unit": unit,
                "expect": expect,
                "fact": fact,
                "points": [
                    _point(strength, unit, fall, median, train_range)
                    for strength, fall, median in zip(strengths, falls, medians, strict=True)
                ],
                "train_range": train_range,
            }
        )
    return {
        "n": 1000,
        "metric": "roc_auc",
        "curves": curves,
        "worst": {"name": "brightness", "strength": -70, "label": "-70 levels",
                  "difference": score(-0.29, -0.32, -0.26)},
        "worst_in_train_range": {"name": "blur", "strength": 2, "label": "2 px",
                                 "difference": score(-0.11, -0.13, -0.09)},
        "worst_recall_in_train_range": None,
        "flat_ok": True,
        "findings": [],
    }  # fmt: skip


def _point(strength, unit, fall, median, train_range) -> dict:
    values = {"roc_auc": 0.952, "recall": 0.861, "specificity": 0.893, "accuracy": 0.877}
    return {
        "strength": strength,
        "label": f"{strength:g} {unit}".strip(),
        "metrics": {
            name: score(value - fall, value - fall - 0.012, value - fall + 0.012)
            for name, value in values.items()
        },
        "difference": {name: score(-fall, -fall - 0.012, -fall + 0.012) for name in values},
        "fact_median": None if median is None else float(median),
        "in_train_range": None if median is None else bool(train_range[0] <= median),
    }


def fabricate_shortcuts() -> dict:
    aucs = {"mean-colour": 0.84, "colour-statistics": 0.873, "blockiness": 0.64, "focus": 0.718,
            "neighbours": 0.944, "row-number": 0.481}  # fmt: skip
    return {
        "model_auc": score(0.952, 0.941, 0.961),
        "properties": [
            {
                "name": property_name,
                "auc": score(auc, auc - 0.015, auc + 0.015),
                "model_minus_it": score(0.952 - auc, 0.952 - auc - 0.02, 0.952 - auc + 0.02),
                "auc_at_like_values": score(0.93, 0.915, 0.944),
                "within_class": {
                    name: score(rho := (auc - 0.5) / part, rho - 0.06, rho + 0.06)
                    for name, part in (("normal", 2), ("tumour", 3))
                },
            }
            for property_name, auc in aucs.items()
        ],
        "findings": [],
    }  # fmt: skip


def _named_masks(facts):
    """Yield (name, group, kind, where, said, mask, is_one_slide) of each slice."""
    for name in NUMBERS:
        low, high = np.quantile(facts[name], [0.2, 0.8])
        words = EXTREMES.get(name, (f"lowest {name}", f"highest {name}"))
        for word, where, mask in (
            (words[0], f"{name} < {low:.4g}", facts[name] < low),
            (words[1], f"{name} >= {high:.4g}", facts[name] >= high),
        ):
            said = f"the {word} fifth: {where}"
            yield f"{word} fifth", name, "standard", where, said, mask, False
    for slide in np.unique(facts["slide"]):
        mask, where = facts["slide"] == slide, f"slide == {slide!r}"
        yield f"slide {slide}", "slide", "standard", where, f"slide {slide}", mask, True
    yield ("repeated", "repeats", "standard", "num_copies > 1", "the same patch is there again",
           facts["num_copies"] > 1, False)  # fmt: skip
    yield ("near-blank", "background", "standard", "white_share > 0.9", "almost all white",
           facts["white_share"] > 0.9, False)  # fmt: skip
    yield ("dim and blurred", "own", "own", "brightness < 130 and focus < 9000", "",
           (facts["brightness"] < 130) & (facts["focus"] < 9_000), False)  # fmt: skip
    yield ("never", "own", "own", "brightness < 0", "no patch is like that",
           facts["brightness"] < -1e9, False)  # fmt: skip


def _slice_row(predictions, threshold, slides, name, group, kind, where, said, mask, one_slide):
    positives = int(predictions.labels[mask].sum())
    n = int(mask.sum())
    too_small = ""
    if n < 30 or min(positives, n - positives) < 10:
        too_small = f"{n} patches, {positives} of them tumour; 30 and 10 of each class are needed"
    return {
        "name": name,
        "group": group,
        "kind": kind,
        "where": where,
        "said": said,
        "n": n,
        "positives": positives,
        "prevalence": positives / n if n else None,
        "num_slides": len(np.unique(slides[mask])),
        "too_small": too_small,
        "metrics": {} if too_small else _metrics(predictions, mask, threshold),
        "note": "intervals are of patches: the slice is one slide" if one_slide else "",
        "differences": {} if too_small else _slice_differences(predictions, mask, threshold),
        "standing": "not scored" if too_small else "not told apart",
        "examples": _examples(predictions, mask, threshold),
    }


def _metrics(predictions, mask, threshold):
    labels, probs = predictions.labels[mask], predictions.y_prob[mask]
    nll = predictions.nll[mask]
    values = compute_metrics(labels, probs, threshold, nll=nll)
    intervals = compute_intervals(labels, probs, threshold, 20, nll=nll)
    return {name: score(values[name], each.low, each.high) for name, each in intervals.items()}


def _slice_differences(predictions, mask, threshold):
    wrong, labels = _wrong(predictions, threshold), predictions.labels
    by_class = {}
    for label in (0, 1):
        inside, rest = wrong[mask & (labels == label)], wrong[~mask & (labels == label)]
        variance = inside.var() / len(inside) + rest.var() / len(rest)
        by_class[label] = (inside.mean() - rest.mean(), variance)
    weights = {label: (labels == label).mean() for label in (0, 1)}
    error = sum(weights[label] * by_class[label][0] for label in (0, 1))
    variance = sum(weights[label] ** 2 * by_class[label][1] for label in (0, 1))
    return {
        "error": _difference(error, variance),
        "recall": _difference(-by_class[1][0], by_class[1][1]),
        "specificity": _difference(-by_class[0][0], by_class[0][1]),
        "roc_auc": _difference(-error / 2, variance / 4),
    }


def _difference(value, variance):
    spread = math.sqrt(variance)
    p = math.erfc(abs(value) / spread / math.sqrt(2)) if spread else None
    return {**score(value, value - 1.96 * spread, value + 1.96 * spread), "p": p, "q": None}


def _false_discovery(p_values):
    """Return q values of Benjamini and Hochberg (JRSS B 57, 1995); None where p is."""
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    found, least = [None] * len(p_values), 1.0
    for rank in range(len(known), 0, -1):
        p, place = known[rank - 1]
        least = min(least, p * len(known) / rank)
        found[place] = least
    return found


def _examples(predictions, mask, threshold):
    rows = np.flatnonzero(mask)
    wrong = _wrong(predictions, threshold)[rows]
    order = np.lexsort((-predictions.nll[rows], ~wrong))
    return predictions.index[rows[order[:12]]].tolist()


def _wrong(predictions, threshold):
    return (predictions.y_prob >= threshold) != (predictions.labels == 1)


def _bump(size, width):
    """Return a map (size, size) that is largest in the middle and adds up to 1."""
    at = np.arange(size) - (size - 1) / 2
    values = np.exp(-(at[:, None] ** 2 + at**2) / (2 * width**2))
    return (values / values.sum()).tolist()
