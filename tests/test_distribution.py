"""Training on two replicas of a MirroredStrategy: losses are averaged over both, not added."""

import pathlib
import subprocess
import sys

import pytest

PROGRAM = pathlib.Path(__file__).parent / "fixtures" / "two_replicas.py"


@pytest.mark.slow
def test_two_replicas_train_the_same_weights_as_one():
    subprocess.run([sys.executable, PROGRAM], check=True)
