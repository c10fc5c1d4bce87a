"""Store entries of trained networks: written once, read by every run with the same inputs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from distill_run import checkpoint
from distill_run.stages.training import Bench, Curve, Plan, Trained, inputs_of, train
from distill_run.store import fingerprint, write_json, write_json_lines, write_text

# What meta.json holds of a Trained; the rest has files of its own.
META = (
    "stage",
    "fingerprint",
    "selected",
    "last",
    "train_seconds",
    "images_per_second",
    "data_share",
    "peak_memory_bytes",
    "learning_rate",
)


def save_network(trained: Trained, node: dict[str, Any], bench: Bench, path: Path) -> None:
    """Write the selected network, with all that is needed to build it again from the file alone."""
    content = checkpoint.network_content(trained.network, node, trained.name, bench.shape, bench.dataset.classes)
    checkpoint.save(path, content)


def write_entry(trained: Trained, plan: Plan, bench: Bench, directory: Path) -> None:
    """Write a store entry that `read_entry` reads."""
    save_network(trained, plan.node, bench, directory / "weights.pt")
    np.savez(
        directory / "test_logits.npz",
        selected=trained.selected_test_logits.numpy(),
        last=trained.last_test_logits.numpy(),
    )
    write_json_lines(directory / "metrics.jsonl", trained.history)
    write_text(directory / "config.yaml", yaml.safe_dump(inputs_of(plan, bench), sort_keys=False))
    write_json(directory / "meta.json", {name: getattr(trained, name) for name in META})


def read_entry(directory: Path, plan: Plan, bench: Bench, curve: Curve, reused: bool) -> Trained:
    """What `write_entry` left, with the network on the bench's device; it goes by the plan's name."""
    network = bench.device.place(checkpoint.rebuild(checkpoint.load(directory / "weights.pt"), bench.builder))
    with np.load(directory / "test_logits.npz") as logits:
        selected, last = (torch.from_numpy(logits[name]) for name in ("selected", "last"))
    rows = (directory / "metrics.jsonl").read_text().splitlines()
    return Trained(
        **json.loads((directory / "meta.json").read_text()),
        name=plan.name,
        network=network.eval(),
        selected_test_logits=selected,
        last_test_logits=last,
        history=[json.loads(row) for row in rows],
        lr_search=curve,
        reused=reused,
    )


def obtain(kind: str, plan: Plan, bench: Bench, curve: Curve) -> Trained:
    """The store's entry for a training that needs no teacher; it is trained first where there is none."""
    digest = fingerprint(inputs_of(plan, bench))

    def make(directory: Path) -> None:
        write_entry(train(plan, bench, digest, None, curve), plan, bench, directory)

    directory, reused = bench.store.obtain(kind, digest, make)
    return read_entry(directory, plan, bench, curve, reused)
