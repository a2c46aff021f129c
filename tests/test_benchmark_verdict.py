"""What bounds a training is named from figures alone, with what would help and by how much."""

import dataclasses

import pytest
from fabricated_benchmark import (
    OWN,
    Transfer,
    end_to_end,
    forward,
    measured,
    rate,
    reading,
    step,
)

from ml_core.pipeline.benchmarking.figures import Peak
from ml_core.pipeline.benchmarking.judging.advice import find_gains, setting_between
from ml_core.pipeline.benchmarking.judging.bottleneck import judge
from ml_core.pipeline.benchmarking.judging.step_limit import find_step_limit, growth_of_doubled
from ml_core.pipeline.benchmarking.judging.time_parts import parts_of_time

GZIP = {"layout": "chunked, gzip"}
ROOM = {"free_bytes": {"ram": 4_000_000_000, "gpu": None}}
ON_GPU = {"device": "cuda:0", "precision": "bf16"}


def shares(**figures):
    """Return the parts of the time that are any, to three digits."""
    parts = parts_of_time(measured(**figures))
    assert sum(parts.values()) == pytest.approx(1)
    return {part: round(share, 3) for part, share in parts.items() if share}


def settings_of(**figures):
    return [gain.setting for gain in find_gains(measured(**figures))]


# ---- where the time goes -----------------------------------------------------------------------


def test_waiting_is_divided_as_the_readers_time_is():
    """Of 64 patches at 2,500 per second, 25.6 ms, half is 12.8: as long as the reader takes."""
    found = shares(
        reading=reading(5_000, stored=0.25, decoded=0.7, rest=0.05),
        end_to_end=end_to_end(2_500, 5_000, 0.5),
    )
    assert found == {"reading": 0.15, "decoding": 0.35, "compute": 0.5}


def test_a_reader_that_does_not_compute_waits_for_more_than_the_bytes():
    found = shares(
        reading=reading(5_000, stored=0.1, decoded=0.0, rest=0.9, busy=0.2),
        end_to_end=end_to_end(2_500, 5_000, 0.5),
    )
    assert found == {"reading": 0.15, "waiting": 0.35, "compute": 0.5}


def test_a_reader_that_waits_as_long_as_the_bytes_take_waits_for_the_disk():
    found = shares(
        reading=reading(5_000, stored=0.9, decoded=0.0, rest=0.1, busy=0.1),
        end_to_end=end_to_end(2_500, 5_000, 0.5),
    )
    assert found == {"reading": 0.5, "compute": 0.5}


def test_what_is_waited_beyond_a_warm_read_is_the_disk():
    """Of 128 ms a batch 115 are waited, and a reader that mostly decodes takes 0.3."""
    figures = {
        "reading": reading(200_000, stored=0.1, decoded=0.9, rest=0.0),
        "end_to_end": end_to_end(500, 5_000, 0.9),
    }
    assert 0.89 < shares(**figures)["reading"] < 0.9
    assert judge(measured(**figures)).bound == "reading"


def test_readers_cost_what_fewer_of_them_would_save():
    found = shares(
        settings={"num_workers": 16},
        end_to_end=end_to_end(9_000, 20_000, 0.3, w0=18_000, w4=15_000),
    )
    assert found["workers"] == 0.5
    assert found["compute"] == 0.45  # lost are 11,000 of 20,000


def test_readers_that_no_smaller_number_beats_cost_nothing():
    found = shares(
        settings={"num_workers": 2},
        reading=reading(3_000, stored=0.0, decoded=1.0, rest=0.0, w2=5_000),
        end_to_end=end_to_end(4_000, 20_000, 0.7, w0=2_600, w1=3_000),
    )
    assert found == {"decoding": 0.8, "compute": 0.2}  # slower steps: their cores decode


def test_rates_whose_middle_halves_meet_are_no_difference():
    close = dataclasses.replace(
        end_to_end(9_000, 9_500, 0.01), by_workers={0: rate(9_900, spread=0.2)}
    )
    assert shares(settings={"num_workers": 2}, end_to_end=close)["compute"] > 0.95


def test_copies_that_run_all_the_time_bound_a_training_beside_its_steps():
    slow = Transfer(rate(50_000), rate(100_000), 27_648)
    figures = {"settings": ON_GPU, "transfer": slow, "end_to_end": end_to_end(95_000, 97_000, 0.0)}
    assert shares(**figures) == {"transfer": 0.95, "compute": 0.05}
    verdict = judge(measured(**figures))
    assert verdict.bound == "transfer"
    assert "patches are on their way to the device" in verdict.sentence


def test_patches_on_the_gpu_are_not_copied():
    slow = Transfer(rate(50_000), rate(100_000), 27_648)
    settings = {**ON_GPU, "placement": "gpu"}
    found = shares(settings=settings, transfer=slow, end_to_end=end_to_end(95_000, 97_000, 0.0))
    assert found == {"compute": 1.0}


# ---- the verdict -------------------------------------------------------------------------------


def test_a_training_that_its_step_bounds_is_told_that_a_faster_reader_changes_nothing():
    verdict = judge(
        measured(
            end_to_end=end_to_end(970, 1_000, 0.02),
            computing=(step(b64=1_000, b128=1_200, b256=1_250),),
        )
    )
    assert verdict.sentence == (
        "Computing bounds this training: 98 % of the time goes into the step, 2 % into waiting for "
        "patches; a reader twice as fast would change nothing. Its large operations do 45 % of the "
        "arithmetic and 26 % of the bytes that this device is capable of. data.batch_size: 128 "
        "would give x 1.20."
    )
    assert (verdict.bound, verdict.share) == ("compute", 0.98)
    assert verdict.without == 200_000  # what the loader gives where nobody computes


def test_a_reader_that_takes_a_third_of_the_time_is_said_to_matter():
    verdict = judge(
        measured(reading=reading(3_000), end_to_end=end_to_end(1_000, 1_500, 1 / 3), computing=())
    )
    assert verdict.bound == "compute"
    assert "a reader twice as fast would make it x 1.20" in verdict.sentence


def test_decoding_is_named_with_the_command_that_ends_it():
    verdict = judge(
        measured(
            data=GZIP,
            reading=reading(3_000, stored=0.1, decoded=0.9, rest=0.0),
            end_to_end=end_to_end(2_500, 15_000, 2_500 / 3_000),
        )
    )
    assert verdict.bound == "decoding"
    assert verdict.sentence == (
        "Decoding bounds this training: 75 % of the time goes into decoding patches, which are "
        "stored as chunked, gzip uint8, 17 % goes into the step. Without that it would train "
        "15,000 patches/s instead of 2,500. ml-core data pack data/pcam PACKED, and "
        "data.data_path: PACKED would give at most x 6.00."
    )
    assert verdict.without == pytest.approx(15_000)  # flat, so that reading costs nothing either


def test_too_many_readers_are_named_though_the_step_takes_more():
    verdict = judge(
        measured(
            settings={"num_workers": 16},
            end_to_end=end_to_end(7_500, 10_500, 0.05, w0=10_000),
        )
    )
    assert (verdict.bound, verdict.share, verdict.without) == ("workers", 0.25, 10_000)
    assert "25 % of the time is lost to 16 readers on 2 cores, where 0 would do" in verdict.sentence
    assert verdict.sentence.endswith("data.num_workers: 0 would give x 1.33.")


def test_a_loader_that_sleeps_is_named():
    verdict = judge(
        measured(
            reading=reading(1_000, stored=0.01, rest=0.99, busy=0.03),
            end_to_end=end_to_end(900, 20_000, 0.9),
        )
    )
    assert verdict.bound == "waiting"
    assert "neither reads nor computes" in verdict.sentence


def test_without_its_bound_no_training_is_faster_than_in_memory():
    verdict = judge(
        measured(
            settings={"num_workers": 2},
            reading=reading(3_000, stored=0.0, decoded=1.0, rest=0.0),
            end_to_end=end_to_end(2_500, 5_000, 0.9),
        )
    )
    assert verdict.without == 5_000


# ---- what holds the step back ------------------------------------------------------------------


def limit(growth, **figures):
    """Return the limit of a step that takes `growth` times as long for twice the patches."""
    computing = (step(b64=1_000, b128=2_000 / growth),)
    return find_step_limit(measured(computing=computing, **figures))


SMALL = {"num_parameters": 10, "flops_per_patch": 1e3, "bytes_per_patch": 1e3}
WIDE = {"num_parameters": 3_500_000, "flops_per_patch": 7e6, "bytes_per_patch": 1e5}


def test_a_step_that_twice_the_patches_hardly_lengthen_is_bound_by_its_launches():
    found = limit(1.1, model=SMALL)
    assert found.bound == "launch"
    assert "only 1.10 times as long" in found.why


def test_a_step_that_moves_its_weights_is_bound_by_memory_however_small_the_batch():
    """3.5 million weights, 4 bytes, 11 times for 64 patches: 2.4 MB a patch, of 20 GB/s."""
    found = limit(1.1, model=WIDE, end_to_end=end_to_end(5_000, 5_000, 0.0))
    assert found.bound == "memory"
    assert "weights, which larger batches would have in common" in found.why


def test_the_larger_share_of_the_peaks_holds_the_step_back():
    assert limit(2.0).bound == "compute"  # 3 x 60 MFLOP x 1,000 of 400 GFLOP/s: 45 %
    slow_memory = limit(2.0, peak=Peak(flops=400e9, bytes=10e9))
    assert (slow_memory.bound, "what its layers give one another" in slow_memory.why) == (
        "memory",
        True,
    )


def test_a_step_that_fills_nothing_is_small_operations():
    found = limit(1.9, model=SMALL)
    assert found.bound == "compute"
    assert "small ones between them take the time" in found.why


def test_without_peak_nothing_is_claimed_of_it():
    assert find_step_limit(measured(peak=None)).why == ""


def test_growth_is_brought_to_doubling_and_measured_next_to_the_config():
    assert growth_of_doubled(step(b64=1_000, b256=1_000), 64) == pytest.approx(2)
    assert growth_of_doubled(step(b32=1_000, b64=2_000), 64) == pytest.approx(1)  # the one below
    assert growth_of_doubled(step(b1=1_000, b64=1_000, b128=1_600), 64) == pytest.approx(1.25)
    assert growth_of_doubled(step(b64=1_000), 64) is None
    assert growth_of_doubled(None, 64) is None


# ---- advice ------------------------------------------------------------------------------------


def test_nothing_is_suggested_that_was_measured_to_be_no_faster():
    others = [
        dataclasses.replace(OWN, precision="fp32"),
        dataclasses.replace(OWN, layout="contiguous"),
        dataclasses.replace(OWN, threads=1),
    ]
    computing = (step(b64=1_000, b128=1_030), *(step(each, b64=990) for each in others))
    assert settings_of(computing=computing, end_to_end=end_to_end(w1=980, w2=985)) == []


def test_each_setting_is_suggested_by_its_own_factor_the_greatest_first():
    computing = (
        step(b32=700, b64=1_000, b128=1_400, b256=1_430),
        step(dataclasses.replace(OWN, precision="fp32"), b64=1_100),
        step(dataclasses.replace(OWN, layout="contiguous"), b64=1_600),
        step(dataclasses.replace(OWN, threads=1), b64=1_200),
        step(dataclasses.replace(OWN, compiled=True), b64=9_000),  # which no setting gives
    )
    figures = {"computing": computing, "end_to_end": end_to_end(1_000, 1_000, 0.0, w1=1_300)}
    assert settings_of(**figures) == [
        "training.channels_last: false",
        "data.batch_size: 128",  # 256 is 2 % more
        "data.num_workers: 1",
        "training.num_threads: 1",
        "training.precision: fp32",
    ]
    first = find_gains(measured(**figures))[0]
    assert first.factor == pytest.approx(1.6)
    assert first.why == "the step takes 1,600 patches/s instead of 1,000"


def test_a_faster_step_counts_for_as_much_as_it_has_of_the_time():
    computing = (step(b64=1_000), step(dataclasses.replace(OWN, threads=1), b64=2_000))
    half = end_to_end(1_000, 2_000, 0.5)
    [gain] = find_gains(measured(computing=computing, end_to_end=half))
    assert gain.factor == pytest.approx(1 / 0.75)


def test_a_forward_pass_is_no_advice_to_a_training():
    computing = (step(b64=1_000), forward(dataclasses.replace(OWN, threads=1), b64=9_000))
    assert settings_of(computing=computing) == []


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        ({"precision": "fp32"}, "training.precision: fp32"),
        ({"precision": "fp16"}, ""),
        ({"precision": "tf32"}, ""),
        ({"compiled": True}, ""),
        ({"layout": "contiguous"}, "training.channels_last: false"),
        ({"threads": 1}, "training.num_threads: 1"),
        ({"threads": 1, "layout": "contiguous"}, ""),
        ({}, ""),
    ],
)
def test_a_setting_leads_from_one_way_to_the_other_or_none_does(change, setting):
    assert setting_between(OWN, dataclasses.replace(OWN, **change)) == setting


def test_exact_arithmetic_is_not_advised_away():
    assert setting_between(dataclasses.replace(OWN, precision="exact"), OWN) == ""


def test_patches_are_advised_into_memory_only_where_they_fit_twice():
    slow = {"reading": reading(2_000), "end_to_end": end_to_end(1_000, 2_000, 0.5)}
    assert settings_of(**slow) == []  # 0.55 GB, of 0.6 that are free
    assert settings_of(data=ROOM, **slow) == ["data.placement: ram"]
    [gain] = find_gains(measured(data=ROOM, **slow))
    assert (gain.factor, gain.is_most) == (pytest.approx(2), True)
    assert "By arithmetic, not measured" in gain.why
    assert settings_of(data=ROOM, settings={"placement": "ram"}, **slow) == []
    [with_readers] = settings_of(data=ROOM, settings={"num_workers": 2}, **slow)
    assert with_readers == "data.placement: ram, and data.num_workers: 0"


def test_the_gpu_is_advised_before_the_memory_where_it_has_room():
    on_gpu = {"free_bytes": {"ram": 4e9, "gpu": 9e9}}
    slow = {"reading": reading(2_000), "end_to_end": end_to_end(1_000, 2_000, 0.5)}
    assert settings_of(data=on_gpu, settings=ON_GPU, **slow) == ["data.placement: gpu"]


def test_a_disk_slower_than_the_training_is_said_and_never_the_best_advice():
    verdict = judge(measured(reading=reading(cold=700)))
    assert [each.setting.split(":")[0] for each in verdict.advice] == ["data.local_copy"]
    assert "read at 700 patches/s, and the training takes 980" in verdict.advice[0].why
    assert "local_copy" not in verdict.sentence
    assert settings_of(reading=reading(cold=5_000)) == []
