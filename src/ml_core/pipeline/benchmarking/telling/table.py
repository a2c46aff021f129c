"""A benchmark as aligned text, for a terminal and for the logs of a job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ml_core.page.text import UNDEFINED, count, percent
from ml_core.pipeline.benchmarking.figures import (
    Benchmark,
    Computing,
    EndToEnd,
    Peak,
    Rate,
    Reading,
    Transfer,
    Variant,
    Verdict,
)
from ml_core.selection.tables import render_table

PARTS = {"stored": "the bytes", "decoded": "decoding", "rest": "the loader itself"}


def render_benchmark(benchmark: Benchmark) -> str:
    """Return everything that was measured, a block for each thing, all rates in patches/s."""
    blocks = [
        render_reading(benchmark.reading),
        render_transfer(benchmark.transfer),
        *(render_computing(work, benchmark.computing) for work in ("forward", "train step")),
        render_end_to_end(benchmark.end_to_end),
        render_peak(benchmark.peak),
    ]
    return "\n\n".join(block for block in blocks if block)


def render_reading(reading: Reading) -> str:
    """Return how fast the loader is, warm, cold and with other numbers of reader processes."""
    rows = [("read, from the system's cache", *_cells(reading.warm))]
    if reading.cold is not None:
        rows.append(("read, from the disk", *_cells(reading.cold)))
    rows += [
        (f"read by {num or 'no'} reader process{'es' if num != 1 else ''}", *_cells(rate))
        for num, rate in sorted(reading.by_workers.items())
    ]
    total = sum(reading.parts.values())
    shares = [f"{PARTS[part]} {percent(each / total, 0)}" for part, each in reading.parts.items()]
    lines = [
        _rates(rows),
        f"a batch takes {1000 * total:.2f} ms: {', '.join(shares)}; the reader computes "
        f"{percent(reading.busy, 0)} of its time",
    ]
    if reading.cold is None:
        lines.append(f"from the disk: not known, {reading.cold_failed.rstrip('.')}")
    return "\n".join(lines)


def render_transfer(transfer: Transfer | None) -> str:
    """Return how fast patches get to the device; "" where there is no way to go."""
    if transfer is None:
        return ""
    sides = {"pageable": transfer.pageable, "pinned": transfer.pinned}
    rows = [
        (
            f"to the device, {name} memory", *_cells(rate),
            f"{rate.median * transfer.bytes_per_patch / 1e9:.1f} GB/s",
        )
        for name, rate in sides.items()
        if rate is not None
    ]  # fmt: skip
    return render_table((*_RATE_HEADER, ""), rows, left=(0, 2))


def render_computing(work: str, computing: Sequence[Computing]) -> str:
    """Return the rates over batch sizes, a row for each way to compute, and what could not be."""
    chosen = [each for each in computing if each.work == work]
    had = [each for each in chosen if not each.failed]
    if not chosen:
        return ""
    sizes = sorted({at.batch_size for each in had for at in each.at})
    own = chosen[0].variant
    header = [f"{work}, batches of", *(f"{size:,}" for size in sizes)]
    rows = [[variant_in_words(each.variant, own), *_over(each, sizes)] for each in had]
    latencies = [each.latency for each in had]
    if any(latencies):
        header += ["one: p50", "p95", "p99"]
        for row, latency in zip(rows, latencies, strict=True):
            seconds = (latency.p50, latency.p95, latency.p99) if latency else (None,) * 3
            row += [_milliseconds(each) for each in seconds]
    notes = list(_notes(chosen, own))
    return "\n".join([*([render_table(header, rows, left=(0,))] if rows else []), *notes])


def variant_in_words(variant: Variant, own: Variant) -> str:
    """Return all of the config's `own` variant, and of another what is different."""
    words = {
        "precision": variant.precision,
        "layout": variant.layout,
        "compiled": "compiled" if variant.compiled else "not compiled",
        "threads": f"{variant.threads} thread{'s' if variant.threads != 1 else ''}",
    }
    if variant == own:
        words = {name: word for name, word in words.items() if name != "compiled" or own.compiled}
        return ", ".join(words.values())
    changed = [name for name in words if getattr(variant, name) != getattr(own, name)]
    return ", ".join(words[name] for name in changed) or variant.device


def render_end_to_end(end_to_end: EndToEnd) -> str:
    """Return the training beside the same steps without reading, and with other readers."""
    rows = [
        ("training, end to end", *_cells(end_to_end.training)),
        ("the same on one batch in memory", *_cells(end_to_end.in_memory)),
    ]
    rows += [
        (f"training, data.num_workers {num}", *_cells(rate))
        for num, rate in sorted(end_to_end.by_workers.items())
    ]
    ratio = end_to_end.training.median / end_to_end.in_memory.median
    return "\n".join(
        [
            _rates(rows),
            f"end to end over in memory: {ratio:.2f}; it waits for batches "
            f"{percent(end_to_end.waited, 0)} of the time",
        ]
    )


def render_peak(peak: Peak | None) -> str:
    """Return what the device can do; "" where it was not measured."""
    if peak is None:
        return ""
    return (
        f"the device at most: {peak.flops / 1e9:,.0f} GFLOP/s by a large product, "
        f"{peak.bytes / 1e9:,.1f} GB/s by a large copy"
    )


def render_verdict(verdict: Verdict) -> str:
    """Return the sentence, and below it a line for each thing that would help."""
    lines = [verdict.sentence]
    lines += [f"  {advice.setting}\n    {advice.why}." for advice in verdict.advice]
    return "\n".join(lines)


_RATE_HEADER = ("", "patches/s", "middle half")


def _rates(rows: Sequence[Sequence[str]]) -> str:
    return render_table(_RATE_HEADER, rows, left=(0, 2))


def _cells(rate: Rate) -> tuple[str, str]:
    return count(rate.median), f"{count(rate.low)} to {count(rate.high)}"


def _over(computing: Computing, sizes: Sequence[int]) -> Iterator[str]:
    at = {each.batch_size: each.rate.median for each in computing.at}
    return (count(at[size]) if size in at else UNDEFINED for size in sizes)


def _milliseconds(seconds: float | None) -> str:
    return UNDEFINED if seconds is None else f"{1000 * seconds:.2f} ms"


def _notes(computing: Sequence[Computing], own: Variant) -> Iterator[str]:
    for each in computing:
        name = variant_in_words(each.variant, own)
        if each.failed:
            yield f"{name}: {each.failed.rstrip('.')}"
        elif each.limit is not None:
            size = f"{each.limit.batch_size:,}"
            yield f"{name}: batches of {size} and more: {each.limit.why.rstrip('.')}"
