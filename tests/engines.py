"""A GPT-2 of this package in engines that serve many users: each generates the same text.

pip install ".[test,engines]"
python -m pytest -n 0 tests/engines.py
"""

import json
import subprocess
import sys

import keras
import numpy as np
import onnxruntime
import pytest
from helpers import add_random_noise

from keras_genai import pretrained
from keras_genai.autoregressive import GREEDY
from keras_genai.gpt2 import build_gpt2
from keras_genai.gpt2_checkpoint import save_gpt2
from keras_genai.gpt2_gguf import save_gguf
from keras_genai.text import GPT2Tokenizer

# Keras looks for `np.object` before an export.
pytestmark = pytest.mark.filterwarnings("ignore:In the future `np.object`:FutureWarning")
TEXT = "The quick brown fox jumps over the lazy dog. " * 4
PROMPTS = (
    "And it came to pass",
    "In the beginning",
    "Now, fair",
    "it's 1234,  \n\n\t we'LL 漢字 é 🦙!?..   x ",
)
MAX_NEW_TOKENS = 40

# In processes of their own: some builds of PyTorch, which the converter of CTranslate2 imports,
# crash beside TensorFlow.
CTRANSLATE2 = """
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
LLAMA_CPP = """
import json, sys, urllib.request, xllamacpp
parameters = xllamacpp.CommonParams()
parameters.model.path, parameters.n_parallel = sys.argv[1], 1
server = xllamacpp.Server(parameters)

def post(path, **content):
    data = json.dumps(content).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(server.listening_address + path, data, headers)
    with urllib.request.urlopen(request) as response:
        return json.load(response)["tokens"]

for prompt in sys.argv[3:]:
    tokens = post("/tokenize", content=prompt)
    new_tokens = post(
        "/completion", prompt=prompt, n_predict=int(sys.argv[2]), temperature=0, return_tokens=True
    )
    print("RESULT" + json.dumps(tokens + new_tokens))
"""


def run_engine(program, path):
    """The tokens of each prompt and its greedy continuation."""
    command = [sys.executable, "-c", program, str(path), str(MAX_NEW_TOKENS), *PROMPTS]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if line.startswith("RESULT")]
    return [json.loads(line.removeprefix("RESULT")) for line in lines]


def run_ctranslate2(model, folder):
    save_gpt2(model, folder / "checkpoint")
    return run_engine(CTRANSLATE2, folder / "checkpoint")


def run_llama_cpp(model, folder):
    save_gguf(model, folder / "gpt2.gguf")
    return run_engine(LLAMA_CPP, folder / "gpt2.gguf")


def export_onnx(model, folder):
    path = str(folder / "gpt2.onnx")
    model.export(path, format="onnx", input_signature=model.inputs, verbose=False)
    return onnxruntime.InferenceSession(path)


def run_onnxruntime(model, folder):
    session = export_onnx(model, folder)
    rows = encode_prompts(model)
    for row in rows:
        for _ in range(MAX_NEW_TOKENS):
            (logits,) = session.run(None, {"tokens": np.array([row], "int32")})
            row.append(int(logits[0, -1].argmax()))
    return rows


ENGINES = [run_ctranslate2, run_llama_cpp, run_onnxruntime]


def encode_prompts(model):
    return [model.tokenizer.encode(prompt).tolist() for prompt in PROMPTS]


def random_model(tokenizer=None, **options):
    tokenizer = tokenizer or GPT2Tokenizer.train(TEXT, 270)
    sizes = {"context_length": 128, "num_layers": 2, "num_heads": 2, "d_model": 16}
    options = {"vocab_size": tokenizer.vocab_size, **sizes, **options}
    keras.utils.set_random_seed(0)
    model = build_gpt2(**options, tokenizer=tokenizer)
    add_random_noise(model)
    return model


@pytest.mark.parametrize("run", ENGINES)
def test_pretrained_model(run, tmp_path):
    model = pretrained.load("article4-gpt2")
    expected = model.generate(encode_prompts(model), MAX_NEW_TOKENS, sampler=GREEDY)
    assert run(model, tmp_path) == [row.tolist() for row in expected]


@pytest.mark.parametrize("activation", ["gelu_new", "gelu", "relu"])
@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_ctranslate2_with_random_weights(activation, tie_embeddings, tmp_path):
    model = random_model(activation=activation, tie_embeddings=tie_embeddings)
    expected = model.generate(encode_prompts(model), MAX_NEW_TOKENS, sampler=GREEDY)
    assert run_ctranslate2(model, tmp_path) == [row.tolist() for row in expected]


@pytest.mark.parametrize(
    "options",
    [
        {"tie_embeddings": False},
        {"dff": 24},
        {"vocab_size": 300},  # padded
        {"vocab_size": 50257, "tokenizer": GPT2Tokenizer.gpt2()},
    ],
    ids=["untied", "narrow", "padded", "published tokenizer"],
)
def test_llama_cpp_with_random_weights(options, tmp_path):
    model = random_model(**options)
    rows = run_llama_cpp(model, tmp_path)
    for row, prompt in zip(rows, encode_prompts(model), strict=True):
        assert row[: len(prompt)] == prompt
        # Its GELU is a table in float16, and so are its cached keys and values: where two logits
        # are almost equal, either token may be the one.
        logits = np.array(model(np.array([row])))[0, :, : model.tokenizer.vocab_size]
        chosen = logits[np.arange(len(row) - 1), row[1:]]
        n = len(prompt) - 1
        assert (logits.max(-1)[n:-1] - chosen[n:]).max() < 0.05
        if len(row) < len(prompt) + MAX_NEW_TOKENS:
            assert logits[-1].argmax() == model.tokenizer.end_token


@pytest.mark.parametrize(
    "options",
    [
        {"activation": "gelu_new", "tie_embeddings": False},
        # tf2onnx lacks Erfc, with which Keras computes gelu.
        *({"activation": name} for name in ("relu", "silu", "tanh")),
    ],
    ids=str,
)
def test_onnxruntime_with_random_weights(options, tmp_path):
    model = random_model(**options)
    session = export_onnx(model, tmp_path)
    tokens = np.random.default_rng(0).integers(0, model.vocab_size, (3, 128)).astype("int32")
    for block in (tokens, tokens[:1, :5]):  # of any batch size and length
        (logits,) = session.run(None, {"tokens": block})
        np.testing.assert_allclose(logits, model(block), atol=1e-4)
