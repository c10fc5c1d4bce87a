"""What people ask of a sweep, and the sentences that answer it from the content of sweep.json."""

from collections.abc import Mapping, Sequence
from typing import Any

from distill_run.units import change

ALIKE = "\N{ALMOST EQUAL TO}"  # marks what cannot be told from the recommended setting

Content = Mapping[str, Any]


def answers(content: Content) -> list[tuple[str, str]]:
    """What people ask of a sweep, in the order in which they ask it."""
    best = content["recommendation"]
    if best is None:
        return []
    found = [("How sure is the choice?", _certainty(content))]
    if best["difference"] is not None:
        found.append(("Was distillation worth it?", _worth(best["difference"])))
    return [
        *found,
        ("May the test accuracy be believed?", _honesty(content)),
        ("What do the intervals cover?", _coverage(content)),
        *([("What was left out?", _left_out(content))] if best["incomplete"] else []),
    ]


def _certainty(content: Content) -> str:
    best = content["recommendation"]
    if len(content["settings"]) == 1:
        return "There was nothing to choose from: all runs have the same setting."
    if best["val_accuracy"]["count"] == 1:
        return (
            "That cannot be said: one run a setting does not tell a better setting from a luckier one. "
            "Add seed=0,1,2 to the sweep's command."
        )
    if not best["compared"]:
        return "That cannot be said: no other setting shares two completed runs with it."
    alike, compared = len(best["alternatives"]), best["compared"]
    share = {0: "None", compared: "All"}.get(alike, str(alike))
    return (
        f"{share} of {compared} other settings cannot be told from it on validation: paired by seed, the 95% interval "
        f"of their difference contains zero ({ALIKE} in the table). That does not prove them equal: more seeds tell "
        "more apart."
    )


def _worth(difference: Mapping[str, Any]) -> str:
    mean = change(difference["mean"])
    if difference["low"] is None:
        return (
            f"In this one run the student gained {mean} points over the baseline. Add seed=0,1,2 to see if that lasts."
        )
    low, high = change(difference["low"]), change(difference["high"])
    verdict = "it contains zero, so that these runs do not show that distillation helps or harms"
    if difference["low"] > 0:
        verdict = "it lies above zero: distillation helped"
    elif difference["high"] < 0:
        verdict = "it lies below zero: distillation did harm"
    return (
        f"Paired with the baseline of the same seed, the student differs by {mean} points, "
        f"95% interval {low} to {high}: {verdict}."
    )


def _honesty(content: Content) -> str:
    if len(content["settings"]) == 1:
        return "Yes: validation selected the epoch, and the test split was read once, at the end."
    return (
        "Yes: settings are chosen by validation alone, the test accuracy took no part in it. The validation accuracy "
        f"of the best is flattered by the choice among {len(content['settings'])}; its test accuracy is not. To choose "
        "by the column of test accuracies would undo that."
    )


def _coverage(content: Content) -> str:
    keys = content["replicate_keys"]
    if content["recommendation"]["val_accuracy"]["count"] == 1:
        return "There are none: they need two or more runs of a setting, as seed=0,1,2 gives them."
    caveat = " Runs that share one of these are not independent: the intervals are then too narrow."
    return (
        f"What another {listed(keys)} would change: Student's t interval of the mean over the completed runs of a "
        f"setting. Another choice of test images they do not cover.{caveat if len(keys) > 1 else ''}"
    )


def _left_out(content: Content) -> str:
    best = content["recommendation"]
    count = len(best["incomplete"])
    return (
        f"{count} setting{'' if count == 1 else 's'} with fewer than {best['val_accuracy']['count']} completed runs: "
        "what the missing runs would have said might have changed the mean."
    )


def listed(names: Sequence[str]) -> str:
    """Names as a sentence lists them."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
