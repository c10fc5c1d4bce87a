"""Knowledge distillation for image classification: one command from teacher to report.

In Python:

    import distill_run as dr

    report = dr.run(dr.compose_config(["mode=soft", "mode.temperature=8"]))
    print(report)
    network = dr.load_network(report.run_dir / "checkpoints" / "student.pt")

Nothing heavy is imported before it is used: `import distill_run` loads neither torch nor Hydra.
"""

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill_run.checkpoint import load_network
    from distill_run.config.settings import compose_config
    from distill_run.deploy.export import export
    from distill_run.deploy.photographs import read_image
    from distill_run.errors import UserError
    from distill_run.losses.logits import hard_target_loss, soft_target_loss
    from distill_run.pipeline import run
    from distill_run.pipeline import run as distill

    __version__: str

__all__ = [
    "UserError",
    "__version__",
    "compose_config",
    "distill",
    "export",
    "hard_target_loss",
    "load_network",
    "read_image",
    "run",
    "soft_target_loss",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())  # what is logged is on the console as well

# Where each name comes from. `distill` is what `run` was called up to version 0.4.
_PLACES = {
    "UserError": "distill_run.errors.UserError",
    "compose_config": "distill_run.config.settings.compose_config",
    "distill": "distill_run.pipeline.run",
    "export": "distill_run.deploy.export.export",
    "hard_target_loss": "distill_run.losses.logits.hard_target_loss",
    "load_network": "distill_run.checkpoint.load_network",
    "read_image": "distill_run.deploy.photographs.read_image",
    "run": "distill_run.pipeline.run",
    "soft_target_loss": "distill_run.losses.logits.soft_target_loss",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name == "__version__":
        from importlib import metadata

        return metadata.version("distill-run")
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, own_name = _PLACES[name].rpartition(".")
    return getattr(importlib.import_module(module), own_name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
