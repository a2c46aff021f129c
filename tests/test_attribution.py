import json
import math

import numpy as np
import pytest
import torch
from attribution_models import (
    CENTRE,
    CORNER,
    EVERYWHERE,
    HandMade,
    SquareReader,
    counted_patches,
    reader_of,
)
from test_attribution_maps import log_odds, small_cnn
from tiny_pcam import make_patches

from ml_core.data.layout import split_paths
from ml_core.data.patch_file import PatchFile
from ml_core.evaluation.attribution.against_random import compare_maps
from ml_core.evaluation.attribution.centre import Box, centre_box, share_in_box, share_of_area
from ml_core.evaluation.attribution.grad_cam import activation_maps
from ml_core.evaluation.attribution.mean_score import mean_score
from ml_core.evaluation.attribution.occlusion import occlusion_maps
from ml_core.evaluation.attribution.random_weights import random_weights
from ml_core.evaluation.attribution.saliency import measure_saliency
from ml_core.evaluation.attribution.saliency_findings import saliency_findings
from ml_core.evaluation.keyed_order import keyed_order
from ml_core.evaluation.predictions import sigmoid
from ml_core.models import MLP, build_from_spec
from ml_core.models.build import model_spec
from ml_core.reproducibility import Stream, derive_seed

BOX = centre_box(96, 96)
LABELS = np.arange(24) % 2
PATCHES = make_patches(LABELS)


def measure(model, index=None, labels=LABELS, patches=PATCHES, **options):
    index = np.arange(len(labels)) if index is None else index
    options = {"device": "cpu", "seed": 3, "num_examples": 2, **options}
    return measure_saliency(model, reader_of(patches), index, labels[index], **options)


def share(saliency, method="occlusion"):
    return saliency.methods[method]["share_in_centre"]["value"]


def test_the_centre_of_a_pcam_patch_is_its_32_pixels_and_a_ninth_of_the_area():
    assert BOX == (32, 64, 32, 64)
    assert share_of_area(BOX, 96, 96) == pytest.approx(1 / 9)


@pytest.mark.parametrize("side", [0.0, 0.004, 1.0, 1.5])
def test_a_centre_without_inside_or_outside_is_refused(side):
    with pytest.raises(ValueError, match="inside and outside"):
        centre_box(96, 96, side)


@pytest.mark.parametrize("cells", [1, 5, 6, 7, 12, 96])
def test_an_even_map_of_any_resolution_has_the_area_in_the_centre(cells):
    assert share_in_box(np.ones((2, cells, cells)), BOX, 96, 96) == pytest.approx([1 / 9, 1 / 9])


def test_a_cell_on_the_border_of_the_centre_counts_by_the_area_inside():
    maps = np.zeros((1, 2, 2))
    maps[0, 0, 0] = -7.0  # the sign does not matter
    assert share_in_box(maps, BOX, 96, 96) == pytest.approx([(16 / 48) ** 2])


def test_rows_and_columns_of_a_box_are_not_mistaken_for_each_other():
    maps = np.zeros((1, 4, 2))
    maps[0, 0, 1] = 1.0
    assert share_in_box(maps, Box(0, 10, 20, 40), 40, 40) == pytest.approx([1.0])
    assert share_in_box(maps, Box(20, 40, 0, 10), 40, 40) == pytest.approx([0.0])


def test_a_map_of_zeros_has_no_share():
    assert np.isnan(share_in_box(np.zeros((1, 6, 6)), BOX, 96, 96)).all()


def test_a_model_of_the_centre_alone_has_all_its_occlusion_there():
    assert share(measure(SquareReader(CENTRE))) == pytest.approx(1, abs=1e-6)


def test_a_model_of_a_corner_has_no_occlusion_in_the_centre():
    assert share(measure(SquareReader(CORNER))) == pytest.approx(0, abs=1e-6)


def test_a_model_of_everything_has_the_area_in_the_centre_when_all_places_are_alike():
    noise = np.random.default_rng(0).integers(0, 256, (24, 96, 96, 3), dtype=np.uint8)
    saliency = measure(SquareReader(EVERYWHERE), patches=noise)
    score = saliency.methods["occlusion"]["share_in_centre"]
    assert score["low"] < 1 / 9 < score["high"]
    assert score["high"] - score["low"] < 0.05


def test_what_looks_at_the_centre_by_its_architecture_alone_is_not_credited_to_training():
    saliency = measure(SquareReader(CENTRE))
    occlusion = saliency.methods["occlusion"]
    assert occlusion["random_weights"]["value"] == pytest.approx(1, abs=1e-6)
    assert occlusion["difference"]["value"] == pytest.approx(0, abs=1e-6)
    assert [finding.id for finding in saliency.findings] == [
        "attribution-in-centre",
        "attribution-as-untrained",
    ]


def test_random_weights_are_those_of_a_new_model_and_leave_all_else_as_it_was():
    model = small_cnn().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    drawn = random_weights(model, seed=1, draw=2)
    assert (torch.get_rng_state() == state).all()
    assert all((value == before[name]).all() for name, value in model.state_dict().items())
    assert model.training and not drawn.training
    torch.manual_seed(derive_seed(1, Stream.INIT, 2))
    new = build_from_spec(model_spec(model)).state_dict()
    assert all((value == new[name]).all() for name, value in drawn.state_dict().items())


def test_each_draw_and_each_seed_has_other_weights():
    model = small_cnn()
    drawn = [random_weights(model, seed, draw).net[-1].weight for seed in (0, 1) for draw in (0, 1)]
    assert len({weight.sum().item() for weight in [*drawn, model.net[-1].weight]}) == 5


def test_a_layer_that_cannot_be_drawn_anew_is_named():
    model = SquareReader()
    model.scale = torch.nn.ParameterList([torch.zeros(1)])
    with pytest.raises(ValueError, match=r"scale \(ParameterList\) has weights of its own"):
        random_weights(model, seed=0)


def test_a_model_that_cannot_be_drawn_anew_says_why_it_has_no_shares_and_keeps_its_examples():
    model = SquareReader()
    model.scale = torch.nn.ParameterList([torch.zeros(1)])
    saliency = measure(model).to_dict()
    json.dumps(saliency, allow_nan=False)
    assert "scale (ParameterList)" in saliency["methods"]["occlusion"]["why_not"]
    assert "no convolution" in saliency["methods"]["grad_cam"]["why_not"]
    (finding,) = saliency["findings"]
    assert (finding["id"], finding["severity"]) == ("attribution-not-measured", "warning")
    assert "scale (ParameterList)" in finding["message"]
    assert "reset_parameters" in finding["action"]
    assert len(saliency["examples"]) == 2 and saliency["examples"][0]["occlusion"]


def test_the_result_depends_on_the_patches_and_the_seed_but_not_on_their_order():
    model, index = HandMade(), np.arange(12)
    straight = measure(model, index).to_dict()
    shuffled = measure(model, index[::-1]).to_dict()
    assert json.dumps(straight) == json.dumps(shuffled)
    assert json.dumps(straight) != json.dumps(measure(model, index, seed=4).to_dict())


def test_the_cost_is_the_number_of_patches_that_is_promised():
    done = []
    with counted_patches() as seen:
        measure(HandMade(), num_examples=2, progress=done.append)
    num_networks = 1 + 8  # each sees one patch more, in which its last map is found
    assert sum(seen) == 2 * 24 * (6**2 + 2) + 2 * 289 + num_networks
    assert sum(done) == 2 * 24


def test_examples_are_of_both_classes_in_turn_and_the_same_for_every_model():
    first, second = (measure(model, num_examples=5) for model in (HandMade(), SquareReader()))
    assert [each["y_true"] for each in first.examples] == [1, 0, 1, 0, 1]
    assert [e["index"] for e in first.examples] == [e["index"] for e in second.examples]
    assert all(each["y_true"] == LABELS[each["index"]] for each in first.examples)
    assert np.shape(first.examples[0]["grad_cam"]) == (6, 6)
    assert np.shape(first.examples[0]["occlusion"]) == (12, 12)
    assert second.examples[0]["grad_cam"] is None


def test_examples_show_the_place_that_decides():
    (example, *_) = measure(SquareReader(CORNER)).examples
    values = np.abs(example["occlusion"])
    assert values[:2, :2].sum() == pytest.approx(values.sum(), rel=1e-3)
    assert values.sum() > 0


def test_examples_have_the_maps_of_their_own_patch_and_of_the_class_it_is_called():
    model = small_cnn()
    with torch.no_grad():  # so that both classes are called
        model.net[-1].bias[1] -= float(np.median(log_odds(model, PATCHES[:6])))
    examples = measure(model, np.arange(6), num_examples=6).examples
    assert len({each["y_prob"] > 0.5 for each in examples}) == 2
    order = keyed_order(np.arange(6), 3, 1)
    for each in examples:
        row = np.array([each["index"]])
        position = np.flatnonzero(order == row)
        covers = [PATCHES[order[position - shift]] for shift in (1, 2)]
        occlusion = occlusion_maps(model, PATCHES[row], covers, grid=12)
        assert each["occlusion"] == pytest.approx(occlusion.maps[0], rel=1e-2, abs=1e-5)
        assert each["y_prob"] == pytest.approx(sigmoid(occlusion.logit)[0], abs=1e-6)
        cams = activation_maps(model, PATCHES[row], occlusion.logit > 0)
        assert each["grad_cam"] == pytest.approx(cams.grad_cam[0], rel=1e-2, abs=1e-5)
        assert each["hires_cam"] == pytest.approx(cams.hires_cam[0], rel=1e-2, abs=1e-5)


def test_training_that_turned_away_from_the_centre_is_reported():
    model = small_cnn()
    with torch.no_grad():  # the parts of the head that see the centre alone
        model.net[-1].weight.view(2, 3, -1)[:, :2] = 0
    saliency = measure(model)
    for method in ("occlusion", "hires_cam"):
        assert saliency.methods[method]["difference"]["high"] < 0
    assert "attribution-left-centre" in [finding.id for finding in saliency.findings]


@pytest.mark.parametrize("label", [0, 1])
def test_patches_of_one_class_have_no_share_of_the_other(label):
    of_one = np.flatnonzero(label == LABELS)
    saliency = measure(SquareReader(), of_one, num_examples=3)
    names = ["normal", "tumour"]
    shares = saliency.methods["occlusion"]["share_by_label"]
    assert shares[names[label]]["value"] == pytest.approx(1)
    assert shares[names[1 - label]] == {"value": None, "low": None, "high": None}
    assert len(saliency.examples) == 3


def test_a_model_without_convolutions_says_why_it_has_no_cam():
    saliency = measure(MLP((3, 96, 96), [4]))
    for method in ("grad_cam", "hires_cam"):
        assert saliency.methods[method] == {"why_not": saliency.methods["grad_cam"]["why_not"]}
        assert "no convolution" in saliency.methods[method]["why_not"]
    assert share(saliency) > 0


def test_one_patch_and_a_patch_given_twice_are_refused():
    with pytest.raises(ValueError, match="at least two"):
        measure(SquareReader(), np.array([4]))
    with pytest.raises(ValueError, match="1 patches are there more than once"):
        measure(SquareReader(), np.array([4, 5, 4]))


def test_two_patches_are_explained_without_an_interval_of_the_draws_being_made_up():
    saliency = measure(small_cnn(), np.array([4, 5]), num_draws=1)
    score = saliency.methods["occlusion"]["random_weights"]
    assert score["value"] is not None
    assert score["low"] is None and score["high"] is None
    json.dumps(saliency.to_dict(), allow_nan=False)


def test_a_mean_has_students_interval_and_leaves_out_what_is_not_known():
    values = [0.1, 0.3, np.nan, 0.5]
    score = mean_score(values, (-1, 1))
    assert score["value"] == pytest.approx(0.3)
    reach = 4.302653 * 0.2 / math.sqrt(3)  # the table's t for 2 degrees and 95 %
    assert score["low"] == pytest.approx(0.3 - reach, abs=1e-6)
    assert score["high"] == pytest.approx(0.3 + reach, abs=1e-6)
    assert mean_score([np.nan], (0, 1)) == {"value": None, "low": None, "high": None}


def test_no_interval_leaves_what_a_share_or_a_difference_can_be():
    trained, random = maps_with_share([0.9, 1.0, 0.6, 1.0]), maps_with_share([0.3, 0.0, 0.0, 0.0])
    compared = compare(trained, random, [0, 1, 2, 3])
    assert compared["share_in_centre"]["high"] == 1  # Student's would reach to 1.18
    assert 0.5 < compared["share_in_centre"]["low"] < 0.6
    assert compared["share_by_label"]["normal"]["high"] == 1
    assert compared["random_weights"]["low"] == 0
    opposite = compare(maps_with_share([0.0, 0.3]), maps_with_share([1.0, 1.0]), [0, 1])
    assert opposite["difference"]["low"] == -1 and opposite["difference"]["high"] == 1
    assert opposite["difference"]["value"] == pytest.approx(-0.85)


def maps_with_share(shares):
    """Return maps (N, 3, 3) with the given share in the middle cell, the centre."""
    maps = np.repeat((1 - np.asarray(shares))[:, None, None] / 8, 9, axis=1).reshape(-1, 3, 3)
    maps[:, 1, 1] = shares
    return maps


def compare(trained, random, draw, labels=None, level=0.95):
    labels = np.arange(len(trained)) % 2 if labels is None else labels
    return compare_maps(trained, random, np.asarray(draw), labels, BOX, (96, 96), level)


def test_the_interval_of_random_weights_knows_that_draws_differ():
    draw = np.repeat(np.arange(4), 25)
    of_draw = np.array([0.1, 0.2, 0.3, 0.4])[draw]  # no spread at all within a draw
    compared = compare(maps_with_share(np.full(100, 0.5)), maps_with_share(of_draw), draw)
    expected = mean_score([0.1, 0.2, 0.3, 0.4], (-1, 1))
    for end in ("value", "low", "high"):
        assert compared["random_weights"][end] == pytest.approx(expected[end])
        other = {"value": "value", "low": "high", "high": "low"}[end]
        assert compared["difference"][end] == pytest.approx(0.5 - expected[other])
    assert compared["share_in_centre"]["low"] == pytest.approx(0.5)
    assert compared["num_draws"] == 4


def test_the_interval_of_the_difference_holds_nothing_in_95_of_100_when_nothing_differs():
    generator = np.random.default_rng(0)
    draw = np.arange(64) % 8
    missed = 0
    for _ in range(400):
        difficulty = generator.normal(0.4, 0.05, 64)  # of a patch, for every network
        of_draw = generator.normal(0, 0.04, 8)[draw]  # of random weights, for every patch
        noise = generator.normal(0, 0.03, (2, 64))
        trained, random = difficulty + noise[0], difficulty + of_draw + noise[1]
        score = compare(maps_with_share(trained), maps_with_share(random), draw)["difference"]
        missed += not score["low"] <= 0 <= score["high"]
    assert 8 <= missed <= 36  # 20 are expected; 3.5 standard errors of a count to both sides


def test_the_mean_map_sums_to_one_and_has_the_share_in_its_centre():
    generator = np.random.default_rng(2)
    trained, random = generator.normal(size=(2, 30, 6, 6))
    compared = compare(trained, random, np.arange(30) % 3)
    mean_map = np.array(compared["mean_map"])
    assert mean_map.sum() == pytest.approx(1)
    assert mean_map[2:4, 2:4].sum() == pytest.approx(compared["share_in_centre"]["value"])


def test_empty_maps_are_counted_and_left_out_of_the_means():
    trained = maps_with_share([0.2, 0.4, 0.9])
    trained[2] = 0
    compared = compare(trained, maps_with_share([0.1, 0.1, 0.1]), [0, 0, 0])
    assert compared["num_empty"] == 1
    assert compared["share_in_centre"]["value"] == pytest.approx(0.3)
    assert compared["difference"]["value"] == pytest.approx(0.2)


def test_maps_that_are_empty_throughout_leave_nothing_to_say():
    empty = np.zeros((4, 6, 6))
    compared = compare(empty, empty, [0, 0, 1, 1])
    assert compared["share_in_centre"] == {"value": None, "low": None, "high": None}
    assert compared["mean_map"] is None
    assert compared["correlation_with_random"] is None
    json.dumps(compared, allow_nan=False)


def test_the_correlation_with_random_weights_is_spearmans_of_the_sizes():
    generator = np.random.default_rng(3)
    maps = generator.normal(size=(5, 6, 6))
    draw = np.zeros(5, int)
    assert compare(maps, maps**3, draw)["correlation_with_random"] == pytest.approx(1)
    assert compare(maps, -maps, draw)["correlation_with_random"] == pytest.approx(1)
    assert compare(maps, 1 / maps, draw)["correlation_with_random"] == pytest.approx(-1)


def methods_with(share, random, difference, num_empty=0):
    ends = ("value", "low", "high")
    scores = [dict(zip(ends, each, strict=True)) for each in (share, random, difference)]
    names = ("share_in_centre", "random_weights", "difference")
    occlusion = dict(zip(names, scores, strict=True))
    return {"occlusion": occlusion, "grad_cam": {"num_empty": num_empty}}


def test_findings_say_what_the_figures_say_and_nothing_where_there_are_none():
    away = methods_with((0.1, 0.08, 0.12), (0.3, 0.2, 0.4), (-0.2, -0.3, -0.1), num_empty=3)
    found = {finding.id: finding for finding in saliency_findings(away, 1 / 9)}
    assert list(found) == ["attribution-not-in-centre", "attribution-left-centre", "grad-cam-empty"]
    assert found["attribution-not-in-centre"].severity == "warning"
    assert "10.0 % (8.0 % to 12.0 %)" in found["attribution-not-in-centre"].message
    assert "30.0 % (20.0 % to 40.0 %)" in found["attribution-left-centre"].message
    assert found["grad-cam-empty"].count == 3

    towards = methods_with((0.5, 0.4, 0.6), (0.3, 0.2, 0.4), (0.2, 0.1, 0.3))
    ids = [finding.id for finding in saliency_findings(towards, 1 / 9)]
    assert ids == ["attribution-in-centre", "attribution-moved-to-centre"]
    unclear = methods_with((0.3, 0.2, 0.4), (0.29, 0.2, 0.4), (0.01, -0.1, 0.12))
    ids = [finding.id for finding in saliency_findings(unclear, 1 / 9)]
    assert ids == ["attribution-in-centre", "attribution-as-untrained"]
    nothing = methods_with(*[(None, None, None)] * 3)
    assert saliency_findings(nothing, 1 / 9) == []


def test_an_untrained_cnn_already_looks_at_the_centre_of_real_patches(real_pcam):
    paths = split_paths(real_pcam, "valid")
    labels = np.zeros(1500, np.int64)
    saliency = measure_saliency(
        small_cnn(), PatchFile(paths.x).read, np.arange(12), labels[:12],
        device="cpu", seed=0, num_examples=0,
    )  # fmt: skip
    occlusion = saliency.methods["occlusion"]
    assert occlusion["random_weights"]["low"] > 1 / 9
    assert occlusion["share_in_centre"]["low"] > 1 / 9
    # Grad-CAM does not know that the head pools the centre apart; HiResCAM does.
    assert saliency.methods["hires_cam"]["random_weights"]["low"] > 0.5
    assert saliency.methods["grad_cam"]["random_weights"]["high"] < 0.4
