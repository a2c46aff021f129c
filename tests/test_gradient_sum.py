"""The gradient of a step: the same bits however its micro-batches lie on ranks and in time."""

import itertools
import math

import pytest
import torch
from ranked_processes import run_ranks
from torch import nn

from ml_core.distributed import ALONE
from ml_core.errors import ConfigError, TrainingError
from ml_core.numerics.fixed_point import LARGEST, MAX_TERMS, on_grid
from ml_core.solver.gradient_sum import FixedPointSum, PlainSum, Tallies

NUM_PATCHES, MICRO_BATCH = 44, 8  # six micro-batches, the last of four patches


@pytest.fixture(autouse=True)
def one_thread():
    """Compute as the ranks do: the number of threads is part of the recipe."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build_net(seed=0):
    """Return a net with large and small parameters, in both memory formats, and one unused."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.GroupNorm(4, 32), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.Flatten(),
        nn.Linear(32 * 36, 2),
    )  # fmt: skip
    net.register_parameter("unused", nn.Parameter(torch.ones(3)))
    return net.to(memory_format=torch.channels_last)


def micro_batches(seed=0):
    """Return (images, labels) of each micro-batch."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(NUM_PATCHES, 3, 10, 10, generator=generator)
    labels = torch.arange(NUM_PATCHES) % 2
    return list(zip(images.split(MICRO_BATCH), labels.split(MICRO_BATCH), strict=True))


def backward(net, images, labels):
    """Do a backward pass of a micro-batch; return its tallies."""
    losses = nn.functional.cross_entropy(net(images), labels, reduction="none")
    (losses.sum() / NUM_PATCHES).backward()
    loss_sum = on_grid(float(losses.detach().sum()))
    return Tallies(patches=len(labels), correct=1, loss_sum=loss_sum)


def sum_step(net, sums, micros):
    """Return the tallies of a step over `micros`, whose gradient is then in p.grad."""
    sums.start()
    tallies = Tallies()
    for micro in micros:
        seen = backward(net, *micro)
        assert sums.add()
        tallies.patches += seen.patches
        tallies.correct += seen.correct
        tallies.loss_sum += seen.loss_sum
    return sums.finish(tallies)


def gradient_bits(net):
    return [None if p.grad is None else p.grad.view(torch.int32).tolist() for p in net.parameters()]


def step_of(order, ranks=ALONE):
    """Return (gradient bits, tallies) of a step over the micro-batches in `order`."""
    net, micros = build_net(), micro_batches()
    sums = FixedPointSum(net.parameters(), ranks)
    tallies = sum_step(net, sums, [micros[i] for i in order])
    return gradient_bits(net), tallies


def test_the_order_of_micro_batches_changes_no_bit():
    expected = step_of(range(6))
    assert step_of(range(5, -1, -1)) == expected
    assert step_of([2, 5, 0, 1, 4, 3]) == expected


def test_summed_by_autograd_the_order_is_felt():
    found = []
    for order in (range(6), range(5, -1, -1)):
        net, micros = build_net(), micro_batches()
        sum_step(net, PlainSum(), [micros[i] for i in order])
        found.append(gradient_bits(net))
    assert found[0] != found[1]


def ranked_step(ranks):
    return step_of(range(ranks.rank, 6, ranks.world_size), ranks)


def float_step(ranks):
    """Sum the gradients of the ranks as floats, carried by gloo all the same."""
    from torch import distributed

    net, micros = build_net(), micro_batches()
    sum_step(net, PlainSum(), micros[ranks.rank :: ranks.world_size])
    for parameter in net.parameters():
        if parameter.grad is not None:
            distributed.all_reduce(parameter.grad)
    return gradient_bits(net)


@pytest.mark.parametrize("world_size", [2, 4, 7])  # with 7 one rank has no micro-batch
def test_any_number_of_ranks_has_the_gradient_and_the_tallies_of_one(world_size):
    assert run_ranks(world_size, ranked_step) == [step_of(range(6))] * world_size


def test_summed_as_floats_the_number_of_ranks_is_felt():
    (two, *_), (four, *_) = run_ranks(2, float_step), run_ranks(4, float_step)
    alone, micros = build_net(), micro_batches()
    sum_step(alone, PlainSum(), micros)
    assert two != four and two != gradient_bits(alone)


def test_the_gradient_is_that_of_autograd_but_for_rounding():
    net = build_net()
    sum_step(net, PlainSum(), micro_batches())
    expected = [p.grad for p in net.parameters()]
    net = build_net()
    sum_step(net, FixedPointSum(net.parameters()), micro_batches())
    for parameter, grad in zip(net.parameters(), expected, strict=True):
        if grad is None:
            assert parameter.grad is None
        else:
            assert parameter.grad.stride() == parameter.stride()
            torch.testing.assert_close(parameter.grad, grad, rtol=1e-5, atol=1e-9)


def test_accumulation_of_two_batches_is_one_step_over_both():
    halves = [list(range(3)), list(range(3, 6))]
    assert step_of(itertools.chain(*halves)) == step_of(itertools.chain(*halves[::-1]))


def test_a_single_micro_batch_has_the_bits_it_has_beside_an_idle_rank():
    bits, tallies = step_of([3])
    assert run_ranks(2, single_step) == [(bits, tallies)] * 2


def single_step(ranks):
    """Take a step of one micro-batch on each rank, then one of which rank 1 has all."""
    net, micros = build_net(), micro_batches()
    sums = FixedPointSum(net.parameters(), ranks)
    sum_step(net, sums, [micros[ranks.rank]])
    net.zero_grad(set_to_none=True)
    tallies = sum_step(net, sums, [micros[3]] if ranks.rank == 1 else [])
    return gradient_bits(net), tallies


def test_a_single_micro_batch_needs_no_second_copy_of_the_gradient():
    net = build_net()
    sums = FixedPointSum(net.parameters())
    sum_step(net, sums, micro_batches()[:1])
    assert sums._sent is None
    sum_step(net, sums, micro_batches()[:2])
    assert sums._sent is not None


def test_a_step_forgets_the_one_before():
    net = build_net()
    sums = FixedPointSum(net.parameters())
    sum_step(net, sums, micro_batches(seed=5))
    assert not spoil_pass(net, sums, math.nan)
    assert spoil_pass(net, sums, LARGEST)
    net.zero_grad(set_to_none=True)
    tallies = sum_step(net, sums, micro_batches())
    assert (gradient_bits(net), tallies) == step_of(range(6))


def test_the_tallies_are_sums_over_the_whole_step():
    _, tallies = step_of(range(6))
    assert tallies.patches == NUM_PATCHES and tallies.correct == 6
    assert 0.3 < tallies.loss_sum / tallies.patches < 2
    assert math.ldexp(tallies.loss_sum, 36).is_integer()


def ask_to_stop(ranks):
    net = build_net()
    sums = FixedPointSum(net.parameters(), ranks)
    sums.start()
    tallies = Tallies(wants_stop=int(ranks.rank == 1), num_bad=int(ranks.rank == 0))
    return sums.finish(tallies)


def test_a_wish_to_stop_and_a_bad_loss_reach_every_rank():
    assert run_ranks(3, ask_to_stop) == [Tallies(wants_stop=1, num_bad=1)] * 3


def spoil_pass(net, sums, value):
    """Add a backward pass whose gradient holds `value`; return what `add` says."""
    backward(net, *micro_batches()[0])
    net[3].weight.grad[1, 2, 0, 1] = value
    return sums.add()


def spoil(ranks, value):
    """Have a gradient hold `value` on the last rank; return what it says and the tallies."""
    net = build_net()
    sums = FixedPointSum(net.parameters(), ranks)
    sums.start()
    if ranks.rank == ranks.world_size - 1:
        is_finite = spoil_pass(net, sums, value)
    else:
        backward(net, *micro_batches()[0])
        is_finite = sums.add()
    try:
        return is_finite, sums.finish(Tallies(patches=8)).num_bad
    except TrainingError as error:
        return is_finite, str(error)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_is_told_where_it_is_and_counted_everywhere(value):
    assert spoil(ALONE, value) == (False, 1)
    if math.isnan(value):
        assert run_ranks(2, spoil, value) == [(True, 1), (False, 1)]


def test_a_gradient_too_large_for_fixed_point_stops_every_rank():
    for is_finite, said in [spoil(ALONE, 65536.0), *run_ranks(2, spoil, -1e6)]:
        assert is_finite and "65,536 or more" in said and "No weight was changed" in said


def test_a_loss_too_large_for_an_exact_sum_is_refused():
    sums = FixedPointSum(build_net().parameters())
    for loss in (131_072.0, -131_072.0, math.nan):
        with pytest.raises(TrainingError, match="131,072"):
            sums.finish(Tallies(loss_sum=loss))


def test_more_micro_batches_than_int64_can_hold_are_refused():
    parameter = nn.Parameter(torch.zeros(1))
    sums = FixedPointSum([parameter])
    for num, is_refused in ((MAX_TERMS, False), (MAX_TERMS + 1, True)):
        sums.start()
        for _ in range(num):
            parameter.grad = torch.ones(1)
            sums.add()
        if is_refused:
            with pytest.raises(TrainingError, match="1,025 micro-batches; allowed are 1,024"):
                sums.finish(Tallies())
        else:
            sums.finish(Tallies())
            assert parameter.grad.item() == MAX_TERMS


def test_half_precision_parameters_are_refused():
    with pytest.raises(ConfigError, match="bfloat16"):
        FixedPointSum([nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))])


def test_gradients_in_another_memory_format_mean_the_same():
    net = build_net()
    sums = FixedPointSum(net.parameters())
    sum_step(net, sums, micro_batches())
    expected = gradient_bits(net)
    net.zero_grad(set_to_none=True)
    sums.start()
    tallies = Tallies()
    for micro in micro_batches():
        backward(net, *micro)
        net[3].weight.grad = net[3].weight.grad.contiguous()
        sums.add()
    sums.finish(tallies)
    assert gradient_bits(net) == expected


class TwoShifts(nn.Module):
    """Of a batch of one patch, autograd gives both parameters one memory for their gradients."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (nn.Parameter(torch.zeros(5000)) for _ in range(2))

    def forward(self, x):
        return x + self.first[None] + self.second[None]


def test_two_gradients_in_one_memory_are_added_up_apart():
    net, whole = TwoShifts(), torch.zeros(5000)
    sums = FixedPointSum(net.parameters())
    sums.start()
    for patch in torch.randn(3, 1, 5000, generator=torch.Generator().manual_seed(0)):
        (net(patch) * patch).sum().backward()
        assert net.first.grad.data_ptr() == net.second.grad.data_ptr()
        whole += patch[0]
        sums.add()
    sums.finish(Tallies())
    for parameter in net.parameters():
        torch.testing.assert_close(parameter.grad, whole, rtol=1e-6, atol=1e-6)
    assert net.first.grad.data_ptr() != net.second.grad.data_ptr()


def lose(ranks):
    """Have each rank meet a loss that only all of them together make too large."""
    sums = FixedPointSum(build_net().parameters(), ranks)
    try:
        return sums.finish(Tallies(patches=8, loss_sum=65_536.0)).loss_sum
    except TrainingError as error:
        return str(error)


def test_losses_that_one_rank_refuses_are_refused_by_two():
    assert all("131,072" in str(said) for said in run_ranks(2, lose))
