"""What composes the points of a sweep.

Hydra executes the modules of its plug-ins anew when it looks for them: objects of classes from before could not be
pickled. It leaves alone modules that begin with _, as this one.
"""

from functools import partial
from typing import Any

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig

from distill_run.config.variants import Variants


class SweepLoader:
    """What launchers ask for the configuration of a point; it does everything else as Hydra's loader does.

    Where points are processes of their own, it is sent to them with the configurations that are kept.
    """

    def __init__(self, loader: ConfigLoader, config: DictConfig) -> None:
        self._loader = loader
        self.variants = Variants(partial(loader.load_sweep_config, config))

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:  # noqa: ARG002
        """The configuration of a point; that of the sweep is known."""
        return self.variants.compose(sweep_overrides)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # asked for while this is unpickled
            raise AttributeError(name)
        return getattr(self._loader, name)
