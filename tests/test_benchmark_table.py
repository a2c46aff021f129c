"""A benchmark as text and as figures: what stands there, and that nothing is left out unsaid."""

import dataclasses

import pytest
from fabricated_benchmark import (
    OWN,
    Limit,
    Transfer,
    benchmark,
    end_to_end,
    forward,
    many_ways,
    measured,
    rate,
    reading,
    step,
)

from ml_core.page.figure_style import save_figure
from ml_core.pipeline.benchmarking.judging.time_parts import parts_of_time
from ml_core.pipeline.benchmarking.telling.partitions import (
    describe,
    render_partitions,
    slowest_first,
)
from ml_core.pipeline.benchmarking.telling.plots import (
    PART_COLORS,
    PART_NAMES,
    plot_throughput,
    plot_time,
)
from ml_core.pipeline.benchmarking.telling.table import (
    render_benchmark,
    render_computing,
    render_reading,
    render_transfer,
    render_verdict,
    variant_in_words,
)

GPU = {"name": "NVIDIA H200", "memory_gib": 139.0}


def test_ways_are_rows_and_batch_sizes_columns():
    fp32 = dataclasses.replace(OWN, precision="fp32")
    text = render_computing(
        "forward",
        (forward(b1=400, b64=3_000), step(b2=9), forward(fp32, latency=False, b64=2_500.7)),
    )
    assert text.splitlines() == [
        "forward, batches of               1     64  one: p50      p95      p99",
        "bf16, channels_last, 2 threads  400  3,000   2.10 ms  2.40 ms  3.10 ms",
        "fp32                              –  2,500         –        –        –",
    ]


def test_what_could_not_be_measured_is_said_below():
    computing = (
        step(b1=90, limit=Limit(2, "would take 9.1 GB of the 5.2 GB that are free")),
        step(dataclasses.replace(OWN, precision="tf32"), failed="TF32 is arithmetic of a GPU"),
        step(dataclasses.replace(OWN, threads=1), limit=Limit(64, "killed by the system.")),
    )
    assert render_computing("train step", computing).splitlines()[-3:] == [
        "bf16, channels_last, 2 threads: batches of 2 and more: would take 9.1 GB of the 5.2 GB "
        "that are free",
        "tf32: TF32 is arithmetic of a GPU",
        "1 thread: batches of 64 and more: killed by the system",
    ]


def test_a_work_in_which_every_way_failed_still_says_why():
    text = render_computing("forward", (dataclasses.replace(forward(), failed="no GPU"),))
    assert text == "bf16, channels_last, 2 threads: no GPU"


def test_reading_says_where_its_time_goes_and_why_there_is_no_cold_one():
    lines = render_reading(reading(64_000, stored=0.5, decoded=0.3, rest=0.2, busy=0.9, w1=9_000))
    assert lines.splitlines()[-2:] == [
        "a batch takes 1.00 ms: the bytes 50 %, decoding 30 %, the loader itself 20 %; the reader "
        "computes 90 % of its time",
        "from the disk: not known, the system keeps it in memory",
    ]
    assert "read by no reader processes  " in lines
    assert "read by 1 reader process  " in lines
    assert "from the disk: not known" not in render_reading(reading(cold=700))


def test_transfer_is_in_patches_and_in_bytes():
    text = render_transfer(Transfer(rate(100_000), None, 27_648))
    assert text.splitlines()[1].split() == [
        "to", "the", "device,", "pageable", "memory", "100,000", "99,000", "to", "101,000", "2.8",
        "GB/s",
    ]  # fmt: skip
    assert render_transfer(None) == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "bf16, channels_last, 2 threads"),
        ({"compiled": True}, "compiled"),
        ({"threads": 1}, "1 thread"),
        ({"precision": "fp32", "layout": "contiguous"}, "fp32, contiguous"),
        ({"device": "cuda:0"}, "cuda:0"),
    ],
)
def test_another_way_is_named_by_what_is_different(change, words):
    assert variant_in_words(dataclasses.replace(OWN, **change), OWN) == words


def test_the_whole_table_holds_every_block():
    text = render_benchmark(
        benchmark(computing=many_ways(), transfer=Transfer(rate(1e5), rate(2e5), 27_648))
    )
    blocks = ("read, from", "to the device", "forward, batches", "train step, batches")
    blocks += ("training, end to end", "the device at most")
    assert [text.count(block) for block in (*blocks[:1], *blocks[2:])] == [1, 1, 1, 1, 1]
    assert text.count(blocks[1]) == 2  # pageable and pinned
    assert text.split("\n\n")[0].startswith(" ")


def test_the_verdict_stands_above_its_advice():
    result = benchmark(computing=(step(b64=1_000, b128=1_300),))
    lines = render_verdict(result.verdict).splitlines()
    assert lines[0] == result.verdict.sentence
    assert lines[1:] == [
        "  data.batch_size: 128",
        "    x 1.30: the step takes 1,300 patches/s instead of 1,000; with another batch size the "
        "learning rate has to be chosen again.",
    ]


def test_partitions_stand_in_one_table_the_slowest_first():
    partition = {"slurm": {"job_partition": "gpu_h100"}, "gpu": GPU, "cores_available": 16}
    fast = benchmark(
        machine=partition,
        settings={"device": "cuda:0"},
        end_to_end=end_to_end(25_000, 26_000, 0.01),
        transfer=Transfer(rate(1e6), rate(2e6), 27_648),
    )
    on_its_cpu = benchmark(machine=partition, end_to_end=end_to_end(2_000, 2_000, 0.0))
    ordered = slowest_first([fast, on_its_cpu, benchmark(computing=(step(b64=1_000),))])
    rows = render_partitions(ordered).splitlines()[1:]
    assert [row.split()[:2] for row in rows] == [
        ["node1", "CPU"],
        ["gpu_h100", "CPU"],
        ["gpu_h100", "NVIDIA"],
    ]
    assert rows[0].split()[-2:] == ["–", "compute"]  # no forward pass, no latency
    assert describe(fast)["training"] == 25_000


# ---- figures -----------------------------------------------------------------------------------


def test_every_way_that_was_measured_is_a_line_beside_the_marked_batch(tmp_path):
    figure = plot_throughput(many_ways(), 64)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [
        "bf16, channels_last, 2 threads", "fp32", "contiguous", "compiled", "1 thread",
        "the config's batch",
    ]  # fmt: skip
    left, right = figure.axes
    own = left.get_lines()[0]
    assert list(own.get_xdata()) == [2**power for power in range(10)]
    assert own.get_linestyle() == "-"
    assert left.get_lines()[1].get_linestyle() == "None"  # of two sizes
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "forward, patches per second",
        "train step, patches per second",
    ]
    assert list(right.get_lines()[-1].get_xdata()) == [64, 64]
    save_figure(figure, tmp_path / "throughput.png")
    assert (tmp_path / "throughput.png").stat().st_size > 10_000


def test_ways_of_which_nothing_could_be_measured_leave_an_empty_figure(tmp_path):
    figure = plot_throughput((step(failed="out of memory"),), 64)
    save_figure(figure, tmp_path / "throughput.png")


def test_the_bar_is_as_long_as_the_time_and_names_its_parts():
    parts = {"compute": 0.55, "reading": 0.03, "decoding": 0.22, "waiting": 0.2, "workers": 0.0}
    ax = plot_time(parts).axes[0]
    assert [patch.get_width() for patch in ax.patches] == pytest.approx([0.55, 0.03, 0.22, 0.2])
    assert ax.patches[-1].get_x() + ax.patches[-1].get_width() == pytest.approx(1)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "the step 55.0 %", "reading 3.0 %", "decoding 22.0 %", "waiting 20.0 %",
    ]  # fmt: skip


def test_every_part_of_the_time_has_a_colour_and_a_name():
    assert set(parts_of_time(measured())) == set(PART_COLORS) == set(PART_NAMES)
