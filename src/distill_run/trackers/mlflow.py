"""The tracker for MLflow: a run in a database that all runs share, or on a server."""

import hashlib
import logging
import os
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from distill_run.record.status import RunStatus
from distill_run.rules import TEXT
from distill_run.stages.watcher import RunFacts
from distill_run.trackers.tracker import Results, Tracker, configuration, flat, run_name, sweep_name

if TYPE_CHECKING:
    from mlflow import MlflowClient

STATES = {"completed": "FINISHED", "failed": "FAILED"}  # MLflow's; of others KILLED
LONGEST_WAIT_SECONDS = 60  # for another process that makes the database
MOST_PARAMS = 100  # that MLflow takes at once
LONGEST_PARAM = 500  # characters, which every version of MLflow takes
DATABASE = "sqlite:///"
FOLDER = "run_dir_sha256"  # the tag by which a run that goes on is found again


class MLflow(Tracker):
    """Logs epochs as metrics, the configuration as parameters, and the report with its pictures as artifacts."""

    package = "mlflow"

    def __init__(self, *, uri: str, experiment: str) -> None:
        TEXT.check("uri", uri)
        TEXT.check("experiment", experiment)
        self.uri = uri
        self.experiment = experiment
        self.client: MlflowClient | None = None
        self.run_id = ""

    @property
    def _client(self) -> "MlflowClient":
        assert self.client is not None
        return self.client

    def begin(self, run: RunFacts) -> None:
        """See Tracker."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow reads it when it is loaded
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        with self._made_once():
            self.client = MlflowClient(tracking_uri=self.uri)
            experiment = self._experiment_id()
        self.run_id = self._earlier_run(experiment, run) or self._new_run(experiment, run)

    def add_epoch(self, stage: str, epoch: int, figures: Mapping[str, float]) -> None:
        """See Tracker. The epoch is MLflow's step."""
        self._log({f"{stage}/{name}": value for name, value in figures.items()}, epoch)

    def add_results(self, results: Results) -> None:
        """See Tracker."""
        self._log(results.figures, 0)
        table = {name: [row[place] for row in results.rows] for place, name in enumerate(results.columns)}
        self._client.log_table(self.run_id, table, "networks.json")
        self._client.set_tag(self.run_id, "mlflow.note.content", results.conclusion)
        for path in (results.page, *results.pictures):
            self._client.log_artifact(self.run_id, str(path), "report")

    def end(self, status: RunStatus) -> None:
        """See Tracker."""
        self._client.set_tag(self.run_id, "status", status.status)
        self._client.set_terminated(self.run_id, STATES.get(status.status, "KILLED"))

    def _made_once(self) -> FileLock | nullcontext[None]:
        """A lock for the time in which a new database is made: several points of a sweep may begin at once."""
        if not self.uri.startswith(DATABASE):
            return nullcontext()
        path = self._database()
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(f"{path}.lock", timeout=LONGEST_WAIT_SECONDS)

    def _database(self) -> Path:
        return Path(self.uri.removeprefix(DATABASE)).resolve()

    def _experiment_id(self) -> str:
        """The id of the experiment, which is made if it is not there; its files lie beside the database."""
        found = self._client.get_experiment_by_name(self.experiment)
        if found is not None:
            return str(found.experiment_id)
        place = self._database().with_suffix("").as_uri() if self.uri.startswith(DATABASE) else None
        return str(self._client.create_experiment(self.experiment, artifact_location=place))

    def _earlier_run(self, experiment: str, run: RunFacts) -> str | None:
        """The id of the run that goes on, if it was tracked before."""
        if not run.settings.resume:
            return None
        wanted = f"tags.{FOLDER} = '{_folder_tag(run)}'"
        for found in self._client.search_runs([experiment], wanted, max_results=1):
            self._client.update_run(found.info.run_id, "RUNNING")
            return str(found.info.run_id)
        return None

    def _new_run(self, experiment: str, run: RunFacts) -> str:
        sweep, settings = sweep_name(run.run_dir), configuration(run)
        tags = {FOLDER: _folder_tag(run), **({} if sweep is None else {"sweep": sweep})}
        run_id = str(self._client.create_run(experiment, run_name=run_name(run.run_dir), tags=tags).info.run_id)
        from mlflow.entities import Param

        params = [Param(name, str(value)[:LONGEST_PARAM]) for name, value in flat(settings, ".").items()]
        for first in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(run_id, params=params[first : first + MOST_PARAMS])
        self._client.log_dict(run_id, settings, "configuration.yaml")
        return run_id

    def _log(self, figures: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = round(1000 * time.time())
        self._client.log_batch(self.run_id, [Metric(name, value, now, step) for name, value in figures.items()])


def _folder_tag(run: RunFacts) -> str:
    """What tells the run of one folder from those of others, in letters that a search of MLflow can quote."""
    return hashlib.sha256(str(run.run_dir.resolve()).encode()).hexdigest()
