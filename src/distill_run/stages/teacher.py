"""Teachers that were trained elsewhere, and several teachers as one."""

from distill_run.engine.evaluate import measure, predict
from distill_run.engine.finite import check_logits_of
from distill_run.fingerprints import fingerprint_of
from distill_run.losses.logits import averaged_logits
from distill_run.models.ensemble import Ensemble
from distill_run.stages.given_teacher import GivenTeacher
from distill_run.stages.trained import Cost, Measured, Origin, Trained
from distill_run.stages.workshop import Workshop
from distill_run.units import rounded


def measure_teacher(teacher: GivenTeacher, workshop: Workshop) -> Trained:
    """A given teacher with its figures."""
    feed, network = workshop.feed, teacher.network
    device = workshop.device_for(network)
    for note in (*teacher.notes, *device.notes):
        workshop.watcher.noted(f"{teacher.stage}: {note}")
    if teacher.warning is not None:
        workshop.watcher.warned(teacher.warning)
    splits, fingerprint = {"validation": feed.val, "test": feed.test}, fingerprint_of(teacher.inputs)
    logits = workshop.processes.from_first(  # which may know them
        lambda: feed.kept.get(
            ("logits", fingerprint), lambda: {split: predict(network, images) for split, images in splits.items()}
        )
    )
    for split, images in splits.items():
        check_logits_of(f"the {teacher.stage}", split, logits[split], images)
    val = measure(logits["validation"], feed.val.targets.cpu())
    measured = Measured(None, val, logits["test"])
    trained = Trained(
        stage=teacher.stage,
        name=teacher.name,
        node=teacher.node,
        network=network,
        fingerprint=fingerprint,
        selected=measured,
        last=measured,
        origin=Origin.LOADED,
        path=teacher.path,
        precision=device.settings.precision,
    )
    workshop.watcher.stage_ended(trained)
    return trained


def together(members: list[Trained], weights: list[float], workshop: Workshop) -> Trained:
    """Several teachers as one, which gives the weighted mean of their probabilities."""
    feed = workshop.feed
    network = Ensemble([member.own_network for member in members], weights)
    fingerprint = fingerprint_of({"members": [member.fingerprint for member in members], "weights": weights})
    val = workshop.processes.from_first(
        lambda: feed.kept.get(
            ("validation", fingerprint), lambda: measure(predict(network, feed.val), feed.val.targets.cpu())
        )
    )
    test_logits = [(weight, member.selected.test_logits) for weight, member in zip(weights, members, strict=True)]
    measured = Measured(None, val, averaged_logits(test_logits, 1.0))
    workshop.watcher.noted(
        f"{len(members)} teachers: weights {rounded(weights)}, validation accuracy of their mean {val['accuracy']:.2%}"
    )
    return Trained(
        stage="teacher",
        name=" + ".join(member.name for member in members),
        node={},
        network=network,
        fingerprint=fingerprint,
        selected=measured,
        last=measured,
        origin=Origin.AVERAGED,
        cost=Cost(train_seconds=sum(member.cost.train_seconds for member in members)),
        members=tuple(zip(weights, members, strict=True)),
    )
