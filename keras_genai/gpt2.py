"""GPT-2: article 4, section 4 (Radford et al. 2019).

A stack of Transformer decoder layers without cross-attention, which predicts each token from the
tokens before it. `GPT2` builds it in any size, with new weights; `gpt2_checkpoint.load_gpt2` loads
published weights.

Corrected from the article, whose section 4 is titled "自回归模型(Transformers和GPT)":
- Its list of principles (工作原理) names relations of each element with the others, and an
  encoder–decoder structure. These describe the Transformer of Vaswani et al. 2017, not GPT-2: a
  GPT is a decoder only, and a causal mask limits each token to itself and earlier tokens.
- Its listing decodes greedily, which leads to repetition (Holtzman et al. 2020, section 3).
  `generate_text` can sample instead, also several continuations.

The listing has a single prompt, which needs no attention mask. Batches of prompts of different
lengths need none here either: each row continues where its own prompt ends.
"""

import contextlib

import keras
from keras import layers, ops

from keras_genai.attention import TransformerDecoderLayer
from keras_genai.autoregressive import GREEDY, check_sampler
from keras_genai.embeddings import ReversibleEmbedding, lookup, positions_from
from keras_genai.language_model import CausalLM
from keras_genai.layer_state import frozen
from keras_genai.random_state import Dropout
from keras_genai.sampling import num_tokens
from keras_genai.text import check_tokenizer, encode_texts
from keras_genai.validation import (
    check_bools,
    check_choice,
    check_fraction,
    check_methods,
    check_number,
    check_size,
    check_sizes,
    check_type,
)


@keras.saving.register_keras_serializable(package="keras_genai")
def gelu_new(x):
    """GELU in its tanh approximation, as in GPT-2 (Hendrycks & Gimpel 2016, section 2)."""
    return keras.activations.gelu(x, approximate=True)


# Activations by their names in the checkpoints of `transformers`.
ACTIVATIONS = {
    "gelu_new": gelu_new,
    "gelu_pytorch_tanh": gelu_new,
    "gelu": keras.activations.gelu,
    "relu": keras.activations.relu,
    "silu": keras.activations.silu,
    "tanh": keras.activations.tanh,
}


def _initializer():
    return keras.initializers.RandomNormal(stddev=0.02)


@keras.saving.register_keras_serializable(package="keras_genai")
class PositionEmbedding(layers.Layer):
    """Learned position embedding, added to its input `(batch, n, d_model)`.

    Where a compiled gather would take a position past the table, the output is NaN.

    Args:
        context_length: Int. Number of positions.
    """

    def __init__(self, context_length, **kwargs):
        super().__init__(**kwargs)
        self.context_length = context_length

    def build(self, input_shape):
        self.embeddings = self.add_weight(
            (self.context_length, input_shape[-1]), _initializer(), name="embeddings"
        )

    def call(self, x, position=0):
        """Add position embeddings to x `(batch, n, d_model)`, whose first is at `position`."""
        positions = positions_from(position, ops.shape(x)[1], self.context_length)
        return x + lookup(ops.cast(self.embeddings, x.dtype), positions)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "context_length": self.context_length}


@keras.saving.register_keras_serializable(package="keras_genai")
class GPT2(CausalLM):
    """GPT-2, by default in the smallest published size, with 124,439,808 parameters.

    Maps token ids `(batch, n)` to logits `(batch, n, vocab_size)`, where `logits[:, i]` belongs to
    the token at position i + 1.

    Args:
        vocab_size: Int. Number of tokens in the vocabulary. Defaults to `50257`.
        context_length: Int. Length of the longest sequence. Defaults to `1024`.
        num_layers: Int. Number of Transformer layers. Defaults to `12`.
        num_heads: Int. Number of attention heads, a divisor of `d_model`. Defaults to `12`.
        d_model: Int. Width of the vectors. Defaults to `768`.
        dff: Int or `None`. Inner width of the feed-forward networks. Defaults to `4 * d_model`.
        activation: String. Activation of the feed-forward networks, a key of `ACTIVATIONS`:
            `"gelu_new"`, `"gelu"`, `"relu"`, `"silu"` or `"tanh"`. Defaults to `"gelu_new"`.
        layer_norm_epsilon: Float. Added to the variance. Defaults to `1e-5`.
        tie_embeddings: Bool. Whether the output layer uses the kernel of the token embedding.
            Defaults to `True`.
        dropout: Float in [0, 1). Dropout rate of the embeddings, the attention scores and the
            output of each sublayer. Defaults to `0.1`.
        tokenizer: Tokenizer of the text, saved with the model, or `None`. It may have fewer tokens
            than a vocabulary padded to a round size, such as 50,304: ids beyond are never
            generated.
        name: String. Name of the model. Defaults to `"gpt2"`.

    Raises:
        ValueError: for a size below 1, a `d_model` that is not a multiple of `num_heads`, an
            unknown `activation`, a `dropout` outside [0, 1), or a tokenizer with more than
            `vocab_size` tokens.

    Example:
        model = GPT2(tokenizer.vocab_size, 256, 6, 6, 192, tokenizer=tokenizer)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.AdamW(1e-3, weight_decay=0.1, global_clipnorm=1.0), loss)
        model.fit(tokens[:, :-1], tokens[:, 1:])
        model.generate("Once upon a time")
    """

    def __init__(
        self,
        vocab_size=50257,
        context_length=1024,
        num_layers=12,
        num_heads=12,
        d_model=768,
        dff=None,
        activation="gelu_new",
        layer_norm_epsilon=1e-5,
        tie_embeddings=True,
        dropout=0.1,
        tokenizer=None,
        name="gpt2",
        **kwargs,
    ):
        vocab_size, context_length, num_layers, num_heads, d_model = check_sizes(
            vocab_size=vocab_size,
            context_length=context_length,
            num_layers=num_layers,
            num_heads=num_heads,
            d_model=d_model,
        )
        dff = check_size("dff", 4 * d_model if dff is None else dff)
        check_choice("activation", activation, ACTIVATIONS)
        dropout = check_fraction("dropout", dropout)
        layer_norm_epsilon = check_number("layer_norm_epsilon", layer_norm_epsilon, above=0)
        check_bools(tie_embeddings=tie_embeddings)
        check_tokenizer("tokenizer", tokenizer, vocab_size, padded=True)

        # Layers.
        embedding = ReversibleEmbedding(
            vocab_size, d_model, tie_embeddings, _initializer(), name="embedding"
        )
        position_embedding = PositionEmbedding(context_length, name="position_embedding")
        decoder_layers = [
            TransformerDecoderLayer(
                num_heads,
                dff,
                cross_attention=False,
                dropout=dropout,
                attention_dropout=dropout,
                activation=ACTIVATIONS[activation],
                norm_first=True,
                layer_norm_epsilon=layer_norm_epsilon,
                kernel_initializer=_initializer(),
                name=f"decoder_layer_{i + 1}",
            )
            for i in range(num_layers)
        ]
        layer_norm = layers.LayerNormalization(epsilon=layer_norm_epsilon, name="layer_norm")

        # Graph.
        tokens = keras.Input((None,), dtype="int32", name="tokens")  # (batch, n)
        x = Dropout(dropout)(position_embedding(embedding(tokens)))  # (batch, n, d_model)
        for layer in decoder_layers:
            x = layer(x)  # (batch, n, d_model)
        logits = embedding(layer_norm(x), reverse=True)  # (batch, n, vocab_size)
        super().__init__(tokens, logits, name=name, **kwargs)

        # Smaller kernels before each residual addition: otherwise the variance of the sum would
        # grow with the number of layers (section 2.3).
        for layer in decoder_layers:
            for dense in (layer.self_attention.output_dense, layer.feedforward_output_dense):
                dense.kernel.assign(dense.kernel / (2 * num_layers) ** 0.5)

        # Attributes.
        self.embedding, self.position_embedding = embedding, position_embedding
        self.decoder_layers, self.layer_norm = decoder_layers, layer_norm
        self.vocab_size, self.context_length = vocab_size, context_length
        self.tokenizer = tokenizer
        self.config = {
            "vocab_size": vocab_size,
            "context_length": context_length,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "d_model": d_model,
            "dff": dff,
            "activation": activation,
            "layer_norm_epsilon": layer_norm_epsilon,
            "tie_embeddings": tie_embeddings,
            "dropout": dropout,
        }

    def get_config(self):
        # A file has no LoRA weights, so that the layers that have them are saved as frozen.
        attentions = [layer.self_attention for layer in self.decoder_layers]
        with contextlib.ExitStack() as stack:
            for attention in attentions:
                for dense in (attention.query, attention.value):
                    if dense.lora_enabled:
                        stack.enter_context(frozen(dense))
            return super().get_config()

    def initial_state(self, batch_size, max_length, conditioning=None):
        """Return one empty cache per layer; see `autoregressive.AutoregressiveModel`."""
        if conditioning is not None:
            raise ValueError("conditioning: expected None, as the model has no other input.")
        return [layer.initial_state(batch_size, max_length) for layer in self.decoder_layers]

    def step(self, tokens, state, position, length=None):
        """Process tokens `(batch, n)`; see `autoregressive.AutoregressiveModel`."""
        x = self.position_embedding(self.embedding(tokens), position=position)
        new_state = []
        for layer, layer_state in zip(self.decoder_layers, state, strict=True):
            x, layer_state = layer.step(x, layer_state, position)
            new_state.append(layer_state)
        return self.embedding(self.layer_norm(x), reverse=True), new_state


build_gpt2 = GPT2  # under a builder's name, like `build_vae`


def enable_lora(model: GPT2, rank: int = 8) -> None:
    """Freeze a GPT-2, except a low-rank update of its query and value kernels (Hu et al. 2022).

    Each kernel W becomes W + A B, with trainable A `(d_model, rank)` and B `(rank, d_model)`.
    Compile the model afterwards. Saving merges the update into the kernels: a loaded model has no
    LoRA weights, and all of its layers are frozen. Another `enable_lora` continues the training,
    with new updates and another `compile`; the state of the optimizer is not restored.

    Args:
        model: `GPT2`. Model to change.
        rank: Int. Rank of the updates. Defaults to `8`.

    Raises:
        ValueError: for a rank below 1.
    """
    check_type("model", model, GPT2)
    rank = check_size("rank", rank)
    for layer in (model.embedding, model.position_embedding, model.layer_norm):
        layer.trainable = False
    for layer in model.decoder_layers:
        attention = layer.self_attention
        layer.trainable = attention.trainable = True
        for frozen_layer in (
            attention.key,
            attention.output_dense,
            layer.self_attention_layer_norm,
            layer.feedforward_intermediate_dense,
            layer.feedforward_output_dense,
            layer.feedforward_layer_norm,
        ):
            frozen_layer.trainable = False
        for dense in (attention.query, attention.value):
            dense.trainable = True  # the flags of the layers around it do not reach it
            dense.bias.trainable = False
            dense.enable_lora(rank)  # freezes the kernel


def generate_text(
    model,
    tokenizer,
    prompt,
    max_length=100,
    *,
    num_return_sequences=1,
    sampler=GREEDY,
    seed=None,
    sliding_window=False,
) -> list[str]:
    """Continue a text, with the arguments of article 4's `generate` call.

    Greedy search is the article's choice, and leads to repetition: the likeliest continuation of a
    phrase is often the phrase again (Holtzman et al. 2020, section 3).

    Args:
        model: `CausalLM`. Model that generates the tokens.
        tokenizer: Tokenizer of the model, with an `end_token`.
        prompt: String. Beginning of the text.
        max_length: Int. Maximum number of tokens, including the prompt. Defaults to `100`.
        num_return_sequences: Int. Number of texts. Defaults to `1`.
        sampler: `autoregressive.Sampler`, or `GREEDY`. Defaults to `GREEDY`.
        seed: Int or `None`. Seed of the random numbers.
        sliding_window: Bool. Whether `max_length` may exceed the model's context length; see
            `autoregressive.generate`. Defaults to `False`.

    Returns:
        List of `num_return_sequences` texts, each with the prompt, and without the end token.

    Raises:
        ValueError: for an empty prompt, for one of `max_length` tokens or more, and for several
            sequences under greedy search, which would be equal.

    Example:
        model = load_gpt2("gpt2")
        generate_text(model, model.tokenizer, "Once upon a time")
        generate_text(model, model.tokenizer, "Once upon a time", sampler=Sampler(top_p=0.9))
    """
    check_type("model", model, CausalLM)
    check_methods("tokenizer", tokenizer, "a tokenizer", "encode", "decode", "end_token")
    check_tokenizer("tokenizer", tokenizer, num_tokens(model))
    check_sampler(sampler)
    num_return_sequences = check_size("num_return_sequences", num_return_sequences)
    if num_return_sequences > 1 and sampler.top_k == 1:
        raise ValueError(
            f"num_return_sequences: expected 1 under greedy search, which is deterministic, got "
            f"{num_return_sequences}. Sample with Sampler() for different sequences."
        )
    (tokens,) = encode_texts("prompt text", tokenizer, [prompt])
    max_length = check_size("max_length", max_length, minimum=len(tokens) + 1)
    rows = model.generate(
        [tokens] * num_return_sequences,
        max_length - len(tokens),
        sampler=sampler,
        seed=seed,
        stop_token=tokenizer.end_token,
        sliding_window=sliding_window,
    )
    return [tokenizer.decode(row[:-1] if row[-1] == tokenizer.end_token else row) for row in rows]
