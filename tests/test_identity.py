import numpy as np
import pandas as pd
from measured import measure_table

from ml_core.audit.checks.identity import check_identity, official_split

# From the table of true checksums; the one in PCam's README has valid and test swapped.
VALID_X = "81cf9680f1724c40673f10dc88e909b1"
TEST_X = "2614b2e6717d6356be141d9d6dbfcb7e"


def noise(num, seed):
    return np.random.default_rng(seed).integers(0, 256, (num, 32, 32, 3), dtype=np.uint8)


def table(**splits):
    tables = [measure_table(levels, split=split) for split, levels in splits.items()]
    return pd.concat(tables, ignore_index=True)


def check(md5, **splits):
    return check_identity(md5, table(**splits))


def test_an_md5_names_the_official_split():
    assert official_split(VALID_X) == "valid" and official_split(TEST_X) == "test"
    assert official_split("0" * 32) is None and official_split(None) is None


def test_official_files_under_their_own_names_are_a_note():
    findings = check({"valid": VALID_X, "test": TEST_X}, valid=noise(4, 0), test=noise(4, 1))
    assert [(f.id, f.severity, f.split) for f in findings] == [
        ("official", "info", "valid"),
        ("official", "info", "test"),
    ]


def test_valid_and_test_swapped_are_two_errors():
    findings = check({"valid": TEST_X, "test": VALID_X}, valid=noise(4, 0), test=noise(4, 1))
    assert [(f.id, f.severity) for f in findings] == [("splits-swapped", "error")] * 2
    assert findings[0].message == "valid: this file is PCam's official test split, by its MD5."


def test_other_files_are_said_not_to_be_official_and_that_it_is_no_fault():
    (finding,) = check({"train": None, "valid": "0" * 32}, train=noise(4, 0), valid=noise(4, 1))
    assert (finding.id, finding.severity) == ("not-official", "info")
    assert finding.message.startswith("train and valid: not the official PCam file")


def test_a_split_that_is_a_copy_or_a_part_of_another_is_an_error():
    train = noise(20, 0)
    inside = np.concatenate([train[5:13], noise(2, 1)])
    findings = check({}, train=train, valid=inside)
    assert [(f.id, f.severity, f.split) for f in findings] == [
        ("split-inside-another", "error", "valid")
    ]
    assert findings[0].indices == tuple(range(8)) and findings[0].share == 0.8
    assert "8 of 10 patches (80 %) are also in train" in findings[0].message
    assert len(check({}, train=train, valid=train)) == 2


def test_a_few_shared_patches_are_not_a_copy():
    train = noise(20, 0)
    assert check({}, train=train, valid=np.concatenate([train[:4], noise(6, 1)])) == []


def test_constant_patches_say_nothing_about_identity():
    blank = np.full((9, 32, 32, 3), 255, np.uint8)
    train, valid = (np.concatenate([blank, noise(2, seed)]) for seed in (0, 1))
    assert check({}, train=train, valid=valid) == []
