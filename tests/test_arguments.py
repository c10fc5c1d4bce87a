"""Arguments of the smaller commands: a mistake is two lines, not the end of the program."""

from distill_run.commands.arguments import Parser
from helpers import message_of


def parser() -> Parser:
    made = Parser(prog="distill-thing")
    made.add_argument("folder", metavar="DIR")
    made.add_argument("--count", metavar="N", type=int)
    return made


USAGE = "write distill-thing [-h] [--version] [--count N] DIR"


def test_a_mistake_is_told_with_what_to_write() -> None:
    for words, what in (
        ([], "the following arguments are required: DIR"),
        (["a", "--cuont", "3"], "unrecognized arguments: --cuont 3"),
        (["a", "--count", "three"], "argument --count: invalid int value: 'three'"),
        (["a", "--count"], "argument --count: expected one argument"),
    ):
        assert message_of(parser().parse_args, words) == f"{what}\n  {USAGE}"
    arguments = parser().parse_args(["here", "--count", "3"])
    assert (arguments.folder, arguments.count) == ("here", 3)


def test_a_long_usage_stays_on_one_line() -> None:
    made = parser()
    for number in range(20):
        made.add_argument(f"--option-{number}")
    told = message_of(made.parse_args, [])
    assert len(told.splitlines()) == 2
    assert told.endswith("[--option-19 OPTION_19] DIR")
