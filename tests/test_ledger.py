"""The ledger of a test set: nothing is lost, nothing is changed unnoticed, whoever writes."""

import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from ml_core.errors import RunError
from ml_core.evaluation import ledger as ledger_module
from ml_core.evaluation.ledger import append_line, read_ledger
from ml_core.evaluation.openings import (
    Openings,
    check_openings,
    ledger_path,
    read_openings,
    record_opening,
    record_outcome,
)

X_SHA256 = "5ea1" * 16


def entry(number, **changes):
    """What is written at an opening."""
    fields = {
        "opening": f"{number:032x}",
        "time": f"2026-01-02T03:04:{number:02}+00:00",
        "who": "ada@lab",
        "command": "ml-core evaluate champion.json --split test",
        "champion": "c1" * 32,
        "sealed": True,
        "run_id": "r1",
        "data": {"x_sha256": X_SHA256},
    }
    return {**fields, **changes}


def record(folder, number, copy_path=None, **changes):
    copy_path = copy_path or folder / "copy.jsonl"
    return record_opening(entry(number, **changes), X_SHA256, [folder], copy_path)


@pytest.fixture
def ledger(tmp_path):
    """A ledger of four lines."""
    path = tmp_path / "ledger.jsonl"
    for number in range(1, 5):
        append_line(path, {"event": "opened", "what": number})
    return path


# ---- the chain ---------------------------------------------------------------------------------


def test_what_is_added_is_read_again_in_order(ledger):
    lines = read_ledger(ledger)
    assert [line.entry["what"] for line in lines] == [1, 2, 3, 4]
    assert [line.entry["number"] for line in lines] == [1, 2, 3, 4]
    previous = [line.entry["previous"] for line in lines]
    assert previous == ["", *(line.sha256 for line in lines[:-1])]


def test_a_ledger_that_is_not_there_has_no_lines_and_is_not_made(tmp_path):
    assert read_ledger(tmp_path / "absent.jsonl") == []
    assert list(tmp_path.iterdir()) == []


def changed(lines):
    lines[1] = lines[1].replace(b'"what": 2', b'"what": 9')


def removed(lines):
    del lines[1]


def first_removed(lines):
    del lines[0]


def moved(lines):
    lines[1], lines[2] = lines[2], lines[1]


def repeated(lines):
    lines.insert(2, lines[1])


def damaged(lines):
    lines[2] = b"\xff\x00 not json\n"


def emptied(lines):
    lines[1] = b"\n"


def renumbered(lines):
    del lines[1]
    for i in (1, 2):
        lines[i] = lines[i].replace(b'"number": %d' % (i + 2), b'"number": %d' % (i + 1))


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (changed, "line 3: does not hold the hash of line 2, which was changed since"),
        (removed, "line 2: says that it is number 3, so lines were removed, added or moved"),
        (first_removed, "line 1: says that it is number 2"),
        (moved, "line 2: says that it is number 3"),
        (repeated, "line 3: says that it is number 2"),
        (damaged, "line 3: is damaged"),
        (emptied, "line 2: is damaged"),
        (renumbered, "line 2: does not hold the hash of line 1"),
    ],
)
def test_a_ledger_that_was_tampered_with_is_refused_naming_the_line(ledger, tamper, words):
    lines = ledger.read_bytes().splitlines(keepends=True)
    tamper(lines)
    ledger.write_bytes(b"".join(lines))
    for attempt in (read_ledger, lambda path: append_line(path, {"event": "opened"})):
        with pytest.raises(RunError) as refused:
            attempt(ledger)
        assert words in str(refused.value)
        assert "restore it from a backup" in str(refused.value)
    assert ledger.read_bytes() == b"".join(lines)


def test_a_last_line_without_its_newline_is_completed(ledger):
    whole = ledger.read_bytes()
    ledger.write_bytes(whole[:-1])
    assert len(read_ledger(ledger)) == 3
    append_line(ledger, {"event": "opened", "what": 5})
    assert [line.entry["what"] for line in read_ledger(ledger)] == [1, 2, 3, 4, 5]
    assert ledger.read_bytes().startswith(whole)


@pytest.mark.parametrize("cut", [2, 20, 100])
def test_a_torn_last_line_is_kept_as_what_it_is_and_the_ledger_goes_on(ledger, cut):
    whole = ledger.read_bytes()
    torn = whole.splitlines()[3][:-cut]
    ledger.write_bytes(whole[: whole.rindex(torn)] + torn)
    append_line(ledger, {"event": "opened", "what": 5})
    lines = [line.entry for line in read_ledger(ledger)]
    assert [line["event"] for line in lines] == ["opened"] * 3 + ["torn", "opened"]
    assert lines[3]["text"] == torn.decode()
    assert lines[4]["what"] == 5


def test_a_line_torn_inside_a_letter_does_not_stop_the_ledger(ledger):
    ledger.write_bytes(ledger.read_bytes() + b'{"number": 5, "who": "\xc3')
    append_line(ledger, {"event": "opened", "what": 5})
    assert [line.entry["event"] for line in read_ledger(ledger)][-2:] == ["torn", "opened"]


def test_a_line_that_could_not_be_written_whole_leaves_the_ledger_as_it_was(ledger, monkeypatch):
    before = ledger.read_bytes() + b'{"number": 5, "torn'
    ledger.write_bytes(before)
    written = []
    pwrite = os.pwrite

    def fail_after_ten_bytes(file, data, at):
        written.append(at)
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        return pwrite(file, data[:10] if len(written) == 1 else data, at)

    monkeypatch.setattr(ledger_module.os, "pwrite", fail_after_ten_bytes)
    with pytest.raises(OSError, match="No space"):
        append_line(ledger, {"event": "opened"})
    assert ledger.read_bytes() == before


WRITER = """
import sys
from pathlib import Path
from ml_core.evaluation.ledger import append_line
for i in range(int(sys.argv[3])):
    append_line(Path(sys.argv[1]), {"event": "opened", "what": f"{sys.argv[2]}-{i}"})
    print(i, flush=True)
"""


def start_writer(path, name, num):
    command = [sys.executable, "-c", WRITER, str(path), name, str(num)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_processes_that_write_at_once_lose_no_line(tmp_path):
    path = tmp_path / "ledger.jsonl"
    writers = [start_writer(path, name, 40) for name in "abc"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    written = [line.entry["what"] for line in read_ledger(path)]
    assert sorted(written) == sorted(f"{name}-{i}" for name in "abc" for i in range(40))


def test_a_writer_waits_for_whoever_is_in_the_ledger(ledger):
    before = ledger.read_bytes()
    writer = threading.Thread(target=append_line, args=(ledger, {"event": "opened", "what": 5}))
    with open(ledger, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_SH)  # as a reader does; another writer holds more
        writer.start()
        writer.join(0.3)
        assert writer.is_alive() and ledger.read_bytes() == before
    writer.join(10)
    assert len(read_ledger(ledger)) == 5


def test_a_writer_killed_at_any_moment_leaves_what_it_had_said_was_written(tmp_path):
    path = tmp_path / "ledger.jsonl"
    writer = start_writer(path, "a", 100_000)
    said = [int(writer.stdout.readline()) for _ in range(20)]
    os.kill(writer.pid, signal.SIGKILL)
    said += [int(line) for line in writer.stdout if line.endswith("\n")]
    writer.wait(10)
    started = time.monotonic()
    append_line(path, {"event": "opened", "what": "after"})
    assert time.monotonic() - started < 5  # its lock went with it
    written = [line.entry.get("what") for line in read_ledger(path)]
    assert written[: len(said)] == [f"a-{i}" for i in said]
    assert written[-1] == "after"


# ---- openings ----------------------------------------------------------------------------------


def test_openings_are_counted_by_champion_and_the_unsealed_named(tmp_path):
    copy = tmp_path / "copy.jsonl"
    assert str(read_openings(X_SHA256, [tmp_path], None)) == "This test set has not been opened."
    record(tmp_path, 1)
    said = str(read_openings(X_SHA256, [tmp_path], copy))
    assert said == "This test set was opened once, by 1 champion."
    record(tmp_path, 2)  # the same champion again
    record(tmp_path, 3, champion="c2" * 32)
    said = str(read_openings(X_SHA256, [tmp_path], copy))
    assert said == "This test set was opened 3 times, by 2 champions."
    record(tmp_path, 4, champion=None, sealed=False)
    said = str(read_openings(X_SHA256, [tmp_path], copy))
    assert said == "This test set was opened 4 times, by 2 champions; once unsealed."


def test_only_unsealed_openings_are_by_no_champion(tmp_path):
    for number in (1, 2):
        record(tmp_path, number, champion=None, sealed=False)
    said = str(read_openings(X_SHA256, [tmp_path], None))
    assert said == "This test set was opened 2 times, by no champion; 2 times unsealed."


def test_an_opening_counts_whether_or_not_its_outcome_is_known(tmp_path):
    path = record(tmp_path, 1)
    record(tmp_path, 2)
    outcome = {"time": "2026-01-02T03:05:00+00:00", "outcome": "scored"}
    record_outcome(entry(1)["opening"], outcome, X_SHA256, path, tmp_path / "copy.jsonl")
    found = read_openings(X_SHA256, [tmp_path], None)
    assert [each.outcome for each in found.openings] == ["scored", ""]
    assert found.num == 2


def test_another_test_set_has_a_ledger_of_its_own(tmp_path):
    record(tmp_path, 1)
    assert read_openings("ab" * 32, [tmp_path], tmp_path / "copy.jsonl").num == 0
    assert ledger_path(tmp_path, X_SHA256).name == "test_openings-5ea15ea15ea1.jsonl"


@pytest.fixture
def read_only(small_disk):
    """A folder on a disk that can only be read, with one opening in its ledger."""
    record(small_disk, 1)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    return small_disk


def test_where_the_data_folder_cannot_be_written_the_next_folder_is_used_and_said(
    read_only, tmp_path, caplog
):
    copy = tmp_path / "copy.jsonl"
    with caplog.at_level(logging.WARNING):
        written = record_opening(entry(2), X_SHA256, [read_only, tmp_path / "runs"], copy)
    assert written == ledger_path(tmp_path / "runs", X_SHA256)
    assert "Read-only file system" in caplog.text and str(written) in caplog.text
    found = read_openings(X_SHA256, [read_only, tmp_path / "runs"], copy)
    assert found.num == 2 and found.num_lost == 0  # counted over both
    assert len(found.ledgers) == 2


def test_without_a_folder_to_write_in_nothing_is_opened(read_only, tmp_path):
    with pytest.raises(RunError, match=r"cannot be written down(.|\n)*data\.ledger_dir"):
        record_opening(entry(2), X_SHA256, [read_only], tmp_path / "copy.jsonl")


def test_a_full_disk_is_said_and_the_ledger_stays_whole(small_disk, tmp_path):
    record(small_disk, 1, tmp_path / "copy.jsonl")
    before = ledger_path(small_disk, X_SHA256).read_bytes()
    (small_disk / "ballast").write_bytes(bytes(248 * 1024))
    with pytest.raises(RunError, match=r"No space left on device(.|\n)*make room"):
        for number in range(2, 60):  # the rest of a page is free still
            before = ledger_path(small_disk, X_SHA256).read_bytes()
            record_opening(
                entry(number % 60), X_SHA256, [small_disk, tmp_path], tmp_path / "copy.jsonl"
            )
    assert ledger_path(small_disk, X_SHA256).read_bytes() == before
    assert not ledger_path(tmp_path, X_SHA256).exists()


def test_lines_cut_off_the_end_are_noticed_by_the_run_that_wrote_them(tmp_path):
    copy = tmp_path / "copy.jsonl"
    for number in (1, 2, 3):
        path = record(tmp_path, number)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0])
    found = read_openings(X_SHA256, [tmp_path], copy)
    assert (found.num, found.num_lost) == (3, 2)
    (finding,) = check_openings(found, champion=None)
    assert finding.id == "ledger-incomplete" and finding.message.startswith("2 lines about")


def test_a_changed_last_line_and_a_lost_ledger_are_noticed_by_the_run_too(tmp_path):
    copy = tmp_path / "copy.jsonl"
    path = record(tmp_path, 1)
    path.write_text(path.read_text().replace("ada@lab", "eve@lab"))
    found = read_openings(X_SHA256, [tmp_path], copy)
    assert (found.num, found.num_lost) == (1, 1)
    path.unlink()
    found = read_openings(X_SHA256, [tmp_path], copy)
    assert (found.num, found.num_lost, found.ledgers) == (1, 1, [])


def test_a_copy_cut_short_by_a_crash_says_nothing_and_a_damaged_one_is_refused(tmp_path):
    copy = tmp_path / "copy.jsonl"
    record(tmp_path, 1)
    copy.write_text(copy.read_text() + '{"number": 2, "ev')
    assert read_openings(X_SHA256, [tmp_path], copy).num_lost == 0
    copy.write_text("nonsense\n" + copy.read_text())
    with pytest.raises(RunError, match=r"copy\.jsonl is damaged"):
        read_openings(X_SHA256, [tmp_path], copy)


def test_a_champion_tested_after_others_could_have_been_chosen_by_their_scores(tmp_path):
    record(tmp_path, 1, champion=None, sealed=False)
    record(tmp_path, 2, champion="c1" * 32)
    record(tmp_path, 3, champion="c2" * 32)
    found = read_openings(X_SHA256, [tmp_path], None)
    (finding,) = check_openings(found, "c2" * 32)
    assert finding.id == "test-seen-before"
    assert "opened 2 times for others, once unsealed" in finding.message
    assert len(found.before_first_of("c1" * 32)) == 1


def test_the_first_champion_of_a_fresh_test_set_has_nothing_to_explain(tmp_path):
    record(tmp_path, 1)
    record(tmp_path, 2)
    assert check_openings(read_openings(X_SHA256, [tmp_path], None), "c1" * 32) == []
    assert check_openings(Openings([], []), "c1" * 32) == []


def test_a_torn_opening_is_none_since_no_patch_was_read_yet(tmp_path):
    path = record(tmp_path, 1)
    path.write_text(path.read_text() + json.dumps({"number": 2})[:-1])
    record(tmp_path, 2)
    found = read_openings(X_SHA256, [tmp_path], None)
    assert (found.num, found.num_torn) == (2, 1)
