import numpy as np
import pytest
import torch
from attribution_models import CENTRE, HandMade, SquareReader
from tiny_pcam import make_patches
from torch import nn

from ml_core.evaluation.attribution.grad_cam import activation_maps
from ml_core.evaluation.attribution.last_map import NoLastMap, find_last_map
from ml_core.evaluation.attribution.occlusion import occlusion_maps
from ml_core.evaluation.keyed_order import keyed_order
from ml_core.models import CNN, MLP

PATCHES = make_patches([0, 1, 0, 1, 0, 1])
IMAGES = torch.from_numpy(PATCHES).permute(0, 3, 1, 2)
TUMOUR = np.ones(len(PATCHES), bool)


def small_cnn(**options):
    torch.manual_seed(0)
    return CNN(widths=[8, 16], **options).eval()


def log_odds(model, patches=PATCHES):
    with torch.no_grad():
        logits = model(torch.from_numpy(np.ascontiguousarray(patches)).permute(0, 3, 1, 2))
    return (logits[:, 1] - logits[:, 0]).double().numpy()


def test_grad_cam_of_a_hand_made_convolution_is_the_map_worked_out_by_hand():
    windows = PATCHES.astype(float).reshape(6, 6, 16, 6, 16, 3).mean(axis=(2, 4)) / 255
    red, blue = windows[..., 0], windows[..., 2]
    # log-odds of tumour: (3 - 1) red + (0.5 + 2) blue, pooled over 36 windows
    by_hand = (2 * red + 2.5 * blue) / 36
    tumour = activation_maps(HandMade(), PATCHES, TUMOUR)
    assert tumour.layer == "window"
    assert tumour.grad_cam == pytest.approx(by_hand, rel=1e-5)
    assert tumour.hires_cam == pytest.approx(by_hand, rel=1e-5)
    normal = activation_maps(HandMade(), PATCHES, ~TUMOUR)
    assert (normal.grad_cam == 0).all()
    assert normal.hires_cam == pytest.approx(-by_hand, rel=1e-5)


def test_each_patch_is_explained_for_its_own_class():
    model = small_cnn()
    called = np.array([True, False, True, True, False, False])
    mixed = activation_maps(model, PATCHES, called)
    tumour, normal = (activation_maps(model, PATCHES, each) for each in (TUMOUR, ~TUMOUR))
    assert (mixed.grad_cam[called] == tumour.grad_cam[called]).all()
    assert (mixed.grad_cam[~called] == normal.grad_cam[~called]).all()
    assert (mixed.grad_cam >= 0).all() and mixed.grad_cam.max() > 0


def test_hires_cam_adds_up_to_the_log_odds_less_the_bias():
    model = small_cnn()
    bias = float((model.net[-1].bias[1] - model.net[-1].bias[0]).detach())
    maps = activation_maps(model, PATCHES, TUMOUR).hires_cam
    assert maps.sum(axis=(1, 2)) + bias == pytest.approx(log_odds(model), rel=1e-4)


def test_grad_cam_does_not_see_what_the_head_does_by_position_but_hires_cam_does():
    of_whole, of_centre = small_cnn(), small_cnn()
    with torch.no_grad():
        for model, part in ((of_whole, 2), (of_centre, 1)):  # the parts of CentreAndWholePool
            weight = model.net[-1].weight.view(2, 3, -1)
            kept = weight[:, 0].clone()
            weight.zero_()
            weight[:, part] = kept
    whole, centre = (activation_maps(model, PATCHES, TUMOUR) for model in (of_whole, of_centre))
    assert whole.grad_cam == pytest.approx(centre.grad_cam, abs=1e-5)
    third = slice(4, 8)
    assert centre.hires_cam[:, third, third] != pytest.approx(0)
    assert np.delete(centre.hires_cam, np.r_[third], axis=1) == pytest.approx(0)
    assert np.abs(np.delete(whole.hires_cam, np.r_[third], axis=1)).max() > 0


def test_maps_do_not_depend_on_the_size_of_the_batches():
    model = small_cnn()
    called = np.arange(len(PATCHES)) % 3 == 0
    together = activation_maps(model, PATCHES, called)
    one_by_one = activation_maps(model, PATCHES, called, batch_size=1)
    assert together.grad_cam == pytest.approx(one_by_one.grad_cam, abs=1e-5)
    covers = [PATCHES[::-1]]
    few = occlusion_maps(model, PATCHES, covers, batch_size=7)
    assert few.maps == pytest.approx(occlusion_maps(model, PATCHES, covers).maps, abs=1e-5)


def test_the_last_map_is_that_of_the_last_block_and_not_of_its_shortcut():
    model = small_cnn()
    convolutions = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    assert convolutions[-1] == "net.4.shortcut.1"
    assert find_last_map(model, IMAGES[:1]) == "net.4"


class TwiceRun(HandMade):
    def forward(self, images):
        return super().forward(images) + super().forward(images.flip(3))


class DeafHead(HandMade):
    def forward(self, images):
        self.window(images.float())
        return self.head(images.float().mean(dim=(2, 3))[:, :2])


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (MLP((3, 96, 96), [4]), "no convolution"),
        (SquareReader(), "no convolution"),
        (TwiceRun(), "2 times for a patch"),
        (DeafHead(), "do not depend on window"),
        (DeafHead().requires_grad_(False), "do not depend on window"),
    ],
)
def test_a_model_without_a_last_map_says_why(model, why):
    with pytest.raises(NoLastMap, match=why):
        activation_maps(model, PATCHES, TUMOUR)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_pooled_map_of_one_position_is_not_the_last_map():
    assert find_last_map(HandMade(), IMAGES[:1]) == "window"


class InPlace(HandMade):
    def forward(self, images):
        seen = self.window(images.float() / 255)
        return self.head(self.pool(torch.relu_(seen)).flatten(1))


def test_a_layer_that_writes_in_place_after_the_map_is_no_obstacle():
    in_place = activation_maps(InPlace(), PATCHES, TUMOUR).grad_cam
    assert in_place == pytest.approx(activation_maps(HandMade(), PATCHES, TUMOUR).grad_cam)


def test_averaged_orientations_are_switched_off_for_cams_and_said_but_not_for_occlusion():
    averaging, single = small_cnn(average_orientations=True), small_cnn()
    cams = [activation_maps(model, PATCHES, TUMOUR) for model in (averaging, single)]
    assert (cams[0].grad_cam == cams[1].grad_cam).all()
    assert [each.averages for each in cams] == [True, False]
    assert averaging.average_orientations
    occlusion = occlusion_maps(averaging, PATCHES, [PATCHES[::-1]])
    assert occlusion.logit == pytest.approx(log_odds(averaging), abs=1e-5)
    assert occlusion.logit != pytest.approx(log_odds(single), abs=1e-5)


def test_occlusion_is_the_loss_of_the_class_called_worked_out_by_hand():
    model = SquareReader(CENTRE)
    black = np.zeros_like(PATCHES)
    found = occlusion_maps(model, PATCHES, [black], grid=3)
    expected = np.zeros((6, 3, 3))
    # a black centre has the log-odds 5, so a tumour gains and a normal patch loses
    expected[:, 1, 1] = np.where(found.logit > 0, 1, -1) * (log_odds(model) - 5)
    assert found.maps == pytest.approx(expected, abs=1e-5)
    assert (found.logit > 0).tolist() == [False, True] * 3


def test_covers_lie_at_the_same_place_and_are_averaged():
    model = SquareReader((slice(16, 32), slice(48, 64)))
    covers = [PATCHES[::-1], np.roll(PATCHES, 1, axis=0)]
    both = occlusion_maps(model, PATCHES, covers).maps
    each = [occlusion_maps(model, PATCHES, [cover]).maps for cover in covers]
    assert both == pytest.approx((each[0] + each[1]) / 2, abs=1e-6)
    sign = np.where(log_odds(model) > 0, 1, -1)
    change = sign * (log_odds(model) - log_odds(model, covers[0]))
    assert each[0][:, 1, 3] == pytest.approx(change, abs=1e-5)


def test_a_patch_covered_by_itself_loses_nothing():
    maps = occlusion_maps(small_cnn(), PATCHES, [PATCHES]).maps
    assert maps == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("grid", [1, 5, 7, 12])
def test_windows_cover_every_pixel_once_whatever_the_grid(grid):
    whole = SquareReader((slice(None), slice(None)))
    patches = PATCHES[:1]
    white = np.full_like(patches, 255)
    lost = occlusion_maps(whole, patches, [white], grid=grid).maps.sum()
    sign = np.where(log_odds(whole, patches) > 0, 1, -1)
    assert lost == pytest.approx((sign * (log_odds(whole, patches) + 5))[0], abs=0.02)


def test_a_grid_finer_than_the_pixels_is_refused():
    with pytest.raises(ValueError, match="no 97 windows"):
        occlusion_maps(SquareReader(), PATCHES, [PATCHES], grid=97)


@pytest.mark.parametrize("explain", ["cam", "occlusion"])
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_afterwards_as_it_was(explain, fails):
    model = small_cnn(average_orientations=True).train()
    model.net[1].eval()  # one layer frozen by hand
    model.net[0].weight.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    weights = [parameter.clone() for parameter in model.parameters()]
    patches = PATCHES[:, :48] if fails else PATCHES

    def look():
        if explain == "cam":
            activation_maps(model, patches, TUMOUR)
        else:
            occlusion_maps(model, patches, [patches])

    if fails:
        with pytest.raises(ValueError, match="takes patches of shape"):
            look()
    else:
        look()
    assert [module.training for module in model.modules()] == modes
    assert model.average_orientations
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [p.requires_grad for p in model.parameters()][:2] == [False, True]
    assert all((p == w).all() for p, w in zip(model.parameters(), weights, strict=True))
    assert not any(module._forward_hooks for module in model.modules())


def test_frozen_weights_and_a_caller_without_gradients_change_no_map():
    model = small_cnn()
    expected = activation_maps(model, PATCHES, TUMOUR).grad_cam
    model.requires_grad_(False)
    assert (activation_maps(model, PATCHES, TUMOUR).grad_cam == expected).all()
    with torch.inference_mode():
        assert (activation_maps(model, PATCHES, TUMOUR).grad_cam == expected).all()
    with torch.no_grad():
        assert (activation_maps(model, PATCHES, TUMOUR).grad_cam == expected).all()


def test_the_keyed_order_depends_on_the_seed_the_purpose_and_the_patches_alone():
    index = np.array([5, 900, 2, 77, 31, 8])
    ordered = index[keyed_order(index, 0, 1)]
    shuffled = index[::-1]
    assert (shuffled[keyed_order(shuffled, 0, 1)] == ordered).all()
    others = [index[keyed_order(index, *key)].tolist() for key in ((1, 1), (0, 2))]
    assert ordered.tolist() not in others
