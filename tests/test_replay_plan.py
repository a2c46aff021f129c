"""Which steps `verify` takes again, what it calls identical, and how it says so."""

import dataclasses
import json

import pytest

from ml_core.errors import ConfigError, RunError
from ml_core.runs import RunDir
from ml_core.verification.differences import MISSING, NOT_RECORDED, Difference
from ml_core.verification.replay_plan import DEFAULT_STEPS, plan_replay
from ml_core.verification.verdict import (
    BINDING_FOR_REPLAY,
    BINDING_FOR_TWO,
    NOW,
    Compared,
    compute_compared,
    judge,
    render_verdict,
)

SOME = Compared(first_step=1, last_step=50, steps=50, links=2, epochs=1)
COMMIT = Difference("code", "commit", "aaa", "bbb", "Check out aaa.")
EDITED = Difference("config", "config.yaml: optimizer.lr", "0.1", "0.2", "Put it back.")
PIXEL = Difference("data", "x.h5, rows 0 to 1023", "12ab", "34cd", "Put the old file back.")
STEP = Difference("numerics", "step 3: loss", "0.5", "0.6", "Look above.")


def write_log(path, steps, **values):
    path.write_text("".join(json.dumps({"step": step, **values}) + "\n" for step in steps))


def make_run(tmp_path, *, steps=0, links=(), checkpoints=(), epochs=(), name="a"):
    """A run directory that holds logs and nothing else."""
    run = RunDir(tmp_path / name)
    run.path.mkdir()
    write_log(run.steps_log_path, range(1, steps + 1), loss=0.5)
    write_log(run.chain_path, links)
    write_log(run.metrics_log_path, epochs, epoch=1)
    for step in checkpoints:
        (run.checkpoints_dir / f"step-{step:08d}").mkdir(parents=True)
    return run


def planned(run, **options):
    plan = plan_replay(run, **options)
    return plan.after_step, plan.last_step, plan.is_whole


def test_by_default_the_first_fifty_steps_or_as_many_as_there_are(tmp_path):
    assert DEFAULT_STEPS == 50
    assert planned(make_run(tmp_path, steps=200)) == (0, 50, False)
    assert planned(make_run(tmp_path, steps=6, name="b")) == (0, 6, True)


def test_steps_and_full_say_how_far(tmp_path):
    run = make_run(tmp_path, steps=200)
    assert planned(run, steps=7) == (0, 7, False)
    assert planned(run, steps=201) == (0, 200, True)
    assert planned(run, full=True) == (0, 200, True)
    with pytest.raises(ConfigError, match="give one of the two"):
        plan_replay(run, full=True, steps=3)


def test_from_a_checkpoint_to_the_next_state_on_record(tmp_path):
    run = make_run(tmp_path, steps=200, links=[50, 100, 150], checkpoints=[60, 90, 150])
    assert planned(run, from_step=60) == (60, 90, False)
    assert planned(run, from_step=90) == (90, 100, False)
    assert planned(run, from_step=150) == (150, 200, True)
    assert planned(run, from_step=60, steps=5) == (60, 65, False)
    assert planned(run, from_step=60, full=True) == (60, 200, True)
    assert plan_replay(run, from_step=60).checkpoint == run.checkpoints_dir / "step-00000060"


def test_a_checkpoint_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    run = make_run(tmp_path, steps=200, checkpoints=[90, 60])
    (run.checkpoints_dir / "last").symlink_to("step-00000090")
    with pytest.raises(RunError, match=r"no checkpoint at step 70; there are: 60, 90\. Give"):
        plan_replay(run, from_step=70)
    bare = make_run(tmp_path, steps=3, name="b")
    with pytest.raises(RunError, match="there are: none"):
        plan_replay(bare, from_step=2)


def test_a_run_without_a_step_to_take_again_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"logged 0 steps.*Verify a run that trained"):
        plan_replay(make_run(tmp_path))
    ended = make_run(tmp_path, steps=90, checkpoints=[90], name="b")
    with pytest.raises(RunError, match=r"none after step 90.*Choose an earlier checkpoint"):
        plan_replay(ended, from_step=90)


def test_only_what_both_have_on_record_beyond_the_start_counts_as_compared(tmp_path):
    a = make_run(tmp_path, steps=8, links=[3, 6, 8], epochs=[4, 8])
    b = make_run(tmp_path, steps=6, links=[3, 6], epochs=[4], name="b")
    assert compute_compared(a, b) == Compared(1, 6, steps=6, links=2, epochs=1, of_steps=8)
    assert compute_compared(a, b, after_step=4) == Compared(5, 6, 2, 1, epochs=0, of_steps=8)


@pytest.mark.parametrize(
    ("difference", "of_a_replay", "of_two"),
    [(COMMIT, True, True), (EDITED, False, True), (PIXEL, False, False), (STEP, False, False)],
)
def test_the_bits_decide_and_a_record_must_be_what_was_run(difference, of_a_replay, of_two):
    replayed = judge("a", NOW, SOME, [difference], BINDING_FOR_REPLAY)
    assert replayed.identical is of_a_replay
    assert judge("a", "b", SOME, [difference], BINDING_FOR_TWO).identical is of_two


def test_nothing_compared_is_not_identical_but_refused():
    with pytest.raises(RunError, match="no logged step in common"):
        judge("a", "b", Compared(0, 0, 0, 0, 0), [], BINDING_FOR_TWO)


def test_an_identical_run_says_how_much_was_compared():
    text = render_verdict(judge("a", NOW, SOME, [], BINDING_FOR_REPLAY))
    assert text == (
        "identical: 50 steps (1 to 50): every loss and gradient norm, 2 digests of weights and "
        "optimizer, the scores of 1 epoch, bit for bit"
    )


def test_a_part_says_of_how_much_it_is_a_part_and_what_it_does_not_hold():
    part = Compared(first_step=1, last_step=3, steps=3, links=0, epochs=0, of_steps=1200)
    text = render_verdict(judge("a", NOW, part, [], BINDING_FOR_REPLAY))
    assert text == (
        "identical: 3 of 1,200 steps (1 to 3): every loss and gradient norm, bit for bit\n"
        "weights were not compared: no digest of them is on record of these steps"
    )
    assert str(Compared(1, 6, 6, 1, 0, 6, 2)).endswith("optimizer, the weights in 2 checkpoints")


@pytest.mark.parametrize("said", [NOT_RECORDED, MISSING])
def test_what_nothing_is_known_of_is_said_and_is_no_difference(said):
    unknown = Difference("config", "config.yaml", "as run.json has it", said, "Copy it again.")
    assert judge("a", NOW, SOME, [unknown], BINDING_FOR_REPLAY).identical
    verdict = judge("a", NOW, SOME, [unknown, PIXEL, STEP], BINDING_FOR_REPLAY)
    assert verdict.differences == [PIXEL, unknown, STEP]


def test_what_has_no_cause_goes_first_and_else_the_first_possible_cause():
    harmless = dataclasses.replace(COMMIT, is_harmless=True)
    edited_weights = dataclasses.replace(STEP, is_edit=True)

    def order(*differences):
        return list(judge("a", NOW, SOME, differences, BINDING_FOR_REPLAY).differences)

    assert order(COMMIT, EDITED) == [EDITED, COMMIT]  # no bit differs: the code did nothing
    assert order(COMMIT, edited_weights) == [edited_weights, COMMIT]
    assert order(COMMIT, PIXEL, STEP) == [COMMIT, PIXEL, STEP]
    assert order(harmless, PIXEL, STEP) == [PIXEL, harmless, STEP]
    assert order(COMMIT) == [COMMIT]


def test_where_only_a_file_was_edited_the_bits_are_said_to_be_the_same():
    text = render_verdict(judge("a", NOW, SOME, [EDITED], BINDING_FOR_REPLAY))
    assert text.splitlines()[-1].endswith("1 epoch; all of it the same, bit for bit")
    text = render_verdict(judge("a", NOW, SOME, [EDITED, STEP], BINDING_FOR_REPLAY))
    assert text.splitlines()[-1].endswith("1 epoch")


def test_what_was_edited_in_one_of_two_runs_is_not_laid_to_first_and_second():
    edited = dataclasses.replace(EDITED, is_edit=True)
    text = render_verdict(judge("a", "b", SOME, [edited, PIXEL], BINDING_FOR_TWO))
    assert "optimizer.lr: was 0.1, is 0.2" in text
    assert "12ab (first), 34cd (second)" in text


def test_what_changed_no_bit_is_said_all_the_same():
    text = render_verdict(judge("a", NOW, SOME, [COMMIT], BINDING_FOR_REPLAY))
    assert text.splitlines()[1:] == [
        "these differ, and changed no bit of it:",
        "  code: commit: was aaa, is bbb",
    ]


def test_the_first_difference_comes_with_its_advice_and_the_others_follow():
    text = render_verdict(judge("a", "b", SOME, [COMMIT, PIXEL, STEP], BINDING_FOR_TWO))
    assert text.splitlines()[:-1] == [
        "not identical; the first difference is of code:",
        "  code: commit: aaa (first), bbb (second)",
        "  Check out aaa.",
        "besides:",
        "  data: x.h5, rows 0 to 1023: 12ab (first), 34cd (second)",
        "  numerics: step 3: loss: 0.5 (first), 0.6 (second)",
    ]


def test_a_single_step_reads_as_one():
    text = str(Compared(first_step=61, last_step=61, steps=1, links=1, epochs=0))
    assert text == (
        "1 step (step 61): every loss and gradient norm, 1 digest of weights and optimizer"
    )
