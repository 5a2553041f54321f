"""Text to image: article 1, future developments (multimodal generation, 多模态生成), without code.

A diffusion model whose label is a text. The text encoder, a small Transformer, maps the words to
one vector, which is added to the embedding of the timestep, as the pooled text embedding of GLIDE
(Nichol et al. 2022). It is trained with the U-Net from pairs of images and captions;
large models use an encoder that has been trained on texts, and attention from pixels to words
(Rombach et al. 2022, section 3.3), which whole sentences need and captions of four words do not.

Classifier-free guidance works as for labels: the null text, padding only, has the zero vector.
"""

import functools

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from keras_genai.attention import TransformerEncoderLayer
from keras_genai.diffusion import DDPM
from keras_genai.embeddings import PAD_TOKEN_ID, PositionalEmbedding
from keras_genai.transformer import MaskedGlobalAveragePooling1D
from keras_genai.validation import (
    check_images,
    check_size,
    check_sizes,
    check_strings,
    check_token_array,
)

UNKNOWN_WORD_ID, FIRST_WORD_ID = 1, 2  # of Keras's vectorization, after padding

# Network.


def build_text_encoder(
    vocab_size, max_words=8, d_model=64, num_layers=1, num_heads=4, dff=128
) -> keras.Model:
    """Build the text encoder: Transformer encoder layers, and the mean over the words.

    Args:
        vocab_size: Int. Number of words and 2: padding and unknown words come first.
        max_words: Int. Number of tokens; shorter captions are padded with 0. Defaults to `8`.
        d_model: Int. Size of the vector. Defaults to `64`.
        num_layers, num_heads, dff: Ints. Size of the layers; see
            `attention.TransformerEncoderLayer`. Default to `1`, `4` and `128`.

    Returns:
        A `keras.Model` that maps tokens `(batch, max_words)` to vectors `(batch, d_model)`, zeros
        for padding only.

    Raises:
        ValueError: for an invalid size.
    """
    vocab_size, max_words, d_model, num_layers, num_heads, dff = check_sizes(
        vocab_size=vocab_size,
        max_words=max_words,
        d_model=d_model,
        num_layers=num_layers,
        num_heads=num_heads,
        dff=dff,
    )
    tokens = keras.Input((max_words,), dtype="int32", name="tokens")
    x = PositionalEmbedding(vocab_size, max_words, d_model)(tokens)  # (batch, max_words, d_model)
    for _ in range(num_layers):
        x = TransformerEncoderLayer(num_heads, dff, dropout=0.0, norm_first=True)(x)
    vector = MaskedGlobalAveragePooling1D()(x)
    return keras.Model(tokens, vector, name="text_encoder")


# Model.


@keras.saving.register_keras_serializable(package="keras_genai")
class TextToImageDDPM(DDPM):
    """A `DDPM` conditioned on texts, trained by `fit(x, model.tokenize(captions))`.

    In `generate`, `labels` is a prompt, or a list of as many prompts as samples.

    Args:
        network: `keras.Model` from `build_unet` with a `text_encoder`.
        schedule, seed, cond_drop_prob, ema_momentum, prediction_type: See `DDPM`.
        vocabulary: List of strings. The words of the captions, in lower case; the ids of the text
            encoder are those of 2, 3, …
        example_prompts: List of strings. Prompts of the pictures that show the training. Defaults
            to `()`.

    Raises:
        ValueError: as `DDPM`; for a network without text encoder, for a vocabulary with an empty or
            repeated word, or of another size than the encoder's, and for other words in a prompt.

    Example:
        vocabulary = ["red", "blue", "circle", "square"]
        encoder = build_text_encoder(len(vocabulary) + 2)
        model = TextToImageDDPM(build_unet(text_encoder=encoder), NoiseSchedule(), vocabulary)
        model.compile(keras.optimizers.Adam(1e-3))
        model.fit(x, model.tokenize(captions))
        images = model.generate(16, "red circle", guidance_scale=2.0)
    """

    null_label = PAD_TOKEN_ID

    def __init__(self, network, schedule, vocabulary, example_prompts=(), **kwargs):
        super().__init__(network, schedule, **kwargs)
        self.vocabulary = _check_texts("vocabulary", vocabulary)
        _word_vectorizer(tuple(self.vocabulary))
        vocab_size = _find_vocab_size(network)
        if len(self.vocabulary) + FIRST_WORD_ID != vocab_size:
            raise ValueError(
                f"vocabulary: expected {vocab_size - FIRST_WORD_ID} words, as many as the text "
                f"encoder's, got {len(self.vocabulary)}."
            )
        self.vocab_size, self.max_words = vocab_size, self.label_shape[0]
        none = isinstance(example_prompts, (list, tuple)) and not example_prompts
        self.example_prompts = [] if none else _check_texts("example_prompts", example_prompts)
        if self.example_prompts:
            tokenize(self.example_prompts, self.vocabulary, self.max_words, "example_prompts")

    def check_network(self, network):
        inputs, outputs = (getattr(network, name, None) or [] for name in ("inputs", "outputs"))
        sizes = len(inputs), len(outputs)
        if sizes != (3, 1) or len(inputs[2].shape) != 2 or _find_vocab_size(network) is None:
            raise ValueError(
                "network: expected that of build_unet with a text_encoder, whose inputs are x_t, t "
                f"and tokens, got {sizes[0]} inputs and {sizes[1]} outputs."
            )

    def tokenize(self, captions) -> np.ndarray:
        """Return `text_to_image.tokenize(captions)` with the words of the model."""
        return tokenize(captions, self.vocabulary, self.max_words)

    def encode_labels(self, labels, num_samples):
        prompts = [labels] * num_samples if isinstance(labels, str) else labels
        prompts = check_strings("labels", prompts, num_samples)
        return tokenize(prompts, self.vocabulary, self.max_words, "labels")

    def check_data(self, x, labels=None):
        check_images("x", x, self.image_shape)
        check_token_array("labels", labels, self.vocab_size, kind="tokens of `tokenize`")
        expected = (len(x), self.max_words)
        if np.shape(labels) != expected:
            raise ValueError(f"labels: expected tokens {expected}, got shape {np.shape(labels)}.")

    def unpack(self, data):
        x, _, sample_weight = super().unpack(data)
        tokens = keras.utils.unpack_x_y_sample_weight(data)[1]
        return x, ops.cast(tokens, "int32"), sample_weight

    def get_config(self):
        texts = {"vocabulary": self.vocabulary, "example_prompts": self.example_prompts}
        return {**super().get_config(), **texts}


# Words.


def tokenize(captions, vocabulary, max_words, name="captions") -> np.ndarray:
    """Return the word ids of captions, int32 `(n, max_words)`, padded with 0.

    Letter case and punctuation are ignored.

    Args:
        captions: List of n strings.
        vocabulary: List of strings. All words, whose ids are 2, 3, …
        max_words: Int. Number of ids of a caption.
        name: String. Name of the argument for error messages. Defaults to `"captions"`.

    Raises:
        ValueError: for no caption, one without words or with too many, and for an unknown word.
    """
    captions, vocabulary = _check_texts(name, captions), _check_texts("vocabulary", vocabulary)
    max_words = check_size("max_words", max_words)
    ids = np.asarray(_word_vectorizer(tuple(vocabulary))(tf.constant(captions)))
    for caption, row in zip(captions, ids, strict=True):
        num_words = np.count_nonzero(row)
        if not 1 <= num_words <= max_words:
            raise ValueError(
                f"{name}: expected 1 to {max_words} words, got {num_words} in {caption!r:.99}."
            )
        if UNKNOWN_WORD_ID in row:
            raise ValueError(
                f"{name}: expected words of the vocabulary, {', '.join(vocabulary)}, got "
                f"{caption!r:.99}."
            )
    padded = np.full((len(ids), max_words), PAD_TOKEN_ID, "int32")
    padded[:, : ids.shape[1]] = ids[:, :max_words]
    return padded


def collect_words(captions) -> list[str]:
    """Return the different words of captions in alphabetical order, without case and punctuation.

    Args:
        captions: List of strings.

    Raises:
        ValueError: for no caption.
    """
    captions = _check_texts("captions", captions)
    vectorizer = layers.TextVectorization()
    vectorizer.adapt(tf.constant(captions))
    return sorted(map(str, vectorizer.get_vocabulary(include_special_tokens=False)))


def _find_vocab_size(network) -> int | None:
    """Return the number of tokens of a network's text encoder, `None` without one."""
    for layer in network.layers:
        if isinstance(layer, keras.Model) and (found := _find_vocab_size(layer)):
            return found
        if isinstance(layer, PositionalEmbedding):
            return layer.vocab_size
    return None


@functools.lru_cache(maxsize=16)
def _word_vectorizer(vocabulary: tuple[str, ...]) -> layers.Layer:
    if sorted(vocabulary) != collect_words(vocabulary):
        raise ValueError(
            "vocabulary: expected different words in lower case, without punctuation, got "
            f"{list(vocabulary)!r:.200}."
        )
    return layers.TextVectorization(vocabulary=list(vocabulary))


def _check_texts(name: str, texts) -> list[str]:
    texts = texts.tolist() if isinstance(texts, np.ndarray) else texts
    if not isinstance(texts, (list, tuple)):
        raise ValueError(f"{name}: expected a list of strings, got {texts!r:.200}.")
    if len(texts) == 0:
        raise ValueError(f"{name}: expected at least one text, got none.")
    return check_strings(name, texts, len(texts))
