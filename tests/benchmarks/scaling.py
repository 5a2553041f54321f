"""Training on several workers: what a step computes and exchanges, and seconds on slow networks.

    python tests/benchmarks/scaling.py cost [article4-vae …]
    python tests/benchmarks/scaling.py workers [article4-vae …] [--rounds 3]
    python tests/benchmarks/scaling.py network [article4-vae …] [--rates 1000 100]

cost: parameters, bytes that a worker sends per step, FLOPs of a forward and backward pass by
TensorFlow's profiler, seconds of a step on this machine; and the batch per worker at which the
exchange takes as long as the computation, by arithmetic.
workers: samples per second of one process, one worker and two workers, in turns, and the bytes that
a worker sends, with headers, from the counter of its network interface.
network: seconds per step of two workers whose network has a limited rate, beside the arithmetic.

Two workers have a core, a network namespace and an end of a virtual cable each. On Linux only;
namespaces need root and iproute2. Without them, `workers` runs on 127.0.0.1 and counts no bytes,
and `network` ends with an error. The first epoch of each run is not timed: it compiles.
"""

import argparse
import contextlib
import itertools
import json
import math
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")


NAMES = (
    "article4-vae",
    "article4-gan",
    "article4-cnn",
    "article3-lstm",
    "article1-transformer",
    "article4-gpt2",
    "article3-pixelcnn",
    "article3-wavenet",
    "article3-diffusion",
)
TRAINED_NAMES = ("article4-vae", "article4-gan", "article4-gpt2", "article3-diffusion")
# Steps of a timed epoch: a multiple of 32 for recipes that execute 32 steps per call.
STEPS = {"article4-vae": 320, "article4-gan": 64}
OTHER_STEPS, NETWORK_STEPS, TIMED_EPOCHS = 5, 10, 3
GBITS = (1, 10, 100)
PROCESSORS = (10e12, 100e12)  # FLOP/s, examples
WORKERS = 8
ADDRESSES, PORT = ("10.213.0.1", "10.213.0.2"), 12345


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    subparsers = {}
    for name, function, names in (
        ("cost", cost, NAMES),
        ("workers", workers, TRAINED_NAMES),
        ("network", network, TRAINED_NAMES[:3]),
    ):
        subparsers[name] = commands.add_parser(name)
        subparsers[name].add_argument("names", nargs="*", default=list(names), metavar="NAME")
        subparsers[name].set_defaults(function=function)
    subparsers["workers"].add_argument("--rounds", type=int, default=3, help="runs of each [3]")
    subparsers["network"].add_argument(
        "--rates", type=int, nargs="+", default=[1000, 100], help="Mbit/s [1000 100]"
    )
    subparser = commands.add_parser("train", help="one worker, started by the other commands")
    subparser.add_argument("name")
    subparser.add_argument("steps", type=int, help="steps per epoch")
    subparser.set_defaults(function=train)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends the workers, too
    if options.command != "train":
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start", flush=True)
    options.function(options)


# Arithmetic of a step.


def ring_bytes(num_bytes, num_workers):
    """Return the bytes that a worker sends, and receives, in a ring all-reduce.

    Each of n workers sends n - 1 parts of an n-th to be added, and n - 1 sums.
    """
    return 2 * (num_workers - 1) / num_workers * num_bytes


def gathered_bytes(num_bytes, num_workers):
    """Return the bytes that a worker sends in a ring all-gather of what each worker has."""
    return (num_workers - 1) * num_bytes


def sent_bytes(gradients, num_workers):
    """Return the bytes that a worker sends per step.

    Args:
        gradients: List of `(num_bytes, dense_bytes, is_sparse, is_clipped)`: the bytes of a
            gradient, those of its variable, whether it is the `tf.IndexedSlices` of an embedding,
            which are gathered, and whether `global_clipnorm` clips it. Then it is exchanged before
            it is clipped, and again, as a dense one, by the optimizer; see
            `replicas.apply_gradients`.
        num_workers: Int.
    """
    total = 0
    for num_bytes, dense_bytes, is_sparse, is_clipped in gradients:
        total += (gathered_bytes if is_sparse else ring_bytes)(num_bytes, num_workers)
        if is_clipped:
            total += ring_bytes(dense_bytes, num_workers)
    return total


def fixed_and_per_example(row, num_workers):
    """Return the bytes sent by a worker that do not depend on its batch, and those per example."""
    one, two = (sent_bytes(gradients, num_workers) for gradients in row["gradients"])
    per_example = (two - one) / row["batch_size"]
    return one - per_example * row["batch_size"], per_example


def crossover(fixed_bytes, bytes_per_example, seconds_per_example, bytes_per_second):
    """Return the batch per worker at which computation takes as long as the exchange.

    Solves batch * seconds_per_example = (fixed_bytes + batch * bytes_per_example) / rate.
    Returns infinity if each example adds more to the exchange than to the computation.
    """
    slope = seconds_per_example - bytes_per_example / bytes_per_second
    return fixed_bytes / bytes_per_second / slope if slope > 0 else float("inf")


def cost(options):
    print(f"this machine: {matrix_flops() / 1e9:.0f} GFLOP/s in a product of large matrices")
    print(
        "name | parameters | MB sent per step by each of 2 workers that share the batch | "
        "MFLOP per example | batch | ms per step of one process | GFLOP/s"
    )
    rows = {}
    for name in options.names:
        row = rows[name] = measure_cost(name)
        batch_size = row["batch_size"]
        fixed, per_example = fixed_and_per_example(row, 2)
        sent = fixed + per_example * batch_size / 2
        print(
            f"{name} | {row['parameters']:,} | {sent / 1e6:.2f} | {row['flops'] / 1e6:,.1f} | "
            f"{batch_size} | {1e3 * row['seconds']:.1f} | "
            f"{row['flops'] * batch_size / row['seconds'] / 1e9:.0f}",
            flush=True,
        )
    print(
        f"batch per worker at which the exchange among {WORKERS} workers takes as long as the "
        f"computation, for {', '.join(map(str, GBITS))} Gbit/s: on processors of this machine's "
        "speed | " + " | ".join(f"of {flops / 1e12:g} TFLOP/s" for flops in PROCESSORS)
    )
    for name, row in rows.items():
        sent = fixed_and_per_example(row, WORKERS)
        speeds = [row["seconds"] / row["batch_size"], *(row["flops"] / p for p in PROCESSORS)]
        columns = [
            "; ".join(to_text(crossover(*sent, speed, rate * 1e9 / 8)) for rate in GBITS)
            for speed in speeds
        ]
        print(f"{name} | {' | '.join(columns)}")


def to_text(batch) -> str:
    """Return a batch in two significant digits, without an exponent."""
    return (
        f"{batch:.2g}" if batch < 10 or batch == float("inf") else f"{float(f'{batch:.2g}'):,.0f}"
    )


def measure_cost(name):
    """Trace and time the training step of a recipe, as several replicas run it: without XLA."""
    import keras
    import tensorflow as tf

    from keras_genai.catalog import RECIPES

    model, dataset = load(name, 2 * RECIPES[name].batch_size)
    model.steps_per_execution, model.jit_compile = 1, False
    two_batches = next(iter(dataset))
    batch_size = RECIPES[name].batch_size
    batch = tf.nest.map_structure(lambda x: x[:batch_size], two_batches)
    seconds = time_steps(model, tf.data.Dataset.from_tensors(batch).repeat(), 10)
    gradients, flops = [], []
    record_gradients(model, gradients)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.RNN):
            layer.unroll = True  # the profiler does not count what a loop computes
    for data in (batch, two_batches):
        gradients.append([])
        flops.append(count_flops(model, data))
    return {
        "parameters": sum(math.prod(weight.shape) for weight in model.trainable_variables),
        "gradients": gradients,  # of one batch, and of two
        "flops": (flops[1] - flops[0]) / batch_size,  # without those of the optimizer
        "batch_size": batch_size,
        "seconds": seconds[len(seconds) // 2],
    }


def load(name, batch_size):
    """Return the compiled model of a recipe, and its dataset."""
    import tensorflow as tf

    from keras_genai import recipes
    from keras_genai.experiments import EXPERIMENTS

    task = EXPERIMENTS[name].task
    data = task.load()
    model = recipes.create(name, **data.dataset_info)
    return model, task.train_dataset(data, batch_size, 0, tf.Variable(0, dtype=tf.int64))


def record_gradients(model, gradients):
    """Add the gradients that each optimizer gets to the last list in `gradients`."""
    import tensorflow as tf

    for optimizer in getattr(model.optimizer, "pair", (model.optimizer,)):

        def apply(values, variables, optimizer=optimizer, wrapped=optimizer.apply):
            is_clipped = optimizer.global_clipnorm is not None
            for value, variable in zip(values, variables, strict=True):
                is_sparse = isinstance(value, tf.IndexedSlices)
                parts = (value.values, value.indices) if is_sparse else (value,)
                num_bytes = sum(math.prod(part.shape) * part.dtype.size for part in parts)
                dense_bytes = math.prod(variable.shape) * value.dtype.size
                gradients[-1].append((num_bytes, dense_bytes, is_sparse, is_clipped))
            return wrapped(values, variables)

        optimizer.apply = apply


def count_flops(model, data):
    """Return the floating-point operations of a training step, by TensorFlow's profiler."""
    import tensorflow as tf

    spec = tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), data)
    graph = tf.function(lambda batch: model.train_step(batch)).get_concrete_function(spec).graph
    if graph.as_graph_def().library.function:
        raise ValueError("model: expected a step without loops and branches, which are not counted")
    profile_options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    profile_options["output"] = "none"
    flops = tf.compat.v1.profiler.profile(graph, options=profile_options).total_float_ops
    for operation in graph.get_operations():
        if operation.type == "Einsum":  # unknown to the profiler
            terms = operation.get_attr("equation").decode().split("->")[0].split(",")
            sizes = {}
            for term, tensor in zip(terms, operation.inputs, strict=True):
                sizes |= dict(zip(term, tensor.shape, strict=True))
            flops += 2 * math.prod(sizes.values())
    return flops


def time_steps(model, dataset, steps):
    """Return the sorted seconds of training steps, the first ones not counted."""
    import keras

    times = []
    callback = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda index, logs: times.append(time.perf_counter())
    )
    model.fit(dataset, steps_per_epoch=steps + 3, shuffle=False, verbose=0, callbacks=[callback])
    times = times[2:]
    return sorted(end - start for start, end in itertools.pairwise(times))


def matrix_flops(size=2048, repeats=5):
    """Return the FLOP/s of a product of two square matrices of 32-bit numbers."""
    import tensorflow as tf

    matrix = tf.random.normal((size, size))
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        tf.reduce_sum(matrix @ matrix).numpy()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds[1:])


# Workers.


def train(options):
    """Train a recipe, and print seconds and bytes sent per step of each timed epoch as JSON."""
    import keras

    from keras_genai import distribution
    from keras_genai.catalog import RECIPES

    strategy = distribution.strategy("auto")
    with strategy.scope():
        batch_size = RECIPES[options.name].batch_size
        model, dataset = load(options.name, batch_size)
    if strategy.num_replicas_in_sync > 1:  # as `recipes` does
        model.steps_per_execution, model.jit_compile = 1, False
    readings = []
    read = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: readings.append((time.perf_counter(), interface_bytes()))
    )
    model.fit(
        dataset.repeat(),
        steps_per_epoch=options.steps,
        epochs=1 + TIMED_EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=[read],
    )
    epochs = [
        ((time1 - time0) / options.steps, (bytes1 - bytes0) / options.steps)
        for (time0, bytes0), (time1, bytes1) in itertools.pairwise(readings)
    ]
    print(json.dumps({"epochs": epochs, "batch_size": batch_size}))


def interface_bytes() -> int:
    """Return the bytes sent by the network interfaces of this namespace, without the loopback."""
    lines = pathlib.Path("/proc/net/dev").read_text().splitlines()[2:]
    counters = dict(line.split(":") for line in lines)
    return sum(int(v.split()[8]) for name, v in counters.items() if name.strip() != "lo")


def run(name, steps, num_workers, cores, namespaces=None):
    """Train in one process or several, and return (median seconds per step, bytes, batch size).

    Args:
        name: String. Name of a recipe.
        steps: Int. Steps per epoch.
        num_workers: Int. `0` for one process without TF_CONFIG.
        cores: List of sets of ints. The cores of each process.
        namespaces: List of network namespaces, one per worker, or `None` for 127.0.0.1.
    """
    hosts = ADDRESSES if namespaces else ("127.0.0.1",) * num_workers
    ports = [PORT] * num_workers if namespaces else free_ports(num_workers)
    workers_ = [f"{host}:{port}" for host, port in zip(hosts, ports, strict=False)]
    with contextlib.ExitStack() as stack:
        processes = []
        for index, own_cores in enumerate(cores):
            prefix = ["ip", "netns", "exec", namespaces[index]] if namespaces else []
            environment = {key: value for key, value in os.environ.items() if key != "TF_CONFIG"}
            if num_workers:
                task = {"type": "worker", "index": index}
                config = {"cluster": {"worker": workers_}, "task": task}
                environment["TF_CONFIG"] = json.dumps(config)
            log = stack.enter_context(tempfile.TemporaryFile("w+"))
            process = subprocess.Popen(
                [*prefix, sys.executable, __file__, "train", name, str(steps)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                preexec_fn=lambda own_cores=own_cores: os.sched_setaffinity(0, own_cores),
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append((process, log))
        output = processes[0][0].communicate()[0]
        if processes[0][0].returncode:
            processes[0][1].seek(0)
            raise RuntimeError(f"{name}: worker 0 has ended: {processes[0][1].read()[-2000:]}")
    result = json.loads(output.splitlines()[-1])
    seconds, sent = (statistics.median(column) for column in zip(*result["epochs"], strict=True))
    return seconds, sent, result["batch_size"]


def free_ports(count):
    """Return ports of this machine that were free a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [listener.getsockname()[1] for listener in sockets]


def workers(options):
    cores = sorted(os.sched_getaffinity(0))
    both, one, split = [set(cores[:2])], [{cores[0]}], [{core} for core in cores[:2]]
    with contextlib.ExitStack() as stack:
        namespaces = None
        try:
            namespaces = stack.enter_context(cable())
        except OSError as error:
            print(f"bytes are not counted: {error}")
        programs = {
            "1 process, 2 cores": (0, both, None),
            "1 process, 1 core": (0, one, None),
            "1 worker, 2 cores": (1, both, None),
            "2 workers, 1 core each": (2, split, namespaces),
        }
        for name in options.names:
            steps = STEPS.get(name, OTHER_STEPS)
            rounds = [
                {program: run(name, steps, *a) for program, a in programs.items()}
                for _ in range(options.rounds)
            ]
            for program in programs:
                speeds = sorted(r[program][2] / r[program][0] for r in rounds)
                line = (
                    f"{name}, {program}: {statistics.median(speeds):,.1f} samples per second "
                    f"(from {speeds[0]:,.1f} to {speeds[-1]:,.1f})"
                )
                if program.startswith("2 workers") and namespaces:
                    sent = statistics.median(r[program][1] for r in rounds)
                    line += f", {sent / 1e6:.3f} MB sent per step by the first worker"
                print(line, flush=True)
            print(f"load {os.getloadavg()[0]:.1f}", flush=True)


# Networks.


@contextlib.contextmanager
def cable(mbits=None):
    """Context with two network namespaces joined by a virtual cable, of a limited rate if given.

    Yields:
        List of the names of both namespaces.

    Raises:
        OSError: if this system or user cannot make namespaces.
    """
    namespaces = [f"scaling-{os.getpid()}-{i}" for i in range(2)]
    try:
        for namespace in namespaces:
            ip("netns", "add", namespace)
        first, second = namespaces
        peer = ("type", "veth", "peer", "name", "veth1", "netns", second)
        ip("link", "add", "veth0", "netns", first, *peer)
        for i, (namespace, address) in enumerate(zip(namespaces, ADDRESSES, strict=True)):
            ip("-n", namespace, "addr", "add", f"{address}/24", "dev", f"veth{i}")
            for interface in ("lo", f"veth{i}"):
                ip("-n", namespace, "link", "set", interface, "up")
            if mbits is not None:
                limit = ("rate", f"{mbits}mbit", "burst", "128kb", "latency", "50ms")
                device = ("dev", f"veth{i}", "root", "tbf", *limit)
                command("tc", "-n", namespace, "qdisc", "add", *device)
        yield namespaces
    finally:
        for namespace in namespaces:
            if shutil.which("ip"):
                subprocess.run(["ip", "netns", "del", namespace], capture_output=True)


def ip(*arguments):
    command("ip", *arguments)


def command(*arguments):
    """Run a command, and raise OSError with its message if it fails."""
    if shutil.which(arguments[0]) is None:
        raise OSError(f"{arguments[0]}: expected iproute2 to be installed")
    result = subprocess.run(arguments, capture_output=True, text=True)
    if result.returncode:
        raise OSError(f"{' '.join(arguments)}: {result.stderr.strip()} (namespaces need root)")


def network(options):
    cores = [{core} for core in sorted(os.sched_getaffinity(0))[:2]]
    results = {}
    for mbits in (None, *sorted(options.rates, reverse=True)):
        try:
            with cable(mbits) as namespaces:
                measured = tcp_rate(namespaces)
                title = "no limit" if mbits is None else f"{mbits} Mbit/s"
                print(f"{title}: {8 * measured / 1e6:,.0f} Mbit/s by plain TCP", flush=True)
                for name in options.names:
                    seconds, sent, _ = results[name, mbits] = run(
                        name, NETWORK_STEPS, 2, cores, namespaces
                    )
                    line = f"{name}, {title}: {1e3 * seconds:.1f} ms per step"
                    if mbits is not None:
                        exchange, unlimited = sent / measured, results[name, None][0]
                        line += (
                            f"; {1e3 * exchange:.1f} for {sent / 1e6:.2f} MB at this rate, "
                            f"{1e3 * (unlimited + exchange):.1f} with the step without limit"
                        )
                    print(line, flush=True)
        except OSError as error:
            raise SystemExit(f"network: cannot be measured here: {error}") from error
    print(f"load {os.getloadavg()[0]:.1f}")


RECEIVER = """
import socket, time
with socket.create_server(("", {port})) as listener:
    print("ready", flush=True)
    connection, _ = listener.accept()
    total, start = 0, time.perf_counter()
    while received := len(connection.recv(2**20)):
        total += received
    print(total / (time.perf_counter() - start))
"""
SENDER = """
import socket, time
with socket.create_connection(("{host}", {port})) as connection:
    end, block = time.perf_counter() + 3, bytes(2**16)
    while time.perf_counter() < end:
        connection.sendall(block)
"""


def tcp_rate(namespaces) -> float:
    """Return the bytes per second of a plain TCP connection between two namespaces."""
    programs = RECEIVER.format(port=PORT), SENDER.format(host=ADDRESSES[0], port=PORT)
    receive, send = (
        ["ip", "netns", "exec", namespace, sys.executable, "-c", program]
        for namespace, program in zip(namespaces, programs, strict=True)
    )
    with subprocess.Popen(receive, stdout=subprocess.PIPE, text=True) as receiver:
        try:
            receiver.stdout.readline()
            subprocess.run(send, check=True)
            return float(receiver.stdout.readline())
        finally:
            receiver.kill()


if __name__ == "__main__":
    main()
