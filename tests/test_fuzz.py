"""Odd arguments: a public function works, or raises an error that names the argument.

One argument of a valid call is replaced by an odd value. The seeds are fixed, so that a failure can
be repeated: `run(name, argument, value)` of `fuzz_cases` makes one call.
"""

import warnings

import numpy as np
import pytest
import tensorflow as tf
from fuzz_cases import CALLS, CASES, EXCLUDED, networks, public_names, run
from helpers import COUNTS

from keras_genai import gpt2_checkpoint


def test_each_public_name_has_a_case_or_a_reason():
    excluded = {name for names in EXCLUDED.values() for name in names.split()}
    tested = {name.split(".")[0] for name in CASES}
    assert tested | excluded == public_names() | {"CausalLM"}
    assert tested & excluded == {"CausalLM", "TranslationModel"}  # their methods


@pytest.mark.filterwarnings("ignore:Even though the .tf.config:UserWarning")  # of `tf.data`
@pytest.mark.parametrize("name", CASES)
def test_the_call_without_odd_values_is_valid(name, environment):
    function, arguments = CASES[name]
    function(**arguments())


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """Run without compilation, without downloads, and in an empty folder."""

    def fail(_):
        raise OSError("no connection")

    networks()
    monkeypatch.setattr(gpt2_checkpoint, "_download", fail)
    monkeypatch.chdir(tmp_path)
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def run_quietly(environment, capsys):
    """A function that makes calls, and asserts how they end."""

    def run_all(calls):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of NumPy and Keras, about the odd values
            endings = {call: run(*call) for call in calls}
        other = {call: ending for call, ending in endings.items() if ending}
        with capsys.disabled():
            print(f"\n{len(endings):,} odd calls of {len(CASES)} functions: {len(other)} mishaps")
        assert not other

    return run_all


def test_random_odd_arguments_work_or_are_refused_by_name(run_quietly):
    # Not by Hypothesis, which draws other calls in each version, and some many times.
    indices = np.random.default_rng(0).choice(len(CALLS), 300, replace=False)
    run_quietly([CALLS[i] for i in indices])


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))  # for several processes
def test_all_odd_arguments_work_or_are_refused_by_name(run_quietly, part):
    assert len(CALLS) == COUNTS["odd calls"]
    run_quietly(CALLS[part::8])
