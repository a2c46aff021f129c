import time

import numpy as np
import pandas as pd
import pytest

from ml_core.evaluation.slices.facts import FACTS
from ml_core.evaluation.slices.query import compile_query
from ml_core.evaluation.slices.standard import ENDS_OF, MOST_NAMED, standard_slices


def make_facts(num=1000, **columns):
    generator = np.random.default_rng(0)
    numbers = {name: generator.lognormal(3, 1, num) for name in ENDS_OF}
    return pd.DataFrame({**numbers, **columns})


def named(slices):
    return {piece.name: piece for piece in slices}


def test_both_ends_of_every_number_are_slices_of_a_fifth():
    facts = make_facts()
    slices = standard_slices(facts[list(ENDS_OF)])
    assert len(slices) == 2 * len(ENDS_OF)
    for name, low, high in zip(ENDS_OF, slices[::2], slices[1::2], strict=True):
        order = facts[name].rank().to_numpy()
        for piece, cut in ((low, order <= 200), (high, order > 800)):
            assert np.count_nonzero(piece.mask != cut) <= 5
            assert piece.group == FACTS[name].group
        assert low.name == f"{FACTS[name].least} fifth"
        assert high.name == f"{FACTS[name].most} fifth"


def test_the_query_of_a_slice_gives_its_mask_in_few_digits():
    facts = make_facts(
        slide=np.array(["a 'b\" `&", 'a "c"', "\\n", "x\ny", None] * 200, object),
        tumour_at=np.array(["none", "edge only", "centre", None] * 250, object),
        num_copies=np.array([1.0, 2.0] * 500),
        position_x=np.linspace(0, 1, 1000),
        position_y=np.linspace(1, 0, 1000) ** 2,
    )
    slices = standard_slices(facts)
    assert len(slices) == 22 + 4 + 3 + 1 + 2
    for piece in slices:
        mask = compile_query(piece.where, list(facts)).mask(facts)
        assert (mask == piece.mask).all(), piece.where
        assert piece.said
        if piece.group == "stain":
            assert len(piece.where.split()[-1]) <= 6


def test_equal_values_stay_together_and_the_name_says_how_many_they_are():
    shares = np.concatenate([np.zeros(300), np.linspace(0.1, 1, 700)])
    low, high = standard_slices(pd.DataFrame({"white_share": shares}))
    assert low.mask.tolist() == (shares == 0).tolist()
    assert (low.name, high.name) == ("least white 30 %", "whitest fifth")


def test_a_constant_has_no_ends_and_neither_has_a_tie_of_most_patches():
    constant = pd.DataFrame({"brightness": np.full(100, 7.0)})
    assert standard_slices(constant) == []
    mostly_one = pd.DataFrame({"white_share": np.where(np.arange(100) < 85, 0.0, 1.0)})
    (high,) = standard_slices(mostly_one)
    assert (high.name, len(high)) == ("whitest 15 %", 15)


def test_neighbouring_floats_are_told_apart():
    low, high = np.nextafter(0.1, 0), 0.1
    facts = pd.DataFrame({"eosin": [low] * 20 + [high] * 80})
    (piece,) = standard_slices(facts)
    assert piece.mask.tolist() == [True] * 20 + [False] * 80


def test_a_number_that_hardly_varies_gets_as_many_digits_as_it_needs():
    low, high = standard_slices(pd.DataFrame({"eosin": 1000 + np.linspace(0, 1, 1000)}))
    assert (low.where, high.where) == ("eosin < 1000.2", "eosin >= 1000.8")
    assert len(low) == len(high) == 200


def test_unknown_values_are_in_neither_end_and_are_counted():
    values = np.arange(100, dtype=float)
    values[::10] = np.nan
    low, high = standard_slices(pd.DataFrame({"hue": values}))
    assert not (low.mask | high.mask)[::10].any()
    assert len(low) == len(high) == 18
    assert low.said.endswith("; not known of 10")


def test_each_slide_is_a_slice_and_of_many_the_largest():
    few = np.array(["s2", "s1", "s1", None], object)
    slices = standard_slices(pd.DataFrame({"slide": few}))
    assert [(piece.name, piece.mask.tolist()) for piece in slices] == [
        ("slide s1", [False, True, True, False]),
        ("slide s2", [True, False, False, False]),
    ]
    many = np.array([f"s{i}" for i in range(60) for _ in range(i + 1)], object)
    slices = standard_slices(pd.DataFrame({"slide": many}))
    assert [piece.name for piece in slices] == [f"slide s{i}" for i in range(59, 9, -1)]
    assert len(slices) == MOST_NAMED
    assert all(piece.said.endswith("one of the 50 with most patches, of 60") for piece in slices)


def test_slices_with_the_same_patches_are_one_and_say_so():
    slide = np.array(["s1", "s1", "s2", "s3"], object)
    patient = np.array(["p1", "p1", "p2", "p2"], object)
    slices = named(standard_slices(pd.DataFrame({"slide": slide, "patient": patient})))
    assert list(slices) == ["slide s1", "slide s2", "slide s3", "patient p2"]
    assert slices["slide s1"].said == "slide s1; the same patches as patient p1"


def test_repeats_blank_patches_and_places_are_slices_where_they_are_known():
    facts = pd.DataFrame(
        {
            "num_copies": [1.0, 2, 2, 1, 1],
            "tissue_share": [0.05, 0.5, 0.5, 0.9, 1],
            "tumour_at": np.array(["none", "edge only", "centre", None, "none"], object),
            "position_x": [0.05, 0.5, 0.5, 0.3, np.nan],
            "position_y": [0.5, 0.5, 0.99, 0.7, 0.5],
        }
    )
    slices = named(standard_slices(facts))
    found = {name: np.flatnonzero(piece.mask).tolist() for name, piece in slices.items()}
    expected = {
        "emptiest fifth": [0],
        "fullest fifth": [4],
        "repeated": [1, 2],
        "tumour at the edge only": [1],
        "tumour in the centre": [2],
        "no tumour at all": [0, 4],
        "edge of the slide": [0, 2],
        "middle of the slide": [1, 3],
    }
    assert found == expected
    assert slices["emptiest fifth"].said.endswith("as nearly blank")
    bare = standard_slices(facts[["position_x", "num_copies"]])
    assert "repeated" in named(bare)
    assert "edge of the slide" not in named(bare)


def test_nothing_that_knows_the_label_is_cut_into_fifths():
    facts = make_facts(label=np.arange(1000.0) % 2, label_belief=np.linspace(0, 1, 1000))
    assert not any("label" in piece.where for piece in standard_slices(facts))


def test_slices_of_as_many_patches_as_a_whole_split_take_little_time():
    num = 32_768
    facts = make_facts(num, slide=np.array([f"s{i % 80}" for i in range(num)], object))
    start = time.perf_counter()
    slices = standard_slices(facts)
    assert time.perf_counter() - start < 5
    assert len(slices) == 22 + MOST_NAMED


def test_a_split_of_one_slide_has_no_slice_of_it():
    facts = pd.DataFrame({"slide": np.array(["s"] * 4, object), "num_copies": np.ones(4)})
    assert standard_slices(facts) == []


@pytest.mark.parametrize("num", [1, 2, 5])
def test_a_handful_of_patches_gives_slices_or_none_but_no_error(num):
    for piece in standard_slices(make_facts(num)):
        assert 0 < len(piece) < num
