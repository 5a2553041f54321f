"""Run notebooks from top to bottom, in place: `python notebooks/execute.py [NAME ...]`.

A notebook is written with its outputs, and with a hash of the code that they belong to. It is not
changed if a cell raises an error.
"""

import argparse
import hashlib
import json
import pathlib
import time

import nbformat
from nbclient import NotebookClient

FOLDER = pathlib.Path(__file__).parent
# The kernel's own stderr has what TensorFlow prints when it starts.
KERNEL_OPTIONS = ["--IPKernelApp.capture_fd_output=False"]


def sources_sha256(notebook) -> str:
    """Return the hash of a notebook's code, without outputs and texts."""
    code = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()


def execute(path: pathlib.Path) -> None:
    """Run a notebook in its own folder, and write it with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=1200,
        kernel_name="python3",
        record_timing=False,
        extra_arguments=KERNEL_OPTIONS,
        resources={"metadata": {"path": str(FOLDER)}},
    )
    client.execute()
    notebook["metadata"]["keras_genai"] = {"sources_sha256": sources_sha256(notebook)}
    nbformat.write(notebook, path)


def main() -> None:
    """Run the notebooks that the command line names, by default all."""
    parser = argparse.ArgumentParser(description="Run notebooks from top to bottom, in place.")
    names = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
    parser.add_argument("name", nargs="*", default=names, help=f"one of {', '.join(names)}")
    for name in parser.parse_args().name:
        start = time.perf_counter()
        execute(FOLDER / f"{pathlib.Path(name).stem}.ipynb")
        print(f"{name}: {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
