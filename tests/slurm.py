"""A stand-in for SLURM on one machine: sbatch, srun, sacct, scancel and scontrol, as far as submitit uses them.

`install` writes the five commands into a folder. Each task of an array runs the batch script as a process. The folder
holds its state and its process: <array>_<task>.state, .pid, and .requeue if it is to be started again.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = ("sbatch", "srun", "sacct", "scancel", "scontrol")
KILL_WAIT = 3.0  # seconds between SIGTERM and SIGKILL


def install(folder: Path) -> None:
    """Write the commands into `folder`, which has to stand first in PATH."""
    folder.mkdir()
    for name in COMMANDS:
        words = [sys.executable, __file__, str(folder), name]
        (folder / name).write_text(f'#!/bin/sh\nexec {" ".join(words)} "$@"\n')
        (folder / name).chmod(0o755)


def sbatch(folder: Path, script: str) -> None:
    array = str(1000 + len(list(folder.glob("*.sbatch"))))
    text = Path(script).read_text()
    (folder / f"{array}.sbatch").write_text(text)
    last = re.search(r"--array='?0-(\d+)", text)
    assert last is not None
    for task in range(int(last[1]) + 1):
        subprocess.Popen(
            [sys.executable, __file__, str(folder), "work", array, str(task)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # submitit waits until nobody holds its pipes
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    sys.stdout.write(f"Submitted batch job {array}\n")


def work(folder: Path, array: str, task: str) -> None:
    """What a node does: run the script, again if it was put back into the queue."""
    ids = {"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": task, "SLURM_JOB_ID": array, "SLURM_NTASKS": "1"}
    name = f"{array}_{task}"
    while True:
        (folder / f"{name}.state").write_text("RUNNING")
        status = subprocess.run(["bash", folder / f"{array}.sbatch"], env={**os.environ, **ids}, check=False).returncode
        if not (folder / f"{name}.requeue").exists():
            break
        (folder / f"{name}.requeue").unlink()
    if (folder / f"{name}.state").read_text() == "RUNNING":
        (folder / f"{name}.state").write_text("FAILED" if status else "COMPLETED")


def srun(folder: Path, *words: str) -> None:
    array, task = os.environ["SLURM_ARRAY_JOB_ID"], os.environ["SLURM_ARRAY_TASK_ID"]
    (folder / f"{array}_{task}.pid").write_text(str(os.getpid()))
    places = {"%A": array, "%a": task, "%t": "0"}
    unbuffered, output, out, error, err, *command = words
    assert (unbuffered, output, error) == ("--unbuffered", "--output", "--error")
    for stream, path in ((1, out), (2, err)):
        for sign, value in places.items():
            path = path.replace(sign, value)
        Path(path).parent.mkdir(exist_ok=True)
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), stream)
    os.environ.update(SLURM_PROCID="0", SLURM_LOCALID="0", SLURM_NODEID="0", SLURM_JOB_NUM_NODES="1")
    os.execvp(command[0], command)


def sacct(folder: Path, *_: str) -> None:
    sys.stdout.write("JobID|State|NodeList\n")
    for path in folder.glob("*.state"):
        sys.stdout.write(f"{path.stem}|{path.read_text()}|node\n")


def scancel(folder: Path, *arrays: str) -> None:
    names = [path.stem for array in arrays for path in folder.glob(f"{array}_*.state")]
    running = [name for name in names if (folder / f"{name}.state").read_text() == "RUNNING"]
    for name in running:
        (folder / f"{name}.state").write_text("CANCELLED")
        os.kill(int((folder / f"{name}.pid").read_text()), signal.SIGTERM)
    time.sleep(KILL_WAIT)  # SLURM's own command does not wait
    for name in running:
        os.kill(int((folder / f"{name}.pid").read_text()), signal.SIGKILL)


def scontrol(folder: Path, requeue: str, name: str) -> None:
    assert requeue == "requeue"
    (folder / f"{name}.requeue").touch()


if __name__ == "__main__":
    globals()[sys.argv[2]](Path(sys.argv[1]), *sys.argv[3:])
