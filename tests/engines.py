"""A GPT-2 of this package in an engine that serves many users: CTranslate2 generates the same text.

pip install ".[test,engines]"
python -m pytest -n 0 tests/engines.py
"""

import json
import subprocess
import sys

import numpy as np
import pytest
from helpers import add_random_noise

from keras_genai import pretrained
from keras_genai.autoregressive import GREEDY
from keras_genai.gpt2 import build_gpt2
from keras_genai.gpt2_checkpoint import save_gpt2
from keras_genai.text import GPT2Tokenizer

TEXT = "The quick brown fox jumps over the lazy dog. " * 4
PROMPTS = ("And it came to pass", "In the beginning", "Now, fair")
MAX_NEW_TOKENS = 40

# In a process of its own: some builds of PyTorch, which the converter imports, crash beside
# TensorFlow.
PROGRAM = """
import json, sys, ctranslate2, transformers
checkpoint, converted, max_new_tokens = sys.argv[1], sys.argv[1] + "-ctranslate2", int(sys.argv[2])
ctranslate2.converters.TransformersConverter(checkpoint).convert(converted)
tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
generator = ctranslate2.Generator(converted, compute_type="float32")
for prompt in sys.argv[3:]:
    tokens = tokenizer.tokenize(prompt)
    steps = len(tokens) + max_new_tokens - 1
    (result,) = generator.generate_batch(
        [tokens], min_length=steps, max_length=steps, sampling_topk=1, end_token=[]
    )
    print("RESULT" + json.dumps(result.sequences_ids[0]))
"""


def assert_same_tokens(model, folder):
    save_gpt2(model, folder)
    command = [sys.executable, "-c", PROGRAM, str(folder), str(MAX_NEW_TOKENS), *PROMPTS]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if line.startswith("RESULT")]
    for prompt, line in zip(PROMPTS, lines, strict=True):
        tokens = model.tokenizer.encode(prompt)
        expected = model.generate(np.array([tokens]), MAX_NEW_TOKENS, sampler=GREEDY)[0]
        assert json.loads(line.removeprefix("RESULT")) == list(expected)


def test_pretrained_model(tmp_path):
    assert_same_tokens(pretrained.load("article4-gpt2"), tmp_path / "checkpoint")


@pytest.mark.parametrize("activation", ["gelu_new", "gelu", "relu"])
@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_model_with_random_weights(activation, tie_embeddings, tmp_path):
    tokenizer = GPT2Tokenizer.train(TEXT, 270)
    model = build_gpt2(
        tokenizer.vocab_size,
        64,
        2,
        2,
        16,
        activation=activation,
        tie_embeddings=tie_embeddings,
        tokenizer=tokenizer,
    )
    add_random_noise(model)
    assert_same_tokens(model, tmp_path / "checkpoint")
