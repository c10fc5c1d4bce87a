"""What parameters accept, at the edges, and in which words the rest is refused."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_run import rules as accept
from distill_run.errors import Mistake, RejectedValueError, UserError, show, user_error
from distill_run.rules import Rule, list_of, one_of, optional, whole
from helpers import examples

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
RULES = {name: rule for name, rule in vars(accept).items() if isinstance(rule, Rule)}


@pytest.mark.parametrize(
    ("rule", "accepted", "refused"),
    [
        (accept.POSITIVE, [1, 0.5, 1e-300], [0, 0.0, -1, math.nan, math.inf, -math.inf, True, "1", None, [1]]),
        (accept.NOT_NEGATIVE, [0, 0.0, 3], [-1e-9, math.nan, math.inf, False, "0", None]),
        (accept.FRACTION, [0, 1, 0.0, 1.0, 0.5], [-1e-9, 1 + 1e-9, 2, math.nan, True, False, "0.5", None]),
        (accept.BELOW_ONE, [0, 0.0, 0.999], [1, 1.0, -1e-9, math.nan, False, None]),
        (accept.INSIDE_UNIT, [1e-9, 0.5, 0.999], [0, 1, 0.0, 1.0, math.nan, True, None]),
        (accept.FLAG, [True, False], [0, 1, "true", None, 0.0]),
        (accept.TEXT, ["a", " "], ["", None, 1, True, ["a"]]),
        (whole(2), [2, 3, 10**9], [1, 2.0, 2.5, True, "2", None, -2]),
        (whole(0), [0], [-1, 0.0, False]),
        (one_of("cpu", "cuda"), ["cpu", "cuda"], ["gpu", "", None, 1, ["cpu"], "CPU"]),
        (optional(whole(1)), [None, 1], [0, "null", False]),
        (list_of(whole(1), "words"), [[1], [1, 2]], [[], [0], [1, "2"], (1,), 1, None, "1"]),
        (list_of(whole(1), "words", least=0), [[], [1]], [[0], None]),
        (accept.LEARNING_RATES, [[0.1], [1, 0.01]], [[], [0], [-0.1], 0.1, ["0.1"]]),
        (accept.CHANNEL_MEANS, [[0], [-0.5, 0.5, 2]], [[], [math.nan], 0.5, [None]]),
        (accept.CHANNEL_STDS, [[0.1]], [[], [0], [0.1, 0.0]]),
        (accept.COMPONENT, [{"_target_": "a.B"}, {"_target_": "a.B", "x": 1}], [{}, {"_target_": 1}, "a.B", None]),
    ],
)
def test_a_rule_accepts_up_to_its_edge(rule: Rule, accepted: list[object], refused: list[object]) -> None:
    assert [value for value in accepted if not rule.accepts(value)] == []
    assert [value for value in refused if rule.accepts(value)] == []


@pytest.mark.parametrize("name", sorted(RULES))
@examples
@given(value=anything)
def test_a_rule_answers_for_any_value(name: str, value: object) -> None:
    rule = RULES[name]
    if rule.accepts(value):
        rule.check("key", value)
    else:
        with pytest.raises(RejectedValueError) as caught:
            rule.check("key", value)
        assert caught.value.mistakes == [Mistake(f"key={show(value)} is not accepted", f"write {rule.words}")]


def test_a_whole_number_beyond_all_floats_is_a_number() -> None:
    """math.isfinite raises OverflowError for it."""
    assert accept.POSITIVE.accepts(10**400) in (True, False)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (accept.POSITIVE, "a number above 0"),
        (accept.NOT_NEGATIVE, "a number of at least 0"),
        (accept.FRACTION, "a number from 0 to 1"),
        (accept.BELOW_ONE, "a number from 0 to below 1"),
        (accept.INSIDE_UNIT, "a number between 0 and 1"),
        (accept.FLAG, "true or false"),
        (whole(3), "a whole number of at least 3"),
        (one_of("a", "b"), "one of a, b"),
        (optional(whole(3)), "a whole number of at least 3, or null"),
    ],
)
def test_a_refusal_says_what_to_write(rule: Rule, words: str) -> None:
    with pytest.raises(ValueError, match="key=") as caught:
        rule.check("key", object)
    assert str(caught.value).splitlines()[1] == f"  write {words}"


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
    for name, rule in accept.VOCABULARY.items():
        assert rule.accepts(accepted[name])
        assert not rule.accepts(-1)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "null"), (True, "true"), (False, "false"), (0, "0"), (1, "1"), (0.5, "0.5"), ("a b", "a b"), ([1], "[1]")],
)
def test_a_value_is_shown_as_one_would_type_it(value: object, shown: str) -> None:
    assert show(value) == shown


def test_an_error_tells_each_mistake_in_two_lines() -> None:
    error = UserError([Mistake("a is wrong", "write b"), Mistake("c is wrong", "write d")])
    assert str(error) == "a is wrong\n  write b\nc is wrong\n  write d"
    assert isinstance(error, ValueError)
    assert user_error("a is wrong", "write b").mistakes == error.mistakes[:1]


def test_a_rejected_value_takes_a_prefix_more_than_once() -> None:
    error = RejectedValueError("lr", -1, "a number above 0").under("optimizer").under("training.student")
    assert str(error) == "training.student.optimizer.lr=-1 is not accepted\n  write a number above 0"
