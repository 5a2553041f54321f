"""Experiments on texts, series and sounds: task, builder and compile function of each recipe."""

from functools import partial

import keras
from keras.optimizers import Adam, AdamW
from keras.optimizers.schedules import CosineDecay

from keras_genai import pretrained, tasks
from keras_genai.audio_vae import AudioVAE
from keras_genai.gpt2 import build_gpt2
from keras_genai.learned_prior import MixturePrior
from keras_genai.rnn import build_forecaster, build_language_model
from keras_genai.seq2seq_lstm import build_seq2seq_lstm
from keras_genai.spectrograms import IMAGE_SHAPE
from keras_genai.tasks import Experiment
from keras_genai.text import (
    ABCTokenizer,
    CharacterTokenizer,
    GPT2Tokenizer,
    TranslationTokenizer,
)
from keras_genai.transformer import (
    TransformerSchedule,
    build_seq2seq_transformer,
    build_transformer,
)
from keras_genai.vae import build_conv_decoder, build_conv_encoder
from keras_genai.wavenet import build_wavenet


def _cross_entropy(**options):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **options)


# Language models by character, and forecasters.


def _build_language_model(
    seed, characters, *, builder=build_language_model, tokenizer_class=CharacterTokenizer, **config
):
    tokenizer = tokenizer_class(characters)
    return builder(tokenizer.vocab_size, tokenizer=tokenizer, **config)


def _compile_language_model(model, steps, *, learning_rate):
    # Clipping bounds the gradients that explode through time (article 3, section 1).
    optimizer = Adam(CosineDecay(learning_rate, steps), global_clipnorm=1.0)
    model.compile(optimizer, _cross_entropy())


def _build_forecaster(seed, window=260, horizon=52):
    return build_forecaster(window, horizon)


def _compile_forecaster(model, steps):
    model.compile(Adam(CosineDecay(3e-3, steps), global_clipnorm=1.0), loss="mae")


# Transformer and GPT-2.


def _build_translator(
    seed, input_tokenizer, target_tokenizer, max_seq_length, *, builder, **config
):
    source, target = map(TranslationTokenizer, (input_tokenizer, target_tokenizer))
    return builder(
        source.vocab_size,
        target.vocab_size,
        max_seq_length,
        input_tokenizer=source,
        target_tokenizer=target,
        **config,
    )


def _compile_transformer_translator(model, steps):
    learning_rate = TransformerSchedule(d_model=128, warmup_steps=2000, decay_steps=steps)
    model.compile(Adam(learning_rate, beta_2=0.98, epsilon=1e-9))


def _compile_lstm_translator(model, steps):
    model.compile(Adam(CosineDecay(2e-3, steps), global_clipnorm=1.0))


def _build_classifier(seed, tokenizer, class_names, max_seq_length):
    tokenizer = TranslationTokenizer(tokenizer)
    return build_transformer(
        tokenizer.vocab_size,
        len(class_names),
        max_seq_length,
        num_layers=2,
        d_model=64,
        num_heads=4,
        dff=256,
        dropout=0.3,
        pooling="mean",
        tokenizer=tokenizer,
        class_names=class_names,
    )


def _compile_classifier(model, steps):
    optimizer = AdamW(CosineDecay(1e-3, steps), weight_decay=0.1, global_clipnorm=1.0)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])


def _build_gpt2(seed, tokenizer):
    tokenizer = GPT2Tokenizer(tokenizer)
    return build_gpt2(
        tokenizer.vocab_size,
        context_length=256,
        num_layers=6,
        num_heads=6,
        d_model=192,
        dropout=0.1,
        tokenizer=tokenizer,
    )


def _load_pretrained_gpt2(seed, tokenizer):
    return pretrained.load("article4-gpt2")


def _compile_gpt2(model, steps, *, learning_rate):
    warmup = max(1, steps // 50)
    decay = CosineDecay(
        0.0, max(1, steps - warmup), warmup_target=learning_rate, warmup_steps=warmup
    )
    model.compile(AdamW(decay, weight_decay=0.1, global_clipnorm=1.0), _cross_entropy())


# WaveNet and a VAE of sounds.


def _build_wavenet(seed, class_names, sample_rate):
    num_classes = len(class_names) if len(class_names) > 1 else None
    return build_wavenet(num_classes=num_classes, sample_rate=sample_rate)


def _compile_wavenet(model, steps):
    optimizer = Adam(CosineDecay(2e-3, steps), global_clipnorm=1.0)
    model.compile(optimizer, _cross_entropy(ignore_class=-1))


def _build_audio_vae(seed, class_names, sample_rate):
    num_classes = len(class_names) if len(class_names) > 1 else None
    widths, hidden_dim, latent_dim = (16, 32, 64, 64), 128, 16
    encoder = build_conv_encoder(
        IMAGE_SHAPE, widths, hidden_dim, latent_dim, num_classes=num_classes
    )
    decoder = build_conv_decoder(
        latent_dim, hidden_dim, widths[::-1], IMAGE_SHAPE, num_classes=num_classes
    )
    prior = MixturePrior(latent_dim, 16, num_classes)
    return AudioVAE(
        encoder, decoder, prior, seed=seed, sample_rate=sample_rate, class_names=class_names
    )


def _compile_audio_vae(model, steps):
    # Clipping bounds the first gradients: a sigmoid starts with gray, and most pixels are black.
    optimizer = Adam(CosineDecay(2e-3, steps), global_clipnorm=1.0)
    model.compile(optimizer, jit_compile=False)


# Experiments.


def _language_model(task, cell, embed_dim, units, dropout, learning_rate, **options):
    config = {"cell": cell, "embed_dim": embed_dim, "units": units, "dropout": dropout}
    return Experiment(
        task,
        partial(_build_language_model, **config, **options),
        partial(_compile_language_model, learning_rate=learning_rate),
    )


def _lstm_translator(attention, units):
    config = {"attention": attention, "units": units, "dropout": 0.2}
    return Experiment(
        tasks.TranslationTask(vocab_size=4000),
        partial(_build_translator, builder=build_seq2seq_lstm, **config),
        _compile_lstm_translator,
    )


SEQUENCE_EXPERIMENTS = {
    "article1-transformer": Experiment(
        tasks.TranslationTask(vocab_size=4000),
        partial(_build_translator, builder=build_seq2seq_transformer, dropout=0.2),
        _compile_transformer_translator,
    ),
    "article1-transformer-classifier": Experiment(
        tasks.TextClassificationTask(length=64, vocab_size=2048, token_dropout=0.5),
        _build_classifier,
        _compile_classifier,
    ),
    "article3-rnn": _language_model(
        tasks.LanguageModelingTask("books"), "simple_rnn", 256, 1113, 0.1, learning_rate=1e-3
    ),
    "article3-lstm": _language_model(
        tasks.LanguageModelingTask("books"), "lstm", 256, 512, 0.1, learning_rate=2e-3
    ),
    "article3-lstm-tang": _language_model(
        tasks.LanguageModelingTask("tang"), "lstm", 128, 384, 0.5, learning_rate=2e-3
    ),
    "article3-lstm-translation": _lstm_translator(attention=False, units=288),
    "article3-lstm-attention": _lstm_translator(attention=True, units=224),
    "article3-music": _language_model(
        tasks.MusicTask(window=256),
        "lstm",
        64,
        384,
        0.3,
        learning_rate=3e-3,
        num_layers=2,
        tokenizer_class=ABCTokenizer,
    ),
    "article3-forecast": Experiment(
        tasks.ForecastingTask(window=260, horizon=52), _build_forecaster, _compile_forecaster
    ),
    "article3-wavenet": Experiment(tasks.AudioTask(), _build_wavenet, _compile_wavenet),
    "article3-audio-vae": Experiment(tasks.SpectrogramTask(), _build_audio_vae, _compile_audio_vae),
    "article4-gpt2": Experiment(
        tasks.LanguageModelingTask("books", window=256, vocab_size=2048),
        _build_gpt2,
        partial(_compile_gpt2, learning_rate=2.5e-3),
    ),
    "article4-gpt2-tang": Experiment(
        tasks.LanguageModelingTask("tang"),
        partial(
            _build_language_model,
            builder=build_gpt2,
            context_length=128,
            num_layers=4,
            num_heads=4,
            d_model=160,
            dropout=0.3,
        ),
        partial(_compile_gpt2, learning_rate=1e-3),
    ),
    "article4-finetune": Experiment(
        tasks.FineTuningTask("alice", base="article4-gpt2", window=256),
        _load_pretrained_gpt2,
        partial(_compile_gpt2, learning_rate=3e-4),
    ),
}
