"""What is measured, as benchmark.json holds it: rates in patches per second, times in seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Precision = Literal["fp32", "tf32", "bf16", "fp16", "exact"]
Layout = Literal["channels_last", "contiguous"]
Work = Literal["forward", "train step"]
Bound = Literal[
    "reading",  # bytes come off the disk, or out of the page cache, too slowly
    "decoding",  # what was read must be decompressed or converted
    "waiting",  # the loader neither reads nor computes: it sleeps, or waits for something
    "workers",  # reader processes get into the way of the training, or of each other
    "transfer",  # to the device
    "launch",  # so little work per call that calling it is what takes the time
    "compute",
    "memory",  # the device moves bytes as fast as it can
]


@dataclass(frozen=True)
class Rate:
    """Patches per second over `num` timed pieces of work: their median and middle half."""

    median: float
    low: float  # a quarter of the pieces is slower
    high: float
    num: int


@dataclass(frozen=True)
class Latency:
    """Seconds from one patch on the host to its logits on the host, over `num` calls."""

    p50: float
    p95: float
    p99: float
    num: int


@dataclass(frozen=True)
class Variant:
    """One way to compute the same model."""

    device: str  # "cpu", "cuda:0"
    precision: Precision
    layout: Layout
    compiled: bool
    threads: int  # of torch, in this process


@dataclass(frozen=True)
class AtBatch:
    """A batch size with its rate; the memory is what it takes besides the model, in bytes."""

    batch_size: int
    rate: Rate
    memory: int | None


@dataclass(frozen=True)
class Limit:
    """The first batch size that could not be measured, and why: what is left out is said."""

    batch_size: int
    why: str


@dataclass(frozen=True)
class Computing:
    """A forward pass or a training step, on batches that are on the device already."""

    work: Work
    variant: Variant
    latency: Latency | None = None  # of the forward pass alone
    at: tuple[AtBatch, ...] = ()
    limit: Limit | None = None
    failed: str = ""  # why this variant cannot be had here; then there is nothing else

    def best(self) -> AtBatch | None:
        """Return the batch size with the highest rate."""
        return max(self.at, key=lambda each: each.rate.median, default=None)


@dataclass(frozen=True)
class Reading:
    """Batches of the config's size as the loader gives them, on the host.

    `parts` are seconds per batch of a warm read in this process, in order: "stored" (the bytes
    alone, compressed ones as they are), "decoded" (made into patches), "rest" (the loader's own).
    `busy` is the share of that time in which it computes or waits for a core; the rest it waits for
    data.
    """

    warm: Rate
    cold: Rate | None
    cold_failed: str  # why there is no cold one
    by_workers: dict[int, Rate]
    parts: dict[str, float]
    busy: float


@dataclass(frozen=True)
class Transfer:
    """Batches from the host to the device, in patches and in bytes per second."""

    pageable: Rate
    pinned: Rate | None
    bytes_per_patch: int


@dataclass(frozen=True)
class EndToEnd:
    """The training itself, and the same steps on one batch that stays in memory, in turns."""

    training: Rate
    in_memory: Rate
    waited: float  # share of the training's time in which it waited for a batch
    by_workers: dict[int, Rate] = field(default_factory=dict)


@dataclass(frozen=True)
class Peak:
    """What the device can do at most: measured, by a large product and a large copy."""

    flops: float  # per second, in the precision of the training
    bytes: float  # read and written per second


@dataclass(frozen=True)
class Advice:
    """A setting that would help, and by what it is known to."""

    setting: str  # "data.num_workers: 0"
    why: str


@dataclass(frozen=True)
class Verdict:
    """What bounds the training, by how much, and what would help."""

    bound: Bound
    share: float  # of the training's time
    without: float | None  # patches per second where it took no time, if that is known
    sentence: str
    advice: tuple[Advice, ...] = ()


@dataclass(frozen=True)
class Benchmark:
    """All of it, with what it was measured of and on."""

    command: str
    measured_at: str  # UTC, ISO 8601
    machine: dict[str, Any]
    versions: dict[str, str]
    data: dict[str, Any]
    model: dict[str, Any]
    settings: dict[str, Any]  # batch size, workers, precision, placement ... of the config
    reading: Reading
    transfer: Transfer | None
    computing: tuple[Computing, ...]
    end_to_end: EndToEnd
    peak: Peak | None
    verdict: Verdict
