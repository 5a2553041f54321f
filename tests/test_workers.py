"""Several processes that train together: the launcher, TF_CONFIG, and workers that end."""

import contextlib
import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers import write_digits

from keras_genai import cluster, distribution
from keras_genai.__main__ import main

WORKERS = ["127.0.0.1:2001", "127.0.0.1:2002"]


def tf_config(index=0, workers=WORKERS, task_type="worker", **jobs):
    task = {"type": task_type, "index": index}
    return json.dumps({"cluster": {"worker": workers, **jobs}, "task": task})


# TF_CONFIG.


def test_cluster_of_workers_and_with_a_chief(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert cluster.read_cluster() is None
    monkeypatch.setenv("TF_CONFIG", tf_config(1))
    assert cluster.read_cluster() == cluster.Cluster(WORKERS, 1)
    monkeypatch.setenv("TF_CONFIG", tf_config(1, chief=["host:1"]))
    assert cluster.read_cluster() == cluster.Cluster(
        ["host:1", *WORKERS], 2
    )  # the chief is the first worker
    monkeypatch.setenv("TF_CONFIG", tf_config(0, task_type="chief", chief=["host:1"]))
    assert cluster.read_cluster() == cluster.Cluster(["host:1", *WORKERS], 0)


@pytest.mark.parametrize(
    "value",
    [
        "worker",
        "[]",
        "{}",
        '{"cluster": {}, "task": {}}',
        tf_config(2),
        tf_config(-1),
        tf_config(1, task_type="chief", chief=["host:1"]),
        tf_config(workers=["127.0.0.1:0"]),
        tf_config("first"),
        tf_config(workers=[]),
        tf_config(workers="127.0.0.1:2001"),
        tf_config(workers=["127.0.0.1:2001", "127.0.0.1:2001"]),
        tf_config(workers=["127.0.0.1"]),
        tf_config(workers=["127.0.0.1:port"]),
        tf_config(workers=["127.0.0.1:70000"]),
        tf_config(workers=[2001, 2002]),
        tf_config(task_type="evaluator"),
        tf_config(ps=["127.0.0.1:2003"]),
    ],
)
def test_a_wrong_cluster_is_one_line(monkeypatch, capsys, value):
    monkeypatch.setenv("TF_CONFIG", value)
    assert main(["train", "article4-vae", "--distribute", "multi-worker"]) == 2
    output = capsys.readouterr()
    assert output.err.startswith('keras_genai: TF_CONFIG: expected JSON such as {"cluster"')
    assert output.err.count("\n") == 1 and not output.out


def test_several_workers_without_a_cluster_raise(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match="TF_CONFIG: expected the cluster and the task"):
        distribution.strategy("multi-worker")


def test_a_port_that_is_taken_and_a_worker_that_does_not_start(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("", 0)) as free:
        addresses = [f"127.0.0.1:{s.getsockname()[1]}" for s in (taken, free)]
        monkeypatch.setenv("TF_CONFIG", tf_config(0, addresses))
        with pytest.raises(ValueError, match=f"free port for this worker, got {addresses[0]}"):
            distribution.strategy("multi-worker")
    with pytest.raises(TimeoutError, match=f"expected worker {addresses[1]} to start within 0.3"):
        distribution.strategy("multi-worker", timeout=0.3)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--workers", "0"], "--workers: expected a whole number from 1 to 64"),
        (["--workers", "2", "--distribute", "mirrored"], "--workers: expected --distribute multi"),
        (["--distribute", "tpu"], "--distribute: invalid choice"),
        (["--dtype", "float64"], "--dtype: invalid choice"),
    ],
)
def test_wrong_options_are_one_line(capsys, options, message):
    assert main(["train", "article4-vae", *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_workers_beside_a_cluster_are_refused(monkeypatch, capsys):
    monkeypatch.setenv("TF_CONFIG", tf_config())
    assert main(["train", "article4-vae", "--workers", "2"]) == 2
    assert "--workers: expected no TF_CONFIG" in capsys.readouterr().err


# The launcher.


def test_launcher_returns_the_exit_code_and_names_the_worker_that_failed():
    program = "import json, os, sys; i = json.loads(os.environ['TF_CONFIG'])['task']['index'];"
    assert cluster.launch([sys.executable, "-c", program], 2) == 0
    assert cluster.launch([sys.executable, "-c", f"{program} sys.exit(i == 0 and 3)"], 1) == 3
    code = f"{program} import time; i == 0 and time.sleep(60); sys.exit('no data')"
    started = time.monotonic()
    with pytest.raises(cluster.LostWorkerError, match=r"worker 1 of 2 has ended \(no data\)"):
        cluster.launch([sys.executable, "-c", code], 2)
    assert time.monotonic() - started < 50  # the first worker was ended
    code = f"{program} import time; time.sleep(0.5 * (i == 0)); sys.exit(4)"  # an error of all
    assert cluster.launch([sys.executable, "-c", code], 2) == 4


# Training.


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("digits"), 120)


def heed_interrupts():
    """Undo what a shell does to programs in the background, and these pass on: ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(folder, *options, data=None, **environment):
    """Start the command line in a process of its own."""
    data = [] if data is None else ["--data", str(data)]
    command = [sys.executable, "-m", "keras_genai", "train", "article4-cnn", *data, *options]
    return subprocess.Popen(
        [*command, "--output", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        preexec_fn=None if sys.platform == "win32" else heed_interrupts,
    )


def end(process, timeout=300):
    """Return the exit code and the last line of the errors."""
    with contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        _, errors = process.communicate(timeout=timeout)
    return process.returncode, (errors.strip().splitlines() or [""])[-1]


def read_history(folder):
    with open(folder / "history.csv") as file:
        return list(csv.DictReader(file))


def wait_for_epoch(folder, process):
    while not (folder / "model.keras").exists():
        assert process.poll() is None
        time.sleep(0.1)


def children(process) -> list[int]:
    """Return the processes of the workers, in order."""
    output = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True
    )
    return sorted(map(int, output.stdout.split()))


@pytest.mark.slow
def test_workers_end_with_the_figure_and_the_files_of_one_process(digits, tmp_path):
    for name, options in {"one": [], "two": ["--workers", "2"]}.items():
        options = [*options, "--epochs", "2", "--batch-size", "25"]
        assert end(start(tmp_path / name, *options, data=digits))[0] == 0
    expected, found = (read_history(tmp_path / name) for name in ("one", "two"))
    for before, after in zip(expected, found, strict=True):
        assert before.keys() == after.keys()
        for key in before:
            assert float(after[key]) == pytest.approx(float(before[key]), rel=1e-4, abs=1e-5)
    one, two = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("one", "two"))
    assert one["value"] == pytest.approx(two["value"]) and one.keys() == two.keys()
    assert (one["replicas"], two["replicas"]) == (1, 2)
    files = [
        {p.relative_to(tmp_path / n) for p in (tmp_path / n).rglob("*")} for n in ("one", "two")
    ]
    assert files[0] == files[1]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a signal of POSIX")
@pytest.mark.parametrize("victim", [0, 1])
def test_killed_worker_ends_all_and_the_run_is_resumed(digits, tmp_path, victim):
    process = start(tmp_path, "--workers", "2", "--epochs", "10000", data=digits)
    wait_for_epoch(tmp_path, process)
    workers = children(process)
    os.kill(workers[victim], signal.SIGKILL)
    code, error = end(process, timeout=60)
    assert code == 1 and f"worker {victim} of 2 was killed by signal 9" in error
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)
    # One process or three go on.
    num_epochs = len(read_history(tmp_path)) + 2
    options = ["--resume", "--epochs", str(num_epochs)] + ["--workers", "3"] * victim
    code, error = end(start(tmp_path, *options))
    assert code == 0, error
    history = read_history(tmp_path)
    assert [int(row["epoch"]) for row in history] == list(range(num_epochs))
    assert np.isfinite([float(row["loss"]) for row in history]).all()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a signal of POSIX")
def test_worker_without_a_launcher_ends_when_another_is_killed(digits, tmp_path):
    addresses = [f"127.0.0.1:{port}" for port in cluster._free_ports(2)]
    processes = [
        start(
            tmp_path, "--distribute", "multi-worker", "--epochs", "10000", data=digits,
            TF_CONFIG=tf_config(index, addresses),
        )
        for index in range(2)
    ]  # fmt: skip
    wait_for_epoch(tmp_path, processes[0])
    processes[0].kill()
    code, error = end(processes[1], timeout=60)
    assert code == 1 and error.startswith("keras_genai: another worker has ended")
    end(processes[0])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_to_the_launcher_end_all_workers(digits, tmp_path, number, code):
    process = start(tmp_path, "--workers", "2", "--epochs", "10000", data=digits)
    wait_for_epoch(tmp_path, process)
    workers = children(process)
    process.send_signal(number)
    found, error = end(process, timeout=60)
    assert found == code
    assert number != signal.SIGINT or error.startswith("Stopped. train --resume continues")
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)
