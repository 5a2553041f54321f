"""Odd arguments: a public function works, or raises an error that names the argument.

One argument of a valid call is replaced by an odd value. The seeds are fixed, so that a failure can
be repeated: `run(name, argument, value)` of `fuzz_cases` makes one call.
"""

import warnings

import pytest
import tensorflow as tf
from fuzz_cases import CALLS, CASES, EXCLUDED, networks, public_names, run
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from keras_genai import gpt2_checkpoint

# Functions whose arguments are not all checked yet.
PENDING = [
    "AtomicModelCheckpoint",
    "binarize",
    "mu_law_decode",
    "mu_law_encode",
    "save_wav",
    "series_windows",
    "train_gan",
    "trim_silence",
]
MAX_PENDING = 0.01


def test_each_public_name_has_a_case_or_a_reason():
    excluded = {name for names in EXCLUDED.values() for name in names.split()}
    tested = {name.split(".")[0] for name in CASES}
    assert tested | excluded == public_names() | {"CausalLM"}
    assert tested & excluded == {"CausalLM"}  # its methods


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


@pytest.mark.parametrize("num_calls", [300, pytest.param(3000, marks=pytest.mark.slow)])
def test_odd_arguments_work_or_are_refused_by_name(num_calls, environment, capsys):
    endings = {}

    @settings(
        max_examples=num_calls,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(CALLS))
    def call(case):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of NumPy and Keras, about the odd values
            endings[case] = run(*case)

    call()
    other = {case: ending for case, ending in endings.items() if ending}
    unexpected = {case: ending for case, ending in other.items() if case[0] not in PENDING}
    with capsys.disabled():
        print(f"{len(endings):,} odd calls of {len(CASES)} functions: {len(other)} other endings")
    assert len(endings) > 0.8 * num_calls
    assert not unexpected
    assert len(other) <= MAX_PENDING * len(endings)
