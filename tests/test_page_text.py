import math

import pytest

from ml_core.page.text import enumerated, percent


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [
        (0.8714, 1, "87.1 %"),
        (0.5, 0, "50 %"),
        (0, 1, "0.0 %"),
        (0.0005, 1, "0.1 %"),
        (0.0004, 1, "< 0.1 %"),
        (0.004, 0, "< 1 %"),
        (1, 1, "100.0 %"),
        (math.nan, 1, "–"),
        (None, 1, "–"),
    ],
)
def test_a_share_is_written_as_percent_and_a_small_one_never_as_nothing(share, digits, text):
    assert percent(share, digits) == text


def test_names_are_enumerated_as_in_a_sentence():
    assert enumerated([]) == ""
    assert enumerated(["train"]) == "train"
    assert enumerated(["train", "valid"]) == "train and valid"
    assert enumerated(["train", "valid", "test"]) == "train, valid and test"
