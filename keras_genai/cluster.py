"""Processes that train together: the environment variable TF_CONFIG, and a launcher.

TensorFlow's strategies read the addresses of all workers from TF_CONFIG. This module does not load
TensorFlow.
"""

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time

from keras_genai.validation import check_size

FAILURE_TIMEOUT = 5.0  # seconds until the first worker has noticed a failure


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
            and 0 <= int(task["index"]) < len(jobs[task["type"]])
            and len(workers) == len(set(workers))
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
    return int(port) if host and port.isdecimal() and 0 < int(port) < 2**16 else None


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
                    socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
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

    The first worker has the standard output. When a worker fails, and when this process is ended
    by Ctrl-C or a signal, all are ended.

    Args:
        command: List of strings. Program and arguments.
        num_workers: Int. Number of processes.

    Returns:
        0, or the exit code of the first worker, if it has failed.

    Raises:
        LostWorkerError: if another worker than the first one failed.
    """
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(check_size("workers", num_workers))]
    with contextlib.ExitStack() as stack:
        stack.enter_context(_exit_at_signals())
        processes, logs = [], []
        for index in range(len(addresses)):
            config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            environment = {**os.environ, "TF_CONFIG": json.dumps(config)}
            log = None if index == 0 else stack.enter_context(_open_log())
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
        if code < 0:
            raise LostWorkerError(
                f"worker {index} of {len(addresses)} was killed by signal {-code}; the others were "
                "ended, too. Resume to go on from the last whole epoch."
            )
        with contextlib.suppress(subprocess.TimeoutExpired):
            processes[0].wait(FAILURE_TIMEOUT)  # it may have the same error, and prints it
        if processes[0].returncode:
            return processes[0].returncode
        index, code = next((i, p.returncode) for i, p in enumerate(processes) if p.returncode)
        raise LostWorkerError(
            f"worker {index} of {len(addresses)} has ended ({_last_line(logs[index], code)}); the "
            "others were ended, too."
        )


def _open_log():
    return tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")


@contextlib.contextmanager
def _exit_at_signals():
    """Context in which signals that would end this process at once raise SystemExit."""
    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        names = []

    def end(number, frame):
        raise SystemExit(128 + number)

    previous = {name: signal.signal(getattr(signal, name), end) for name in names}
    try:
        yield
    finally:
        for name, handler in previous.items():
            signal.signal(getattr(signal, name), handler)


def _last_line(log, code: int) -> str:
    log.seek(0)
    return (log.read().strip().splitlines() or [f"exit code {code}"])[-1].removesuffix(".")


def _free_ports(count: int) -> list[int]:
    """Return ports of this machine that were free a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in sockets]
