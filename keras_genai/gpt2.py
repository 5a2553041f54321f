"""GPT-2: article 4, section 4 (Radford et al. 2019).

A Transformer's decoder layers without an encoder, which predict the next token from all before it.
`build_gpt2` makes it in any size, new; `checkpoints.load_gpt2` reads the published weights into it.

Corrected from the article:
- It describes attention of "each element with every other" and an encoder–decoder. A GPT is a
  decoder alone: a causal mask lets each token see itself and what stands before it.
- It passes no attention mask for a batch of prompts. Here, prompts of different lengths need none:
  each row goes on where its prompt ends.
- Its greedy text repeats itself, and greedy search has one answer: more than one is an error. See
  `generate_text`, which draws.
"""

import keras
from keras import layers, ops

from keras_genai.autoregressive import GREEDY
from keras_genai.inputs import Dropout, check_choice, check_share, check_size, check_sizes
from keras_genai.text import LanguageModel, check_tokenizer
from keras_genai.transformer import TransformerDecoderLayer, positions_from


@keras.saving.register_keras_serializable(package="keras_genai")
def gelu_new(x):
    """GELU by the tanh of a cubic, as GPT-2 computes it (Hendrycks & Gimpel 2016, section 2)."""
    return keras.activations.gelu(x, approximate=True)


# By the names that a checkpoint of `transformers` gives them.
ACTIVATIONS = {
    "gelu_new": gelu_new,
    "gelu_pytorch_tanh": gelu_new,
    "gelu": keras.activations.gelu,
    "relu": keras.activations.relu,
    "silu": keras.activations.silu,
    "tanh": keras.activations.tanh,
}


@keras.saving.register_keras_serializable(package="keras_genai")
class LearnedPositions(layers.Layer):
    """Add to each vector of x (batch, n, d_model) a learned one of its position."""

    def __init__(self, context_length, **kwargs):
        super().__init__(**kwargs)
        self.context_length = context_length

    def build(self, input_shape):
        self.embeddings = self.add_weight(
            (self.context_length, input_shape[-1]), _normal(), name="embeddings"
        )

    def call(self, x, position=0):
        """Take the vectors for those at position, position + 1, …"""
        places = positions_from(position, ops.shape(x)[1], self.context_length)
        return x + ops.take(ops.cast(self.embeddings, x.dtype), places, axis=0)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "context_length": self.context_length}


def _normal():
    return keras.initializers.RandomNormal(stddev=0.02)


def build_gpt2(
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
) -> "GPT2":
    """Build a GPT-2, by default the smallest of those published: 124,439,808 parameters.

        model = build_gpt2(tokenizer.vocab_size, 256, 6, 6, 192, tokenizer=tokenizer)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.AdamW(1e-3, weight_decay=0.1, global_clipnorm=1.0), loss)
        model.fit(tokens[:, :-1], tokens[:, 1:])
        model.generate("Once upon a time")

    Args:
        vocab_size: number of tokens.
        context_length: the longest sequence.
        num_layers: Transformer layers.
        num_heads: of an attention; d_model is a multiple of it.
        d_model: size of a vector.
        dff: inner width of a layer, 4 d_model if None.
        activation: of the inner width: "gelu_new", "gelu", "relu", "silu", "tanh".
        layer_norm_epsilon: added to the variance.
        tie_embeddings: whether the logits have the embedding's matrix.
        dropout: of embeddings, attention weights, and what each sublayer adds.
        tokenizer: of the text that the model reads and writes; it is saved with the model.

    Returns:
        A model from token ids (batch, n) to logits (batch, n, vocab_size).

    Raises:
        ValueError: for a size below 1, a d_model that is no multiple of num_heads, an unknown
            activation, a dropout outside [0, 1), or a tokenizer of another size.
    """
    return GPT2(
        vocab_size,
        context_length,
        num_layers,
        num_heads,
        d_model,
        dff,
        activation,
        layer_norm_epsilon,
        tie_embeddings,
        dropout,
        tokenizer,
    )


@keras.saving.register_keras_serializable(package="keras_genai")
class GPT2(LanguageModel):
    """The model of `build_gpt2`, whose arguments it has."""

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
        check_share("dropout", dropout)
        check_tokenizer("tokenizer", tokenizer, vocab_size)
        embedding = layers.ReversibleEmbedding(
            vocab_size, d_model, tie_embeddings, _normal(), name="embedding"
        )
        positions = LearnedPositions(context_length, name="positions")
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
                initializer=_normal(),
                name=f"layer_{i + 1}",
            )
            for i in range(num_layers)
        ]
        norm = layers.LayerNormalization(epsilon=layer_norm_epsilon, name="norm")

        tokens = keras.Input((None,), dtype="int32", name="tokens")
        x = Dropout(dropout)(positions(embedding(tokens)))  # (batch, n, d_model)
        for layer in decoder_layers:
            x = layer(x)
        super().__init__(tokens, embedding(norm(x), reverse=True), name=name, **kwargs)
        # What each layer adds is scaled down, or the sum would grow with the layers (section 2.3).
        for layer in decoder_layers:
            for dense in (layer.attention.projection, layer.outer):
                dense.kernel.assign(dense.kernel / (2 * num_layers) ** 0.5)

        self.embedding, self.positions = embedding, positions
        self.decoder_layers, self.norm = decoder_layers, norm
        self.vocab_size, self.context_length = vocab_size, context_length
        self.tokenizer = tokenizer
        self.settings = {
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

    def initial_state(self, batch_size, max_length, conditioning=None):
        """Return room for the keys and values of max_length tokens, in each layer."""
        if conditioning is not None:
            raise ValueError("conditioning: expected None, as the model has no other input.")
        return [layer.initial_state(batch_size, max_length) for layer in self.decoder_layers]

    def step(self, tokens, state, position, length=None):
        """Read tokens (batch, n); see `autoregressive`."""
        x, new_state = self.positions(self.embedding(tokens), position), []
        for layer, old in zip(self.decoder_layers, state):
            x, new = layer.step(x, old, position)
            new_state.append(new)
        return self.embedding(self.norm(x), reverse=True), new_state


def enable_lora(model, rank: int = 8) -> None:
    """Freeze a GPT-2 but for a change of low rank to its queries and values (Hu et al. 2022).

    Each matrix W becomes W + A B, of which A (d_model, rank) and B (rank, d_model) are trained.
    Compile the model after this. A file keeps the sum: a model that is loaded is a plain one.
    """
    rank = check_size("rank", rank)
    for layer in (model.embedding, model.positions, model.norm, *model.decoder_layers):
        layer.trainable = False
    for layer in model.decoder_layers:
        layer.trainable = True
        for part in (layer.attention_norm, layer.inner, layer.outer, layer.feed_forward_norm):
            part.trainable = False
        layer.attention.key.trainable = layer.attention.projection.trainable = False
        for dense in (layer.attention.query, layer.attention.value):
            dense.bias.trainable = False
            dense.enable_lora(rank)


def generate_text(
    model, tokenizer, prompt, max_length=100, num_return_sequences=1, sampler=GREEDY, seed=None
) -> list[str]:
    """Continue a text, as article 4 calls it.

        model, tokenizer = load_gpt2("gpt2"), GPT2Tokenizer.gpt2()
        generate_text(model, tokenizer, "Once upon a time")
        generate_text(model, tokenizer, "Once upon a time", sampler=Sampler(top_p=0.9))

    Greedy is the article's setting, and repeats itself: what is likeliest after a phrase is the
    phrase again (Holtzman et al. 2020, section 3).

    Args:
        max_length: tokens, the prompt's included.
        num_return_sequences: how many texts.
        sampler: `GREEDY`, or `Sampler(temperature, top_k, top_p)`.
        seed: the same seed gives the same texts.

    Returns:
        A list of texts, each with the prompt, up to <|endoftext|>.

    Raises:
        ValueError: for an empty prompt, for one that max_length leaves no room after, and for more
            than one sequence under greedy search, which would all be the same.
    """
    check_size("num_return_sequences", num_return_sequences)
    if num_return_sequences > 1 and sampler.top_k == 1:
        raise ValueError(
            f"num_return_sequences: expected 1 under greedy search, which has one answer, got "
            f"{num_return_sequences}. A Sampler() draws different ones."
        )
    tokens = tokenizer.encode(prompt)
    check_size("max_length", max_length, minimum=len(tokens) + 1)
    rows = model.generate(
        [tokens] * num_return_sequences,
        max_length - len(tokens),
        sampler,
        seed,
        end=tokenizer.end_token,
    )
    return [tokenizer.decode(row[:-1] if row[-1] == tokenizer.end_token else row) for row in rows]
