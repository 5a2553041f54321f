"""Processes that train together: the environment variable TF_CONFIG, and a launcher.

TensorFlow's strategies read the addresses of all workers from TF_CONFIG. This module does not load
TensorFlow.
"""

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import tempfile
import time

from keras_genai.validation import check_size


class LostWorkerError(RuntimeError):
    """Another worker has ended, so that this one cannot go on."""


# TF_CONFIG.


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of TF_CONFIG, and which of them this process is.

    Attributes:
        workers: List of strings, `host:port`.
        index: Int. Index of this worker; the first one saves and prints.
    """

    workers: list[str]
    index: int

    @property
    def address(self) -> str:
        return self.workers[self.index]


def read_cluster() -> Cluster | None:
    """Return the cluster in the environment variable TF_CONFIG, or `None` if it is not set.

    Raises:
        ValueError: for a value that is not the JSON of a cluster of workers and a task.
    """
    text = os.environ.get("TF_CONFIG", "")
    if not text.strip():
        return None
    try:
        config = json.loads(text)
        jobs, task = config["cluster"], config["task"]
        workers = [*jobs.get("chief", []), *jobs["worker"]]
        index = int(task["index"]) + (len(jobs.get("chief", [])) if task["type"] == "worker" else 0)
        valid = (
            set(jobs) <= {"chief", "worker"}
            and task["type"] in jobs
            and 0 <= index < len(workers) == len(set(workers))
            and all(_port(worker) is not None for worker in workers)
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        valid = False
    if not valid:
        raise ValueError(
            'TF_CONFIG: expected JSON such as {"cluster": {"worker": ["host0:12345", '
            '"host1:12345"]}, "task": {"type": "worker", "index": 0}}, with the same cluster on '
            f"each worker and the index of this one, got {text:.300}"
        )
    return Cluster(workers, index)


def _port(worker) -> int | None:
    host, _, port = worker.rpartition(":")
    return int(port) if host and port.isdecimal() and int(port) < 2**16 else None


def wait_for_others(cluster: Cluster, timeout: float) -> None:
    """Wait until a program listens at the address of each worker.

    TensorFlow itself would wait without limit, in a call that Ctrl-C does not interrupt.
    """
    deadline = time.monotonic() + timeout
    try:
        listener = socket.create_server(("", _port(cluster.address)))
    except OSError as error:
        raise ValueError(
            f"TF_CONFIG: expected a free port for this worker, got {cluster.address} "
            f"({error.strerror})."
        ) from error
    with listener:
        for worker in cluster.workers:
            host, _, port = worker.rpartition(":")
            while worker != cluster.address:
                try:
                    socket.create_connection((host, int(port)), timeout=1).close()
                    break
                except OSError:  # it has not started, or its name is not known yet
                    if time.monotonic() > deadline:
                        raise TimeoutError(
                            f"TF_CONFIG: expected worker {worker} to start within {timeout:g} "
                            "seconds, and found nobody there."
                        ) from None
                    time.sleep(0.2)


# Several workers on this machine.


def launch(command: list[str], num_workers: int) -> int:
    """Run a command as several workers on this machine, each with its own TF_CONFIG.

    The first worker has the standard output. When a worker fails, or at Ctrl-C, all are ended.

    Args:
        command: List of strings. Program and arguments.
        num_workers: Int. Number of processes.

    Returns:
        The exit code of the first worker: 0, unless it failed before the others.

    Raises:
        LostWorkerError: if another worker than the first one failed.
    """
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(check_size("workers", num_workers))]
    with contextlib.ExitStack() as stack:
        processes, logs = [], []
        for index in range(len(addresses)):
            config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            environment = {**os.environ, "TF_CONFIG": json.dumps(config)}
            log = None if index == 0 else stack.enter_context(tempfile.TemporaryFile("w+"))
            process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
            processes.append(process)
            logs.append(log)
            stack.callback(process.wait)
            stack.callback(process.kill)
        while all(process.poll() in (None, 0) for process in processes):
            if all(process.poll() == 0 for process in processes):
                return 0
            time.sleep(0.1)
        # A worker that was killed, rather than one that has already noticed it.
        code, index = min((process.poll() or 0, i) for i, process in enumerate(processes))
        if code == 0:
            index, code = next((i, p.returncode) for i, p in enumerate(processes) if p.returncode)
        if index == 0 and code > 0:
            return code
        cause = f"killed by signal {-code}" if code < 0 else _last_line(logs[index], code)
        raise LostWorkerError(
            f"worker {index} of {len(addresses)} has ended ({cause.removesuffix('.')}); the "
            "others were ended, too. Resume to go on from the last whole epoch."
        )


def _last_line(log, code: int) -> str:
    log.seek(0)
    return (log.read().strip().splitlines() or [f"exit code {code}"])[-1]


def _free_ports(count: int) -> list[int]:
    """Return ports of this machine that were free a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in sockets]
