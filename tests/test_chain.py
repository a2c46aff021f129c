"""chain.jsonl: each link proves all before it; stopped or not, the file is the same."""

import hashlib
import json

import numpy as np
import pytest
import torch

from ml_core.errors import RunError
from ml_core.runs import read_jsonl
from ml_core.tracking.chain import START, Chain, check_chain

EVERY = 3  # steps between links


def state_after(step):
    """A stand-in for weights: what `digest_state` would say after `step`."""
    return hashlib.sha256(str(step).encode()).hexdigest(), {"model.w": f"{step:016x}"}


def rows_of(step):
    return np.arange(4) + 10 * step


def train(chain, first, last):
    """Take the steps first..last, each on one batch, with a link every third."""
    for step in range(first, last + 1):
        chain.note_batch(rows_of(step))
        if step % EVERY == 0:
            chain.link(step, 1, *state_after(step))


@pytest.fixture
def straight(tmp_path):
    """The file of a training of 10 steps that nobody stopped."""
    chain = Chain(tmp_path / "straight.jsonl")
    train(chain, 1, 10)
    chain.close()
    return chain.path


def test_a_link_is_what_its_definition_says_with_nothing_but_sha256(tmp_path):
    chain = Chain(tmp_path / "chain.jsonl")
    chain.note_batch([3, 1])
    chain.note_batch([2])
    link = chain.link(2, 1, "ab" * 32, {"model.w": "0" * 16})
    batches = bytes(32)
    for rows in ([3, 1], [2]):
        batches = hashlib.sha256(batches + np.array(rows, "<i8").tobytes()).digest()
    assert link["batches"] == batches.hex()
    parts = json.dumps(["0" * 64, 2, 1, "ab" * 32, batches.hex()])
    assert link["chain"] == hashlib.sha256(parts.encode()).hexdigest()


def test_a_line_has_the_keys_that_are_documented_and_no_time(straight):
    first, *_ = read_jsonl(straight)
    assert [*first][:6] == ["step", "epoch", "chain", "state", "batches", "tensors"]
    assert "time" not in first
    assert first["tensors"] == {"model.w": f"{3:016x}"}


def test_rows_given_as_tensor_array_or_list_are_the_same_batch(tmp_path):
    links = set()
    for number, kind in enumerate((list, np.int32, np.int64, torch.tensor)):
        chain = Chain(tmp_path / f"{number}.jsonl")
        rows = [5, 70_000, 2]
        chain.note_batch(rows if kind is list else kind(rows))
        links.add(chain.link(1, 1, *state_after(1))["chain"])
    assert len(links) == 1


def test_a_link_covers_the_batches_since_the_last_one_only(tmp_path):
    links = []
    for name, before in (("a", [1]), ("b", [2])):
        chain = Chain(tmp_path / name)
        chain.note_batch(before)
        chain.link(1, 1, *state_after(1))
        chain.note_batch([3])
        links.append(chain.link(2, 1, *state_after(2)))
    assert links[0]["batches"] == links[1]["batches"]
    assert links[0]["chain"] != links[1]["chain"]


def test_the_order_of_rows_and_their_cut_into_batches_are_part_of_the_chain(tmp_path):
    links = set()
    cuts = ([[1, 2, 3]], [[1, 3, 2]], [[1, 2], [3]], [[1], [2, 3]], [[1, 2, 3], []], [])
    for number, batches in enumerate(cuts):
        chain = Chain(tmp_path / f"{number}.jsonl")
        for rows in batches:
            chain.note_batch(rows)
        links.add(chain.link(1, 1, *state_after(1))["batches"])
    assert len(links) == len(cuts)


@pytest.mark.parametrize("stop", range(10))
def test_a_chain_stopped_after_any_step_goes_on_to_the_same_file(straight, tmp_path, stop):
    chain = Chain(tmp_path / "chain.jsonl")
    train(chain, 1, stop)
    kept = json.loads(json.dumps(chain.position()))
    train(chain, stop + 1, stop + 2)  # steps that a kill took away after the checkpoint
    chain.close()
    resumed = Chain(chain.path)
    resumed.start_from(kept, stop)
    train(resumed, stop + 1, 10)
    resumed.close()
    assert chain.path.read_bytes() == straight.read_bytes()


def test_forgetting_the_batches_since_the_last_link_breaks_the_chain(straight, tmp_path):
    """The negative control of the test above: what `position` keeps is needed."""
    chain = Chain(tmp_path / "chain.jsonl")
    train(chain, 1, 4)
    resumed = Chain(chain.path)
    resumed.start_from({**chain.position(), "batches": START}, 4)
    train(resumed, 5, 10)
    assert chain.path.read_bytes() != straight.read_bytes()


def test_a_second_link_at_one_step_is_the_first(tmp_path):
    chain = Chain(tmp_path / "chain.jsonl")
    train(chain, 1, 3)
    again = chain.link(3, 2, *state_after(99))
    assert again["step"] == 3
    assert len(list(read_jsonl(chain.path))) == 1
    chain.close()
    reopened = Chain(chain.path)
    reopened.start_from(chain.position(), 3)
    assert reopened.link(3, 2, *state_after(99))["chain"] == again["chain"]
    assert len(list(read_jsonl(chain.path))) == 1


def test_each_link_depends_on_every_state_and_every_batch_before_it(straight, tmp_path):
    heads = [record["chain"] for record in read_jsonl(straight)]
    chain = Chain(tmp_path / "other.jsonl")
    chain.note_batch([7])  # one row more than the other saw, in the first batch
    train(chain, 1, 10)
    others = [record["chain"] for record in read_jsonl(chain.path)]
    assert len(heads) == len(others) == 3
    assert all(a != b for a, b in zip(heads, others, strict=True))


def test_a_checkpoint_that_the_file_does_not_lead_to_is_refused(straight):
    chain = Chain(straight)
    with pytest.raises(RunError, match=r"does not lead to the checkpoint at step 9.*start a new"):
        chain.start_from({"chain": "f" * 64, "batches": START}, 9)


def test_a_checkpoint_older_than_chains_goes_on_from_the_last_link(straight):
    chain = Chain(straight)
    chain.start_from(None, 7)
    assert [record["step"] for record in read_jsonl(straight)] == [3, 6]
    train(chain, 7, 9)
    check_chain(straight, list(read_jsonl(straight)))


def test_a_whole_chain_follows_from_line_to_line(straight):
    check_chain(straight, list(read_jsonl(straight)))


@pytest.mark.parametrize("key", ["step", "epoch", "state", "batches", "chain"])
@pytest.mark.parametrize("line", [0, 1, 2])
def test_a_changed_link_is_named(straight, key, line):
    records = list(read_jsonl(straight))
    changed = records[line][key]
    records[line][key] = changed + 1 if isinstance(changed, int) else "0" + changed[1:-1] + "f"
    with pytest.raises(RunError, match=rf"straight.jsonl, line {line + 1} .*does not follow"):
        check_chain(straight, records)


@pytest.mark.parametrize("tensors", [None, 3, []])
def test_a_link_that_names_no_tensors_was_changed(straight, tensors):
    records = list(read_jsonl(straight))
    records[1]["tensors"] = tensors
    with pytest.raises(RunError, match="line 2"):
        check_chain(straight, records)


def test_a_link_left_out_is_noticed(straight):
    records = list(read_jsonl(straight))
    with pytest.raises(RunError, match=r"line 2 \(step 9\)"):
        check_chain(straight, [records[0], records[2]])


def test_an_empty_file_is_a_chain_and_a_torn_line_is_cut(tmp_path):
    path = tmp_path / "chain.jsonl"
    check_chain(path, [])
    chain = Chain(path)
    train(chain, 1, 6)
    chain.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    again = Chain(path)
    again.start_from(None, 3)
    assert [record["step"] for record in read_jsonl(path)] == [3]


@pytest.mark.parametrize("saved_at", [2, 4])  # before the first link, and after it
def test_links_after_the_checkpoint_that_a_power_cut_made_rubbish_are_dropped(
    straight, tmp_path, saved_at
):
    chain = Chain(tmp_path / "chain.jsonl")
    train(chain, 1, saved_at)
    kept = chain.position()
    train(chain, saved_at + 1, 10)
    chain.close()
    lines = chain.path.read_bytes().splitlines(keepends=True)
    num_kept = saved_at // EVERY
    lines[num_kept] = b"\0" * 40 + lines[num_kept][40:]  # a page that was not written, then one
    chain.path.write_bytes(b"".join(lines))
    resumed = Chain(chain.path)
    resumed.start_from(kept, saved_at)
    train(resumed, saved_at + 1, 10)
    assert chain.path.read_bytes() == straight.read_bytes()


def test_a_damaged_link_that_a_checkpoint_needs_is_never_dropped(straight):
    chain = Chain(straight)
    kept = chain.position()
    chain.close()
    content = straight.read_bytes()
    straight.write_bytes(b"\0" * 40 + content[40:])
    with pytest.raises(RunError, match="line 1 is damaged"):
        Chain(straight).start_from(kept, 10)
    with pytest.raises(RunError, match="line 1 is damaged"):
        Chain(straight).link(12, 1, *state_after(12))
