"""Points as tasks of Ray."""

import os
from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn

from distill_run.commands.threads import CHOSEN_BY_USER
from distill_run.engine.interrupt import GRACE_SECONDS
from distill_run.errors import first_line, user_error
from hydra_plugins.distill_run._cluster import ClusterLauncher, LostJobError
from hydra_plugins.distill_run._jobs import Sweep


class RayLauncher(ClusterLauncher):
    """`init` holds the arguments of ray.init, `remote` those of ray.remote for each point."""

    def __init__(self, init: dict[str, Any], remote: dict[str, Any]) -> None:
        self._init, self._remote = init, remote

    def submit(self, sweep: Sweep, points: dict[int, Sequence[str]]) -> dict[int, Any]:
        """See ClusterLauncher. Raises UserError where no cluster is found or begun."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
        import ray

        variables = {name: os.environ[name] for name in CHOSEN_BY_USER if name in os.environ}
        try:
            ray.init(**self._init, runtime_env={"env_vars": variables})
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise user_error(
                f"hydra/launcher=ray_cluster: no cluster: {first_line(error)}",
                "write hydra.launcher.init.address=HOST:PORT of one, or null to begin one on this machine",
            ) from error
        task, shared = ray.remote(**self._remote)(Sweep.run), ray.put(sweep)
        return {number: task.remote(shared, number, list(overrides)) for number, overrides in points.items()}

    def wait(self, job: Any) -> JobReturn:
        """See ClusterLauncher."""
        import ray

        try:
            returned: JobReturn = ray.get(job)
        except ray.exceptions.RayError as error:
            raise LostJobError(f"{type(error).__name__}: {first_line(error)}") from error
        return returned

    def stop(self, jobs: Sequence[Any]) -> None:
        """See ClusterLauncher. A task that runs gets SIGINT."""
        import ray

        for job in jobs:
            ray.cancel(job)
        ray.wait(list(jobs), num_returns=len(jobs), timeout=GRACE_SECONDS)
