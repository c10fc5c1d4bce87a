"""What parameters accept, at the edges, and in which words the rest is refused."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_run import rules
from distill_run.errors import Mistake, RejectedValueError, UserError, first_line, show, user_error
from distill_run.rules import Rule, list_of, one_of, optional, whole
from helpers import examples, message_of

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
# Of those that answer with the same words to any value; tests/test_schema.py tries the others.
RULES = [rule for rule in vars(rules).values() if type(rule) is Rule]


@pytest.mark.parametrize(
    ("rule", "accepted", "refused"),
    [
        (rules.POSITIVE, [1, 0.5, 1e-300], [0, 0.0, -1, math.nan, math.inf, -math.inf, True, "1", None, [1]]),
        (rules.NOT_NEGATIVE, [0, 0.0, 3], [-1e-9, math.nan, math.inf, False, "0", None]),
        (rules.FRACTION, [0, 1, 0.0, 1.0, 0.5], [-1e-9, 1 + 1e-9, 2, math.nan, True, False, "0.5", None]),
        (rules.BELOW_ONE, [0, 0.0, 0.999], [1, 1.0, -1e-9, math.nan, False, None]),
        (rules.INSIDE_UNIT, [1e-9, 0.5, 0.999], [0, 1, 0.0, 1.0, math.nan, True, None]),
        (rules.FLAG, [True, False], [0, 1, "true", None, 0.0]),
        (rules.TEXT, ["a", " "], ["", None, 1, True, ["a"]]),
        (whole(2), [2, 3, 10**9], [1, 2.0, 2.5, True, "2", None, -2]),
        (whole(0), [0], [-1, 0.0, False]),
        (one_of("cpu", "cuda"), ["cpu", "cuda"], ["gpu", "", None, 1, ["cpu"], "CPU"]),
        (optional(whole(1)), [None, 1], [0, "null", False]),
        (list_of(whole(1), "words"), [[1], [1, 2]], [[], [0], [1, "2"], (1,), 1, None, "1"]),
        (list_of(whole(1), "words", least=0), [[], [1]], [[0], None]),
        (rules.LEARNING_RATES, [[0.1], [1, 0.01]], [[], [0], [-0.1], 0.1, ["0.1"]]),
        (rules.CHANNEL_MEANS, [[0], [-0.5, 0.5, 2]], [[], [math.nan], 0.5, [None]]),
        (rules.CHANNEL_STDS, [[0.1]], [[], [0], [0.1, 0.0]]),
        (rules.COMPONENT, [{"_target_": "a.B"}, {"_target_": "a.B", "x": 1}], [{}, {"_target_": 1}, "a.B", None]),
        (rules.COMPONENTS, [{}, {"a": {"_target_": "a.B"}}], [{"a": {}}, {"a": None}, {"_target_": "a.B"}, [], None]),
    ],
)
def test_a_rule_accepts_up_to_its_edge(rule: Rule, accepted: list[object], refused: list[object]) -> None:
    assert [value for value in accepted if not rule.accepts(value)] == []
    assert [value for value in refused if rule.accepts(value)] == []


@examples
@given(value=anything)
def test_a_rule_answers_for_any_value(value: object) -> None:
    for rule in RULES:
        if rule.accepts(value):
            rule.check("key", value)
        else:
            with pytest.raises(RejectedValueError) as caught:
                rule.check("key", value)
            assert caught.value.mistakes == [Mistake(f"key={show(value)} is not accepted", f"write {rule.words}")]


def test_a_whole_number_beyond_all_floats_is_a_number() -> None:
    """math.isfinite raises OverflowError for it."""
    assert rules.POSITIVE.accepts(10**400) in (True, False)


def test_a_refusal_says_what_to_write() -> None:
    expected = {
        "a number above 0": rules.POSITIVE,
        "a number of at least 0": rules.NOT_NEGATIVE,
        "a number from 0 to 1": rules.FRACTION,
        "a number from 0 to below 1": rules.BELOW_ONE,
        "a number between 0 and 1": rules.INSIDE_UNIT,
        "true or false": rules.FLAG,
        "a whole number of at least 3": whole(3),
        "one of a, b": one_of("a", "b"),
        "a whole number of at least 3, or null": optional(whole(3)),
    }
    for words, rule in expected.items():
        assert message_of(rule.check, "key", object).splitlines()[1] == f"  write {words}"


def test_the_vocabulary_means_one_thing_for_each_word() -> None:
    accepted: dict[str, Any] = {
        "temperature": 4.0,
        "alpha": 1,
        "label_smoothing": 0,
        "lr": 1e-3,
        "momentum": 0.9,
        "weight_decay": 0,
        "dropout": 0.5,
        "warmup_epochs": 0.5,
    }
    for name, rule in rules.VOCABULARY.items():
        assert rule.accepts(accepted[name])
        assert not rule.accepts(-1)


def test_a_value_is_shown_as_one_would_type_it() -> None:
    values = (None, True, False, 0, 1, 0.5, "a b", [1])
    assert [show(value) for value in values] == ["null", "true", "false", "0", "1", "0.5", "a b", "[1]"]


def test_an_error_tells_each_mistake_in_two_lines() -> None:
    error = UserError([Mistake("a is wrong", "write b"), Mistake("c is wrong", "write d")])
    assert str(error) == "a is wrong\n  write b\nc is wrong\n  write d"
    assert isinstance(error, ValueError)
    assert user_error("a is wrong", "write b").mistakes == error.mistakes[:1]


def test_a_rejected_value_takes_a_prefix_more_than_once() -> None:
    error = RejectedValueError("lr", -1, "a number above 0").under("optimizer").under("training.student")
    assert str(error) == "training.student.optimizer.lr=-1 is not accepted\n  write a number above 0"


def test_true_is_no_number_of_a_choice() -> None:
    assert [value for value in (1, 3, True, 2, "1") if one_of(1, 3).accepts(value)] == [1, 3]


@pytest.mark.parametrize(("text", "line"), [("one\ntwo", "one"), ("", "OSError"), ("\ntwo", "OSError")])
def test_the_first_line_of_an_error_is_never_empty(text: str, line: str) -> None:
    assert first_line(OSError(text)) == line
