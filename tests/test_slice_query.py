import ast
import itertools
import operator

import numpy as np
import pandas as pd
import pytest

from ml_core.errors import ConfigError
from ml_core.evaluation.slices.own import own_slices
from ml_core.evaluation.slices.query import MAX_DEPTH, MAX_LENGTH, compile_query

NAN = float("nan")


@pytest.fixture
def facts():
    return pd.DataFrame(
        {
            "brightness": [50.0, 100.0, 150.0, NAN],
            "focus": [1.0, 2.0, 3.0, 4.0],
            "hue": [300.0, NAN, 200.0, NAN],
            "label": [0.0, 1.0, 0.0, 1.0],
            "slide": pd.Series(["a", "b", None, "a"], dtype=object),
            "flags": pd.Series(["x y", "", "x-y", None], dtype=object),
        }
    )


def rows(query, facts):
    """Return the rows that the query holds for."""
    return np.flatnonzero(compile_query(query, list(facts)).mask(facts)).tolist()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("brightness < 120", [0, 1]),
        ("brightness <= 100", [0, 1]),
        ("brightness > 100", [2]),
        ("brightness >= 100", [1, 2]),
        ("brightness == 100", [1]),
        ("brightness != 100", [0, 2]),
        ("50 < brightness <= 100", [1]),
        ("1 < focus < 4 != label", [1, 2]),
        ("focus in [1, 4]", [0, 3]),
        ("focus not in (1, 4)", [1, 2]),
        ("focus in []", []),
        ("focus - 1 < brightness / 100 * 2", [0, 1, 2]),
        ("-focus < -2", [2, 3]),
        ("label == True and focus > 2", [3]),
        ("True", [0, 1, 2, 3]),
        ('slide == "a"', [0, 3]),
        ("slide != 'a'", [1]),
        ('slide in ["a", "c"]', [0, 3]),
        ('`slide` == "a" and `focus` < 2', [0]),
        ("\n  brightness < 120\n  and\tfocus > 1\n", [1]),
    ],
)
def test_a_query_holds_where_its_words_say(facts, query, expected):
    assert rows(query, facts) == expected


@pytest.mark.parametrize(
    "query",
    [
        "brightness < 120 & focus > 1",
        "brightness < 120 | focus > 3",
        "brightness > 60 | focus > 1 & label == 1",
        "(brightness < 120) & ~(focus > 1)",
        "not label == 1 & focus > 0",
        "focus in [1, 2] and brightness < 80 or label == 1",
        "40 < brightness < 120",
        "focus * 2 - 1 > brightness / 50",
        "slide == 'a' | slide == 'b'",
    ],
)
def test_pandas_itself_gives_the_same_rows_where_nothing_is_missing(facts, query):
    known = facts.drop(columns=["hue", "flags"]).dropna().reset_index(drop=True)
    assert rows(query, known) == known.query(query).index.tolist()


def test_random_queries_over_numbers_are_what_pandas_gives():
    generator = np.random.default_rng(0)
    facts = pd.DataFrame(generator.integers(0, 4, (60, 3)).astype(float), columns=list("xyz"))

    def draw(depth):
        if depth == 0 or generator.random() < 0.2:
            left, right = generator.choice(["x", "y", "z", "1", "2", "x + y", "3 - z"], 2)
            return f"{left} {generator.choice(['<', '<=', '>', '>=', '==', '!='])} {right}"
        kind = generator.choice(["&", "|", "and", "or", "not"])
        if kind == "not":
            return f"not ({draw(depth - 1)})"
        return f"({draw(depth - 1)}) {kind} {draw(depth - 1)}"

    for _ in range(100):
        query = draw(3)
        kept = facts.eval(query)
        expected = np.broadcast_to(kept, len(facts))  # of constants alone pandas gives one value
        assert (compile_query(query, list(facts)).mask(facts) == expected).all(), query


def test_a_missing_value_is_neither_inside_nor_outside(facts):
    assert rows("hue < 250", facts) == [2]
    assert rows("not hue < 250", facts) == [0]
    assert rows("hue < 250 or focus > 3", facts) == [2, 3]
    assert rows("hue < 250 and focus > 3", facts) == []
    assert rows("not (hue < 250 and focus < 1)", facts) == [0, 1, 2, 3]
    assert rows("hue + focus > 0", facts) == [0, 2]
    assert rows('slide not in ["b"]', facts) == [0, 3]


def test_missing_is_asked_for_with_none(facts):
    assert rows("hue == None", facts) == [1, 3]
    assert rows("None != hue", facts) == [0, 2]
    assert rows("slide == None", facts) == [2]
    assert rows('slide in ["b", None]', facts) == [1, 2]
    assert rows("not slide == None", facts) == [0, 1, 3]


def test_what_is_divided_by_zero_is_missing(facts):
    assert rows("focus / (label - 1) < 0", facts) == [0, 2]
    assert rows("focus / 0 > 1 or not focus / 0 > 1", facts) == []


def test_a_flag_is_found_among_the_flags_as_a_whole_word(facts):
    assert rows('"x" in flags', facts) == [0]
    assert rows('"x" not in flags', facts) == [1, 2]
    assert rows('flags == ""', facts) == [1]


def test_the_kleene_tables_are_complete():
    values = {True: 1.0, False: 0.0, None: NAN}
    pairs = list(itertools.product(values, values))
    facts = pd.DataFrame([(values[a], values[b]) for a, b in pairs], columns=["x", "y"])

    def truth(query):
        found = compile_query(query, ["x", "y"]).truth(facts)
        return [
            True if h else False if f else None
            for h, f in zip(found.holds, found.fails, strict=True)
        ]

    def both(a, b):
        return False if a is False or b is False else None if None in (a, b) else True

    def negated(a):
        return None if a is None else not a

    assert truth("x == 1 and y == 1") == [both(a, b) for a, b in pairs]
    assert truth("x == 1 or y == 1") == [negated(both(negated(a), negated(b))) for a, b in pairs]
    assert truth("not x == 1") == [negated(a) for a, _ in pairs]


UNSAFE = [
    ('__import__("os").system("touch hacked")', "a call is not allowed", 1),
    ("brightness.mean() < 3", "a call is not allowed", 1),
    ("focus > 1 and brightness.values < 3", "a dot is not allowed", 15),
    ("().__class__ == 3", "a dot is not allowed", 1),
    ('slide[0] == "a"', "an index in square brackets is not allowed", 1),
    ("brightness < @limit", "a slice knows no variables", 14),
    ("lambda: 1", "lambda is not allowed", 1),
    ("[x for x in slide] == 1", "a comprehension is not allowed", 1),
    ("focus in [x for x in slide]", "a comprehension is not allowed", 10),
    ('f"{slide}" == "a"', "an f-string is not allowed", 1),
    ("(x := 3) > 2", ":= is not allowed", 2),
    ("focus if True else label", "if ... else is not allowed", 1),
    ("focus in [*slide]", "a star is not allowed", 11),
    ("9 ** 9 ** 9 > focus", "** is not allowed", 1),
    ('slide == "a" * 9', "text cannot be reckoned with", 10),
    ("1 << 2 < focus", "<< is not allowed", 1),
    ('slide == b"a"', "neither a number nor a text", 10),
    ("focus < 1j", "neither a number nor a text", 9),
    ("focus < ...", "neither a number nor a text", 9),
    ("(yield focus) < 1", "a column, a number or a text", 2),
    ("{focus: 1} == 1", "a dict is not allowed", 1),
    ("focus <\0 3", "no condition", 1),
    ("import os", "no condition", 1),
    ("focus > 1; focus", "no condition", 10),
]
WRONG = [
    ("brightnes < 3", "there is no column 'brightnes'", 1),
    ("focus > 1 and", "no condition", None),
    ("focus = 3", "write == to compare", 7),
    ("focus > 1 && label == 1", "write one &, or and", 12),
    ("focus > 1 # and label == 1", "a comment is not allowed", 11),
    ('slide == "a', 'the " is never closed', 10),
    ("`focus < 3", "the ` is never closed", 1),
    ("(focus > 2", "never closed", 1),
    ('slide == "ä" and `focus` < "b"', "a number cannot be compared with text", 28),
    ("slide > 3", "text cannot be compared with a number", 9),
    ('slide in ["a", 3]', "text cannot be compared with a number", 16),
    ('slide < "b"', "texts have no order", 9),
    ("focus", "a condition is needed", 1),
    ("focus > 1 or label", "a condition is needed", 14),
    ("(focus > 1) == (label > 0)", "a column, a number or a text", 2),
    ("~focus < 3", "binds more tightly", 1),
    ("focus is None", "`is` cannot be used; write ==", 10),
    ("focus < None", "None stands for a missing value", 9),
    ("None == None", "None stands for a missing value", 9),
    ('slide in "a"', "needs a list in square brackets", 10),
    ('"a" in slide', "needs a list in square brackets", 8),
    ("focus in flags", "needs a list in square brackets", 10),
    ("focus in [label]", "a list holds", 11),
    (f"{'9' * 400} > focus", "too large", 1),
]


@pytest.mark.parametrize(("query", "problem", "place"), UNSAFE + WRONG)
def test_anything_else_is_refused_with_its_place_and_what_is_allowed(
    facts, query, problem, place, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        compile_query(query, list(facts), "mine").mask(facts)
    message = str(caught.value)
    assert message.startswith("slice 'mine': ")
    assert problem in message
    assert "Allowed are comparisons" in message
    if place is not None:
        assert f"at character {place} of" in message
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_column_is_named_with_the_nearest_one(facts):
    with pytest.raises(ConfigError, match=r"columns here are: brightness, .* mean 'brightness'\?"):
        compile_query("brightnes < 3", list(facts))


@pytest.mark.parametrize("name", ["y_prob", "logit", "y_pred"])
def test_a_slice_cannot_be_made_of_the_models_own_output(facts, name):
    with pytest.raises(ConfigError, match="never about what the model says of it"):
        compile_query(f"{name} > 0.5", list(facts))


def test_a_fact_that_is_known_elsewhere_is_said_to_be_unknown_here(facts):
    with pytest.raises(ConfigError, match="tumour_at is known of none of these patches"):
        compile_query('tumour_at == "centre"', list(facts))
    query = compile_query("eosin > 1 and focus > 1", ["eosin", "focus"], "mine")
    with pytest.raises(ConfigError, match=r"'mine': .* reads eosin, which is known of none"):
        query.mask(facts)


@pytest.mark.parametrize("query", ["", "  \n", "not " * 60 + "True", "(" * 240 + "1" + ")" * 240])
def test_an_empty_query_and_one_that_is_too_deep_are_refused(facts, query):
    with pytest.raises(ConfigError, match=r"empty|within each other|no condition"):
        compile_query(query, list(facts))


def test_length_and_depth_are_bounded_and_what_is_within_the_bounds_works(facts):
    ten = " or ".join(["focus == 1"] * 10)
    assert rows(ten, facts) == [0]
    longest = ten + " " * (MAX_LENGTH - len(ten))
    assert rows(longest, facts) == [0]
    with pytest.raises(ConfigError, match=f"has {MAX_LENGTH + 1} characters"):
        rows(longest + " ", facts)
    deepest = "not " * (MAX_DEPTH - 2) + "focus == 1"  # the comparison and its sides are two
    assert rows(deepest, facts) == [0]
    with pytest.raises(ConfigError, match="within each other"):
        rows("not " + deepest, facts)


def test_every_node_of_pythons_syntax_that_is_not_listed_is_refused(facts):
    """A white list: new syntax cannot get in by being forgotten."""
    allowed = {
        ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Constant, ast.Name, ast.List,
        ast.Tuple, ast.Set,
    }  # fmt: skip
    examples = [
        "await focus", "(yield)", "[1, 2][0]", "f(1)", "a.b", "lambda: 0", "{1: 2}",
        "1 if 1 else 2",
        "f''", "(a := 1)", "[*a]", "[a for a in a]", "{a for a in a}", "{a: a for a in a}",
        "(a for a in a)",
    ]  # fmt: skip
    seen = set()
    for example in examples:
        seen.add(type(ast.parse(example, mode="eval").body))
        for query in (
            example,
            f"({example}) == 1",
            f"focus in [{example}]",
            f"({example}) + 1 < 2",
        ):
            with pytest.raises(ConfigError):
                compile_query(query, [*facts, "a", "f"])
    others = {kind for kind in ast.expr.__subclasses__() if kind.__module__ == "ast"}
    not_parsed_alone = {ast.Starred, ast.Slice, ast.FormattedValue, ast.YieldFrom}
    known = allowed | seen | not_parsed_alone
    assert {kind.__name__ for kind in others - known} <= {"TemplateStr", "Interpolation"}


def test_the_operators_of_a_query_are_all_that_it_can_call(facts):
    for sign, function in (("+", operator.add), ("-", operator.sub), ("*", operator.mul)):
        expected = np.flatnonzero(function(facts["focus"], 2.0) > 4).tolist()
        assert rows(f"focus {sign} 2 > 4", facts) == expected


def test_own_slices_keep_their_names_and_queries_and_say_what_they_hold(facts):
    bluish, none, everything = own_slices(
        {"bluish": "hue <\n 250", "none": "focus < 0", "all": "focus > 0"}, facts
    )
    assert (bluish.name, bluish.group, bluish.kind) == ("bluish", "own", "own")
    assert bluish.where == "hue <\n 250"
    assert bluish.mask.tolist() == [False, False, True, False]
    assert len(bluish) == 1
    assert bluish.said == "hue < 250; not known of 2 patches"
    assert none.said == "focus < 0; holds no patch"
    assert everything.said == "focus > 0; holds every patch, so that there is no rest"


def test_an_own_slice_that_is_wrong_is_named(facts):
    with pytest.raises(ConfigError, match="slice 'second': there is no column"):
        own_slices({"first": "focus > 1", "second": "foo > 1"}, facts)
