"""Each exact operation: as accurate as it says, and one result whatever the order."""

import pytest
import torch
import torch.nn.functional as F

from ml_core.errors import ConfigError
from ml_core.numerics.arithmetic import arithmetic
from ml_core.numerics.exact.rounding import MAX_TERMS, leading_power, multiply, round_below
from ml_core.numerics.exact.summation import sum_last, sum_over

CONVOLUTIONS = {
    "3x3": ((4, 8, 12, 12), (16, 8, 3, 3), {"padding": 1}),
    "strided": ((4, 8, 12, 12), (16, 8, 3, 3), {"stride": 2, "padding": 1}),
    "strided, odd size": ((3, 5, 13, 11), (7, 5, 3, 3), {"stride": 2, "padding": 1}),
    "pixels beyond the last window": ((2, 3, 12, 12), (4, 3, 5, 5), {"stride": 4}),
    "1x1": ((4, 8, 6, 6), (16, 8, 1, 1), {}),
    "1x1, strided: pixels without a tap": ((2, 4, 7, 7), (3, 4, 1, 1), {"stride": 2}),
    "5x5, stride 3": ((2, 3, 17, 16), (4, 3, 5, 5), {"stride": 3, "padding": 2}),
    "2x2": ((2, 3, 8, 8), (4, 3, 2, 2), {"stride": 2}),
    "oblong": ((2, 3, 9, 8), (4, 3, 3, 1), {"stride": (2, 1), "padding": (1, 0)}),
    "padding wider than the kernel needs": ((2, 3, 5, 5), (4, 3, 3, 3), {"padding": 3}),
    "same": ((2, 3, 8, 8), (4, 3, 3, 3), {"padding": "same"}),
    "more than 2,048 terms": ((2, 256, 4, 4), (8, 256, 3, 3), {"padding": 1}),
    "more than 2,048 windows": ((2, 3, 50, 50), (4, 3, 3, 3), {"padding": 1}),
}


def drawn(*shape, seed=0, spread=0.0):
    """Normal numbers; `spread` makes patches of different magnitudes."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator)
    factor = torch.randn(shape[0], *[1] * (len(shape) - 1), generator=generator) * spread
    return x * factor.exp()


def with_gradients(function, inputs, precision, dtype=torch.float32):
    """The result of `function` and the gradients of its inputs, from a fixed outer gradient."""
    leaves = [x.to(dtype).requires_grad_() for x in inputs]
    with arithmetic(precision, "cpu"):
        result = function(*leaves)
    outer = drawn(*result.shape, seed=9).to(dtype) if result.ndim else torch.ones((), dtype=dtype)
    return [result.detach(), *torch.autograd.grad(result, leaves, outer)]


def relative_errors(function, *inputs):
    exact = with_gradients(function, inputs, "exact")
    truth = with_gradients(function, inputs, "fp32", torch.float64)
    assert all(x.dtype == torch.float32 for x in exact)
    assert [x.shape for x in exact] == [x.shape for x in truth]
    return [float((x - y).norm() / y.norm()) for x, y in zip(exact, truth, strict=True)]


def same_bits(a, b):
    return a.shape == b.shape and torch.equal(a.view(torch.int32), b.view(torch.int32))


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_a_convolution_and_its_gradients_are_accurate_to_22_bits(case):
    shape, kernel, options = CONVOLUTIONS[case]
    inputs = drawn(*shape, spread=1.0), drawn(*kernel, seed=1), drawn(kernel[0], seed=2)
    errors = relative_errors(lambda x, w, b: F.conv2d(x, w, b, **options), *inputs)
    assert max(errors) < 3e-6


@pytest.mark.parametrize(
    "function, shapes",
    [
        (F.linear, [(16, 5000), (12, 5000), (12,)]),
        (F.linear, [(4, 3, 20), (6, 20)]),
        (torch.matmul, [(3, 4, 5, 6), (4, 6, 7)]),
        (torch.matmul, [(5,), (5, 3)]),
        (lambda a, b: a @ b, [(2, 6, 5), (5,)]),
        (torch.bmm, [(3, 4, 5), (3, 5, 2)]),
    ],
)
def test_a_product_and_its_gradients_are_accurate_to_22_bits(function, shapes):
    assert max(relative_errors(function, *(drawn(*s, seed=i) for i, s in enumerate(shapes)))) < 3e-6


@pytest.mark.parametrize(
    "function, shapes",
    [
        (lambda x, w, b: F.group_norm(x, 2, w, b), [(3, 8, 5, 7), (8,), (8,)]),
        (lambda x: F.group_norm(x, 1), [(3, 4, 96, 96)]),
        (lambda x, w, b: F.layer_norm(x, (6, 7), w, b), [(5, 6, 7), (6, 7), (6, 7)]),
        (lambda x: F.avg_pool2d(x, 2, ceil_mode=True), [(2, 3, 7, 9)]),
        (lambda x: F.avg_pool2d(x, 3, 2), [(2, 3, 8, 9)]),
        (lambda x: F.avg_pool2d(x, (2, 3), (3, 1), ceil_mode=True), [(2, 3, 8, 9)]),
        (lambda x: F.adaptive_avg_pool2d(x, 1), [(2, 3, 8, 9)]),
        (lambda x: x.sum(), [(7, 11)]),
        (lambda x: x.sum((0, -1), keepdim=True), [(7, 11, 5)]),
        (lambda x: torch.mean(x, dim=1), [(7, 11, 5)]),
        (lambda x, scale: x * scale / 3, [(2, 5, 4, 4), (5, 1, 1)]),
        (lambda x, shift: shift.expand(2, -1) - x, [(2, 5), (1, 5)]),
        (lambda x, y: 2 / (x.abs() + 1) / (y.abs() + 1), [(4, 5), (5,)]),
        (lambda x: x.amax(dim=(2, 3)), [(2, 3, 5, 5)]),
    ],
)
def test_norms_pools_sums_and_elementwise_operations_are_as_accurate_as_float32(function, shapes):
    assert max(relative_errors(function, *(drawn(*s, seed=i) for i, s in enumerate(shapes)))) < 8e-7


def test_average_pooling_gives_the_shape_and_counts_of_torch_for_every_small_case():
    for size in range(1, 9):
        x = drawn(1, 1, size, size)
        for kernel in range(1, min(size, 4) + 1):
            for stride in range(1, 5):
                for ceil in (False, True):
                    with arithmetic("exact", "cpu"):
                        y = F.avg_pool2d(x, kernel, stride, ceil_mode=ceil)
                    torch.testing.assert_close(y, F.avg_pool2d(x, kernel, stride, ceil_mode=ceil))


def test_sums_of_rounded_products_are_the_integer_sums_up_to_the_largest():
    a = torch.full((1, MAX_TERMS), 2.0 - 2**-23)  # rounds up, to the largest factor there is
    power = leading_power(a, 1)
    factor = round_below(a, power)
    assert float(factor[0, 0]) == 2.0 and float(power) == 1.0
    whole = (factor.double() * 2**20).long()
    total = multiply(factor.double() * 2**20, factor.double().t() * 2**20)
    assert int(total) == int(whole @ whole.t()) == 2**53


def test_rounding_keeps_20_bits_after_the_leading_one_and_rounds_to_nearest():
    x = drawn(1, 10_000)
    power = leading_power(x, 1)
    rounded = round_below(x, power)
    unit = float(power) * 2**-20
    assert torch.equal(rounded, ((x.double() / unit).round() * unit).float())
    assert float(power) <= float(x.abs().max()) < 2 * float(power)


def test_a_sum_is_added_by_halves():
    x = torch.tensor([1.0, 2.0**-24, 2.0**-24, -1.0, 2.0**-24])
    # (1 + 2^-24) is 1, and so is 1 + the odd one out; then 2^-24 - 1 is exact
    assert float(sum_last(x)) == float((torch.tensor(1.0)) + (x[1] + x[3]))
    assert sum_last(torch.empty(3, 0)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("threads", [2, 4])
def test_the_number_of_threads_changes_no_bit_of_an_exact_gradient(threads):
    x, w = drawn(16, 32, 24, 24), drawn(32, 32, 3, 3, seed=1)

    def results(num, precision):
        torch.set_num_threads(num)
        return with_gradients(lambda x, w: F.conv2d(x, w, padding=1), (x, w), precision)

    before = torch.get_num_threads()
    try:
        one, many = results(1, "exact"), results(threads, "exact")
        native_one, native_many = results(1, "fp32"), results(threads, "fp32")
    finally:
        torch.set_num_threads(before)
    assert all(map(same_bits, one, many))
    assert not same_bits(native_one[2], native_many[2]), "oneDNN splits the sum by its threads"


def test_the_memory_format_changes_no_bit():
    def network(x, w, gain):
        y = F.relu(F.group_norm(F.conv2d(x, w, stride=2, padding=1), 2, gain, gain))
        return F.avg_pool2d(y, 2, ceil_mode=True).mean(dim=(2, 3))

    x, w, gain = drawn(4, 8, 13, 13), drawn(16, 8, 3, 3, seed=1), drawn(16, seed=2)
    plain = with_gradients(network, (x, w, gain), "exact")
    pixels = [t.to(memory_format=torch.channels_last) for t in (x, w)]
    assert all(map(same_bits, plain, with_gradients(network, (*pixels, gain), "exact")))


def test_a_patch_does_not_depend_on_the_others_even_where_they_are_nan_or_huge():
    x, w = drawn(5, 8, 12, 12), drawn(16, 8, 3, 3, seed=1)
    others = x.clone()
    others[0], others[2], others[4] = float("nan"), 1e30, 0.0
    with arithmetic("exact", "cpu"):
        alone = [F.group_norm(F.conv2d(x[i : i + 1], w, padding=1), 4) for i in (1, 3)]
        among = F.group_norm(F.conv2d(others, w, padding=1), 4)
    assert same_bits(among[1:2], alone[0]) and same_bits(among[3:4], alone[1])
    assert among[0].isnan().all() and not among[1:].isnan().any()


def test_a_row_does_not_depend_on_how_many_rows_are_multiplied_with_it():
    # more rows make narrower blocks of columns; the columns here differ in magnitude
    x, w = drawn(4096, 64), drawn(128, 64, seed=1, spread=6.0)
    with arithmetic("exact", "cpu"):
        assert same_bits(F.linear(x, w)[:1], F.linear(x[:1], w))


def test_patches_of_any_magnitude_in_any_order_have_one_weight_gradient():
    # as many windows as are added up at once: their sum is exact
    x, w = drawn(32, 8, 8, 8, spread=3.0), drawn(16, 8, 3, 3, seed=1).requires_grad_()
    outer = drawn(32, 16, 8, 8, seed=2, spread=3.0)
    gradients = []
    for order in (torch.arange(32), torch.arange(31, -1, -1)):
        with arithmetic("exact", "cpu"):
            y = F.conv2d(x[order], w, padding=1)
        gradients += torch.autograd.grad(y, [w], outer[order])
    assert same_bits(*gradients)


def test_a_sum_longer_than_2048_is_added_in_pieces_that_are_exact():
    a = torch.full((1, 3 * MAX_TERMS), 2.0**21 - 1, dtype=torch.float64)
    piece = (2**21 - 1) ** 2 * MAX_TERMS  # below 2^53; twice and thrice that is rounded
    total = multiply(a, a.t())
    assert int(total) == int(float(piece + piece) + float(piece))


def test_the_gradient_of_what_is_broadcast_is_added_by_halves():
    x, scale = drawn(16, 4, 30, 30), drawn(4, 1, 1, seed=1)
    outer = drawn(16, 4, 30, 30, seed=9)
    _, _, gradient = with_gradients(lambda x, scale: x * scale, (x, scale), "exact")
    assert same_bits(gradient, sum_over(outer * x, (0, 2, 3))[0])
    _, native = with_gradients(lambda scale: x * scale, (scale,), "fp32")
    assert not same_bits(gradient, native)


def test_a_sum_of_zeros_is_plus_zero_even_where_a_library_says_minus(monkeypatch):
    product = torch.Tensor.__matmul__
    monkeypatch.setattr(
        torch.Tensor, "__matmul__", lambda a, b: product(a, b).masked_fill(product(a, b) == 0, -0.0)
    )
    x, w = torch.zeros(1, 4, 5, 5), -torch.ones(2, 4, 3, 3)
    with arithmetic("exact", "cpu"):
        results = [F.conv2d(x, w, padding=1), F.linear(x.flatten(1), -torch.ones(3, 100))]
    assert all(not y.view(torch.int32).any() for y in results)


def test_a_patch_of_zeros_or_of_tiny_numbers_leaves_the_weight_gradient_accurate():
    x = drawn(4, 3, 8, 8)
    x[1], x[2] = 0.0, x[2] * 1e-25
    errors = relative_errors(lambda x, w: F.conv2d(x, w, padding=1), x, drawn(5, 3, 3, 3, seed=1))
    assert max(errors) < 3e-6


def test_an_infinite_gradient_makes_the_weight_gradient_not_finite():
    x, w = drawn(2, 3, 8, 8), drawn(5, 3, 3, 3, seed=1).requires_grad_()
    with arithmetic("exact", "cpu"):
        y = F.conv2d(x, w)
    outer = torch.zeros_like(y)
    outer[0, 0, 0, 0] = float("inf")
    y.backward(outer)
    assert not w.grad.isfinite().any()


@pytest.mark.parametrize(
    "call, named",
    [
        (lambda x, w: F.conv2d(x, w, dilation=2), "dilation 2"),
        (lambda x, w: F.conv2d(x, w[:, :1], groups=4), "groups 4"),
        (lambda x, w: F.conv2d(x, w[..., :2, :2], padding="same"), "'same'"),
        (lambda x, w: F.avg_pool2d(x, 2, padding=1), "padding 1"),
        (lambda x, w: F.adaptive_avg_pool2d(x, 2), "adaptive_avg_pool2d to 2"),
        (lambda x, w: F.conv2d(x.double(), w.double()), "float32 only"),
    ],
)
def test_what_has_no_exact_form_is_refused_by_name(call, named):
    x, w = drawn(2, 4, 6, 6), drawn(8, 4, 3, 3)
    with arithmetic("exact", "cpu"), pytest.raises(ConfigError, match=named):
        call(x, w)


@pytest.mark.parametrize(
    "multiply_them",
    [lambda x, w: torch.matmul(w, x.t()).t(), lambda x, w: w.mm(x.t()).t(), lambda x, w: x @ w.t()],
)
def test_a_patch_in_rows_or_columns_does_not_depend_on_the_others(multiply_them):
    x, w = drawn(16, 50, spread=6.0), drawn(7, 50, seed=1)
    with arithmetic("exact", "cpu"):
        alone = torch.cat([multiply_them(x[i : i + 1], w) for i in range(16)])
        assert same_bits(multiply_them(x, w).contiguous(), alone)


def test_a_class_to_be_ignored_is_refused():
    logits = drawn(4, 2)
    with arithmetic("exact", "cpu"), pytest.raises(ConfigError, match="ignore_index=0"):
        F.cross_entropy(logits, torch.tensor([0, 1, 0, 1]), ignore_index=0)
