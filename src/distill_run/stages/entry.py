"""Store entries of trained networks: written once, read by every run with the same inputs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from distill_run import checkpoint
from distill_run.fit import Guide
from distill_run.models.network import Network
from distill_run.stages.training import Bench, Curve, Plan, Trained, inputs_of, train
from distill_run.store import fingerprint, read_meta, write_json_lines, write_text

# What meta.json says of a Trained; the rest has files of its own.
FACTS = (
    "fingerprint",
    "selected",
    "last",
    "train_seconds",
    "images_per_second",
    "data_share",
    "peak_memory_bytes",
    "learning_rate",
)


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
        selected=trained.selected_test_logits.numpy(),
        last=trained.last_test_logits.numpy(),
    )
    write_json_lines(directory / "metrics.jsonl", trained.history)
    write_text(directory / "config.yaml", yaml.safe_dump(inputs_of(plan, bench), sort_keys=False))
    about = f"{trained.name}, seed {plan.seed}, {trained.selected['val']['accuracy']:.2%} on validation"
    return {"about": about, **{name: getattr(trained, name) for name in FACTS}}


def read_entry(directory: Path, plan: Plan, bench: Bench, curve: Curve, reused: bool) -> Trained:
    """What `write_entry` left, with the network on the bench's device; it goes by the plan's name."""
    network = bench.device.place(checkpoint.rebuild(checkpoint.load(directory / "weights.pt"), bench.builder))
    with np.load(directory / "test_logits.npz") as logits:
        selected, last = (torch.from_numpy(logits[name]) for name in ("selected", "last"))
    rows = (directory / "metrics.jsonl").read_text().splitlines()
    meta = read_meta(directory)
    return Trained(
        **{name: meta[name] for name in FACTS},
        stage=plan.stage,
        name=plan.name,
        node=plan.node,
        network=network.eval(),
        selected_test_logits=selected,
        last_test_logits=last,
        history=[{**json.loads(row), "stage": plan.stage} for row in rows],
        lr_search=curve,
        reused=reused,
        origin="reused from the store" if reused else "trained",
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
