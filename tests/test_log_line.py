"""A log's lines: what comes back, what older runs have, and every kind of damage."""

import json
import random
from pathlib import Path

import pytest

from ml_core.errors import RunError
from ml_core.log_line import to_line
from ml_core.runs import read_jsonl
from ml_core.tracking.log_file import LogFile, LogReader

RECORDS = [
    {"step": 1, "epoch": 1, "time": "2026-01-02T03:04:05+00:00", "loss": 0.6931471805599453},
    {"step": 2, "epoch": 1, "time": "2026-01-02T03:04:06+00:00", "loss": None},
    {"step": 3, "state": "ab" * 32, "tensors": {"model.net.0.weight": "0123456789abcdef"}},
    {"event": "end", "error": 'say "crc": "00000000"}', "é": "naïve"},
]
READERS = {"read_jsonl": read_jsonl, "LogReader": LogReader}


@pytest.fixture(params=READERS)
def read(request):
    """Return all records of the log at a path, by each of the two readers."""
    return lambda path: list(READERS[request.param](path))


@pytest.fixture
def path(tmp_path) -> Path:
    log = LogFile(tmp_path / "steps.jsonl")
    for record in RECORDS:
        log.append(record)
    log.close()
    return log.path


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def test_records_come_back_in_order_without_their_checksums(path, read):
    assert read(path) == RECORDS
    assert all(list(json.loads(line))[-1] == "crc" for line in lines_of(path))


def test_a_line_is_what_the_readme_of_the_format_says():
    line = to_line({"step": 1, "loss": 0.5})
    assert line == b'{"step": 1, "loss": 0.5, "crc": "8b97f1ca"}\n'


def test_a_log_of_an_older_run_is_read_and_continued(tmp_path, read):
    path = tmp_path / "steps.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    assert read(path) == RECORDS
    log = LogFile(path)
    log.append({"step": 4})
    log.keep(lambda record: record.get("step") != 2)
    log.append({"step": 5})
    log.close()
    assert read(path) == [RECORDS[0], *RECORDS[2:], {"step": 4}, {"step": 5}]


def test_one_flipped_bit_anywhere_is_named_with_file_and_line(path, read):
    whole = path.read_bytes()
    starts = [0]
    for line in lines_of(path):
        starts.append(starts[-1] + len(line))
    for bit in random.Random(0).sample(range(8 * len(whole)), 300):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        number = sum(start <= bit // 8 for start in starts[:-1])
        is_last_newline = bit // 8 == len(whole) - 1
        words = "its last line" if is_last_newline else f"line {number}"
        with pytest.raises(RunError, match=rf"steps\.jsonl, {words} is damaged: .*remove that"):
            read(path)


def test_every_bit_of_a_line_and_its_newline_counts(tmp_path, read):
    # All of them, on a log of one line: nothing before or after it helps to notice.
    path = tmp_path / "steps.jsonl"
    whole = to_line({"step": 1, "loss": 0.25})
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(RunError, match="is damaged"):
            read(path)


@pytest.mark.parametrize("number", range(len(RECORDS)))
def test_a_checksum_that_was_taken_off_is_missed(path, read, number):
    if number == 0:
        pytest.skip("a first line without one is that of an older run")
    lines = lines_of(path)
    lines[number] = json.dumps({**RECORDS[number], "loss": 0.1}).encode() + b"\n"
    path.write_bytes(b"".join(lines))
    with pytest.raises(RunError, match=f"line {number + 1} is damaged: it has no valid checksum"):
        read(path)


@pytest.mark.parametrize("tail", [b"", b"\0", b"\0" * 5000])
def test_a_line_cut_anywhere_is_left_out_with_the_zeros_of_a_power_cut_or_without(path, read, tail):
    *first, last = lines_of(path)
    for length in range(len(last)):
        path.write_bytes(b"".join(first) + last[:length] + tail)
        assert read(path) == RECORDS[:-1]
        LogFile(path).close()
        assert path.read_bytes() == b"".join(first)


def test_a_whole_last_line_whose_newline_was_changed_is_not_cut(path):
    path.write_bytes(path.read_bytes()[:-1] + b"\x0b")
    before = path.read_bytes()
    with pytest.raises(RunError, match="its last line is damaged: the newline at its end"):
        LogFile(path)
    assert path.read_bytes() == before


def test_two_lines_that_lost_the_newline_between_them_are_not_cut(path):
    *first, before_last, last = lines_of(path)
    path.write_bytes(b"".join(first) + before_last[:-1] + last[:-1])
    with pytest.raises(RunError, match="its last line is damaged"):
        LogFile(path)


def test_a_reader_that_met_a_damaged_line_reads_on_once_it_is_mended(path):
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"0.69", b"0.96"))
    reader = LogReader(path)
    with pytest.raises(RunError, match="line 1 is damaged"):
        list(reader)
    path.write_bytes(whole)
    assert list(reader) == RECORDS


@pytest.mark.parametrize("record", [{}, {"crc": 1}, {"loss": float("nan")}])
def test_what_a_line_cannot_say_is_refused(record):
    with pytest.raises(ValueError, match=r"crc|JSON"):
        to_line(record)
