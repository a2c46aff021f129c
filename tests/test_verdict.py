"""How a verdict reads when there is much to say."""

from ml_core.verification.differences import Difference
from ml_core.verification.verdict import NOW, Compared, Verdict, render_verdict


def difference(kind, number):
    return Difference(kind, f"thing {number}", "a", "b", f"mend thing {number}")


def test_of_many_differences_of_a_kind_four_are_said_and_the_others_counted():
    differences = [difference("code", n) for n in range(7)] + [difference("numerics", 7)]
    verdict = Verdict("runs/a", NOW, False, Compared(1, 50, 50, 1, 0), differences)
    assert render_verdict(verdict).splitlines() == [
        "not identical; the first difference is of code:",
        "  code: thing 0: was a, is b",
        "  mend thing 0",
        "besides:",
        "  code: thing 1: was a, is b",
        "  code: thing 2: was a, is b",
        "  code: thing 3: was a, is b",
        "  code: thing 4: was a, is b",
        "  code: and 2 more; --json lists them all",
        "  numerics: thing 7: was a, is b",
        "compared: 50 steps (1 to 50): every loss and gradient norm, 1 digest of weights and "
        "optimizer",
    ]


def test_what_changed_no_bit_is_counted_alike():
    differences = [difference("packages", n) for n in range(5)]
    text = render_verdict(Verdict("runs/a", NOW, True, Compared(1, 1, 1, 0, 0), differences))
    assert "packages: and 1 more; --json lists them all" in text
    assert "mend" not in text
