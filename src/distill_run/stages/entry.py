"""Store entries of trained networks: written once, read by every run with the same inputs."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from distill_run import checkpoint
from distill_run.files import read_json_lines, write_json_lines, write_text
from distill_run.stages.assembly import Prepared
from distill_run.stages.trained import Cost, Measured, Origin, Trained
from distill_run.stages.training import Training
from distill_run.store_records import read_meta
from distill_run.tensor_files import load, load_weights, save_arrays


def write_entry(trained: Trained, training: Training, directory: Path) -> dict[str, Any]:
    """Write the files of a store entry that `read_entry` reads; returns the facts for its meta.json."""
    checkpoint.save_network(directory / "weights.pt", trained.own_network, trained.node, trained.name)
    save_arrays(
        directory / "test_logits.npz",
        selected=trained.selected.test_logits.numpy(),
        last=trained.last.test_logits.numpy(),
    )
    write_json_lines(directory / "metrics.jsonl", trained.history)
    write_text(directory / "config.yaml", yaml.safe_dump(training.inputs, sort_keys=False))
    return {
        "about": f"{trained.name}, seed {training.seed}, {trained.selected.val['accuracy']:.2%} on validation",
        "selected": {"epoch": trained.selected.epoch, "val": trained.selected.val},
        "last": {"epoch": trained.last.epoch, "val": trained.last.val},
        "cost": dataclasses.asdict(trained.cost),
        "learning_rate": trained.learning_rate,
    }


def read_entry(directory: Path, prepared: Prepared, origin: Origin) -> Trained:
    """What `write_entry` left; the weights go into the network that was built for the training."""
    training, network = prepared.training, prepared.assembly.network
    load_weights(network.architecture, load(directory / "weights.pt")["weights"], training.architecture.name)
    with np.load(directory / "test_logits.npz") as logits:
        selected, last = (torch.from_numpy(logits[name]) for name in ("selected", "last"))
    rows = read_json_lines(directory / "metrics.jsonl")
    meta = read_meta(directory)
    return prepared.outcome(
        Measured(**meta["selected"], test_logits=selected),
        Measured(**meta["last"], test_logits=last),
        origin,
        history=tuple({**row, "stage": training.stage} for row in rows),
        cost=Cost(**meta["cost"]),
        learning_rate=meta["learning_rate"],
    )
