"""Store entries of trained networks: written once, read by every run with the same inputs."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from distill_run import checkpoint
from distill_run.engine.loop import Guide
from distill_run.files import write_json_lines, write_text
from distill_run.models.network import Network
from distill_run.stages.trained import Cost, Curve, Measured, Origin, Trained
from distill_run.stages.training import Bench, Plan, inputs_of, train
from distill_run.store import fingerprint, read_meta


def save_network(trained: Trained, bench: Bench, path: Path) -> None:
    """Write the selected network, with all that is needed to build it again from the file alone."""
    assert isinstance(trained.network, Network)
    content = checkpoint.network_content(
        trained.network, trained.node, trained.name, bench.shape, bench.dataset.classes
    )
    checkpoint.save(path, content)


def write_entry(trained: Trained, plan: Plan, bench: Bench, directory: Path) -> dict[str, Any]:
    """Write the files of a store entry that `read_entry` reads; returns the facts for its meta.json."""
    save_network(trained, bench, directory / "weights.pt")
    np.savez(
        directory / "test_logits.npz",
        selected=trained.selected.test_logits.numpy(),
        last=trained.last.test_logits.numpy(),
    )
    write_json_lines(directory / "metrics.jsonl", trained.history)
    write_text(directory / "config.yaml", yaml.safe_dump(inputs_of(plan, bench), sort_keys=False))
    return {
        "about": f"{trained.name}, seed {plan.seed}, {trained.selected.val['accuracy']:.2%} on validation",
        "selected": {"epoch": trained.selected.epoch, "val": trained.selected.val},
        "last": {"epoch": trained.last.epoch, "val": trained.last.val},
        "cost": dataclasses.asdict(trained.cost),
        "learning_rate": trained.learning_rate,
    }


def read_entry(directory: Path, plan: Plan, bench: Bench, curve: Curve, reused: bool) -> Trained:
    """What `write_entry` left, with the network on the bench's device; it goes by the plan's name."""
    network = bench.device.place(checkpoint.rebuild(checkpoint.load(directory / "weights.pt"), bench.builder))
    with np.load(directory / "test_logits.npz") as logits:
        selected, last = (torch.from_numpy(logits[name]) for name in ("selected", "last"))
    rows = (directory / "metrics.jsonl").read_text().splitlines()
    meta = read_meta(directory)
    return Trained(
        stage=plan.stage,
        name=plan.name,
        node=plan.node,
        network=network.eval(),
        fingerprint=directory.name,
        selected=Measured(**meta["selected"], test_logits=selected),
        last=Measured(**meta["last"], test_logits=last),
        origin=Origin.REUSED if reused else Origin.TRAINED,
        history=tuple({**json.loads(row), "stage": plan.stage} for row in rows),
        cost=Cost(**meta["cost"]),
        learning_rate=meta["learning_rate"],
        lr_search=curve,
    )


def obtain(kind: str, plan: Plan, curve: Curve, bench: Bench, guide: Guide | None = None) -> Trained:
    """The store's entry for a training, which is trained first where it is not there; its epochs join the metrics."""
    digest = fingerprint(inputs_of(plan, bench))

    def make(directory: Path) -> dict[str, Any]:
        return write_entry(train(plan, bench, digest, guide, curve), plan, bench, directory)

    directory, reused = bench.obtain(kind, digest, make)
    trained = read_entry(directory, plan, bench, curve, reused)
    bench.metrics.extend(trained.history)
    return trained
