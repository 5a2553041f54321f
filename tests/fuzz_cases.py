"""Valid, tiny calls of the public functions and constructors, and the odd values that replace one.

`CASES` has one call for each public name of the package, or `EXCLUDED` has the reason why there is
none.
"""

import atexit
import functools
import importlib
import inspect
import io
import itertools
import pathlib
import pkgutil
import shutil
import tempfile

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

import keras_genai
from keras_genai import (
    attention,
    audio,
    audio_vae,
    autoregressive,
    beam_search,
    callbacks,
    catalog,
    cnn,
    conditioning,
    conv_networks,
    datasets,
    diffusion,
    distribution,
    embeddings,
    evaluation,
    few_shot,
    forms,
    gan,
    gpt2,
    gpt2_checkpoint,
    gpt2_gguf,
    language_model,
    latent_editing,
    learned_prior,
    metrics,
    morphology,
    music,
    noise_schedule,
    pipelines,
    pixelcnn,
    plotting,
    pretrained,
    quality_report,
    random_state,
    recipes,
    rnn,
    saving,
    seq2seq,
    seq2seq_lstm,
    spectrograms,
    text,
    text_to_image,
    transformer,
    unet,
    vae,
    wavenet,
)

# Modules without cases, by the reason.
EXCLUDED_MODULES = {
    "checks arguments or data, with tests of their own": "validation batch_checks version",
    "reads files, whose errors have tests of their own": """
        files image_files series_files text_files array_files streamed_arrays
    """,
    "is a part of the models": """
        models replicas layer_state dense normalization adversarial pixelcnn_cache
    """,
    "belongs to the recipes, which `recipes` checks": """
        experiments image_experiments sequence_experiments runs tasks export
    """,
    "starts processes, whose errors have tests of their own": "cluster",
    "draws diagrams, which have no arguments": "diagrams drawing",
    "is the demo, whose errors have tests of their own": "demo",
    "is the command line, whose errors have tests of their own": "__main__ arguments",
}
MODULES = [
    importlib.import_module(f"keras_genai.{module.name}")
    for module in pkgutil.iter_modules(keras_genai.__path__)
    if module.name not in " ".join(EXCLUDED_MODULES.values()).split()
]

# Public names without a case, by the reason.
EXCLUDED = {
    "computes on tensors, mostly inside a compiled function": """
        causal_mask update_cache mu_law_tensor sample filter_top_k filter_top_p prompt_block
        token_buffer repeat_rows pad_rows compiled_functions CompiledFunctions
        truncate_at_stop_token model_strategy round_up pad_to_multiple num_tokens concat_labels
        pack_inputs lookup positions_from token_weights mask_padding gelu_new shift_right shift_down
        pixel_nll reconstruction_loss squared_error kl_divergence ddpm_step ddim_step DPMSolverStep
        gaussian_log_prob windows_log_prob limit_peak
    """,
    "is a base class, or an interface": """
        AutoregressiveModel SeedStateMixin Training TrainingResult TokenModelMixin CausalLM
        TranslationModel
        TuneAnalysis FunctionalVAE Forecaster Tensor OldVersionError InvalidSizeError
        FitMixin MirroredStrategy MultiWorkerStrategy is_first_worker reraise_lost_worker
        to_strategy
    """,
    "measures or trains models for minutes; its arguments have tests of their own": """
        adversarial_balance autoregressive_quality diffusion_detail vae_diversity augmentation
        train_classifier read_digits load_pixels MNISTPixels family_of
    """,
    "computes on the measurements of a claim": """
        balance_verdict autoregressive_verdict diffusion_verdict vae_verdict augmentation_verdict
        high_frequency_energy agreement_of_halves standard_error sign_of_mean format_mean
    """,
    "is itself a check": """
        check_seeds check_models check_measurements
        check_sampler check_stop_token check_scores check_length_penalty check_network
        check_probabilities check_compatible check_tokenizer check_same_shape check_seed
        encode_texts check_sample_rates check_vocabularies check_allowed_tokens
        check_waveform is_standard
    """,
    "has the arguments of the layer of Keras that it extends": """
        Dropout Embedding ReversibleEmbedding MaskedGlobalAveragePooling1D
    """,
    "takes the iterator of a text that is generated": "first_tune",
    "takes no argument, or the name of a file of the package": """
        is_installed
        data_dir data_path verify_checksum load_mnist load_book load_books load_quatrains load_tunes
        load_translations load_co2 load_sunspots load_drums load_measured chinese_font names
        weights_path
    """,
    "reads or writes the user's files, whose errors have tests of their own": """
        load_image_folder image_class_names load_text load_pairs load_series load_sound_folder
        open_image_folder open_sound_folder read_sounds count_sound_bytes WavFile
        save_tokenizer load_tokenizer tokenizer_json
        serialize_architecture restore_model
    """,
    "is called with the result of another function": """
        reset_decay_steps resumable_dataset count_windows scale_pixels split_sounds
    """,
    "trains for minutes, after the checks of `prepare`": "train",
    "measures a trained model, or its images": """
        Candidate open_model evaluate evaluate_image_model evaluate_text_model measure_images
        training_images_row generate_batches
    """,
    "is a row of a table, or a table": "ImageRow TextRow RecipeRow Claim",
    "asks for a trained classifier, or for another library": "classify_digits translation_scores",
}


def _built_prior():
    prior = learned_prior.MixturePrior(2, 3)
    prior.build()
    return prior


def audio_networks():
    """Networks and prior of a VAE of spectrograms."""
    encoder = conv_networks.build_conv_encoder((8, 4, 1), (2,), 3, 2, num_classes=3)
    decoder = conv_networks.build_conv_decoder(2, 3, (2,), (8, 4, 1), num_classes=3)
    return {
        "encoder": encoder,
        "decoder": decoder,
        "prior": learned_prior.MixturePrior(2, 3, 3),
    }


@functools.cache
def networks():
    """Tiny models by name, built once."""
    tokenizer, letters = text.CharacterTokenizer("abcd"), text.CharacterTokenizer("abcdefgh")
    vae_networks = vae.build_encoder(6, (3,), 2), vae.build_decoder(2, (3,), 6)
    plane = vae.VAE(*vae_networks)
    text_unet = unet.build_unet(
        (4, 4, 1), (2, 4), text_encoder=text_to_image.build_text_encoder(4, 2, 4, 1, 2, 3)
    )
    return {
        "tokenizer": tokenizer,
        "encoder": vae_networks[0],
        "decoder": vae_networks[1],
        "vae": plane,
        "prior": _built_prior(),
        "audio_vae": audio_vae.AudioVAE(**audio_networks(), sample_rate=8),
        "square_features": keras.Sequential([keras.Input((4,)), keras.layers.Identity()]),
        "encoder_mean": keras.Model(vae_networks[0].inputs[0], vae_networks[0].outputs[0]),
        "generator": gan.build_generator(2, (3,), 6),
        "discriminator": gan.build_discriminator(6, (3,)),
        "square_vae": vae.VAE(vae.build_encoder(4, (3,), 2), vae.build_decoder(2, (3,), 4)),
        "gan": gan.GAN(gan.build_generator(2, (3,), 6), gan.build_discriminator(6, (3,))),
        "unet": unet.build_unet((4, 4, 1), (2, 4), num_classes=3),
        "schedule": noise_schedule.NoiseSchedule("cosine", 4),
        "ddpm": diffusion.DDPM(
            unet.build_unet((4, 4, 1), (2, 4), num_classes=3),
            noise_schedule.NoiseSchedule("cosine", 4),
        ),
        "text_unet": text_unet,
        "text_to_image": text_to_image.TextToImageDDPM(
            text_unet, noise_schedule.NoiseSchedule("cosine", 4), ["red", "blue"]
        ),
        "pixelcnn": pixelcnn.PixelCNN((3, 3, 1), 2, 2, num_classes=3),
        "wavenet": wavenet.WaveNet(8, 1, 2, 2, 2, num_classes=3, sample_rate=4),
        "lm": rnn.RecurrentLanguageModel(4, "lstm", 3, 3, tokenizer=tokenizer),
        "gpt2": gpt2.GPT2(4, 32, 1, 1, 4, tokenizer=EndTokenizer("abcd")),
        "gpt2 with merges": gpt2.GPT2(
            260, 32, 1, 1, 4, tokenizer=text.GPT2Tokenizer.train("abc", 260)
        ),
        "classifier": transformer.build_transformer(
            8, 3, 8, 1, 4, 2, 4, pooling="mean", tokenizer=letters, class_names=list("xyz")
        ),
        "seq2seq": seq2seq.Seq2SeqTransformer(
            8, 8, 8, 1, 4, 2, 4, input_tokenizer=letters, target_tokenizer=letters
        ),
    }


class EndTokenizer(text.CharacterTokenizer):
    """A tokenizer with an end token."""

    end_token = 3


@functools.cache
def checkpoint_folder():
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    gpt2_checkpoint.save_gpt2(networks()["gpt2"], folder)
    networks()["lm"].save(pathlib.Path(folder) / "model.keras")
    return pathlib.Path(folder)


def new_gan():
    """New networks: article 1's loop freezes the discriminator."""
    return {
        "generator": gan.build_generator(2, (3,), 6),
        "discriminator": gan.build_discriminator(6, (3,)),
    }


RNG = np.random.default_rng(0)
FLAT = RNG.uniform(size=(4, 6)).astype("float32")
IMAGES = RNG.uniform(size=(4, 4, 4, 1)).astype("float32")
SPECTROGRAMS = np.tile(IMAGES, (1, 2, 1, 1))
SMALL = RNG.uniform(size=(2, 3, 3, 1)).astype("float32")
TOKENS = np.array([[0, 1, 2], [1, 2, 3]])
WAVES = [np.zeros(5, "float32"), np.full(4, 0.5, "float32")]
TUNE = "M:2/4\nL:1/8\nK:C\nAB c2|]"
GREEDY = autoregressive.GREEDY


def model(name):
    return networks()[name]


def method(name, method_name):
    """Return a function that calls a method of a tiny model."""

    def call(**arguments):
        result = getattr(networks()[name], method_name)(**arguments)
        return list(result) if inspect.isgenerator(result) else result

    return call


def stream(**arguments):
    return list(autoregressive.stream(**arguments))


LM = {"vocab_size": 4, "embed_dim": 3, "units": 3, "num_layers": 1, "dropout": 0.1}
LAYER = {
    "num_heads": 2,
    "dff": 4,
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "activation": "relu",
    "norm_first": True,
    "layer_norm_epsilon": 1e-6,
    "kernel_initializer": "glorot_uniform",
}
ALLOWED = np.ones((2, 4), bool)
DECODING = {
    "sampler": autoregressive.Sampler(),
    "seed": 0,
    "stop_token": 3,
    "sliding_window": True,
    "allowed_tokens": ALLOWED,
}
BEAMS = {"beam_width": 2, "length_penalty": 0.5, "stop_token": 3, "allowed_tokens": ALLOWED}
DIFFUSION = {
    "labels": 1,
    "guidance_scale": 2.0,
    "num_steps": 2,
    "method": "ddim",
    "timestep_spacing": "trailing",
    "eta": 0.0,
    "clip_denoised": True,
    "seed": 0,
}
TRANSFORMER = {"num_layers": 1, "d_model": 4, "num_heads": 2, "dff": 4, "dropout": 0.1}

ROW = quality_report.ImageRow(
    "a", "VAE", 10, 1.0, 100, 5.0, 2.0, 0.1, 0.8, 0.7, 10, 9.0, 11.0, seconds_per_1000=0.5
)
EPOCH = tf.Variable(0, dtype=tf.int64)


def figure_of(plot):
    """Return a function that renders the figure, where matplotlib finds most errors."""

    def render(**arguments):
        plot(**arguments).savefig(io.BytesIO())

    return render


def batches_of(make):
    """Return a function that reads the dataset, where TensorFlow finds most errors."""
    return lambda **arguments: list(make(**arguments))


def sample_grid(**options):
    """Run the callback before and after an epoch."""
    callback = callbacks.SampleGrid(**options)
    callback.set_model(model("square_vae"))
    callback.on_train_begin()
    callback.on_epoch_end(0)


def sample_metrics(**options):
    """Run the callback before and after an epoch."""
    callback = callbacks.SampleMetrics(**options)
    callback.set_model(model("square_vae"))
    callback.on_train_begin()
    callback.on_epoch_end(0, {})


def likelihood_arguments():
    return dict(model=model("vae"), x=FLAT, labels=None, num_samples=2, batch_size=4, seed=0)


# Name: function, and a function that returns its valid arguments.
CASES = {
    # Networks and models.
    "build_encoder": (
        vae.build_encoder,
        lambda: dict(input_dim=6, hidden_dims=(3,), latent_dim=2, activation="relu", num_classes=3),
    ),
    "build_decoder": (
        vae.build_decoder,
        lambda: dict(
            latent_dim=2, hidden_dims=(3,), output_dim=6, activation="relu", num_classes=3
        ),
    ),
    "build_vae": (
        vae.build_vae,
        lambda: dict(
            encoder=model("encoder"),
            decoder=model("decoder"),
            beta=1.0,
            likelihood="bernoulli",
            seed=0,
        ),
    ),
    "VAE": (
        vae.VAE,
        lambda: dict(
            encoder=model("encoder"),
            decoder=model("decoder"),
            beta=1.0,
            likelihood="bernoulli",
            seed=0,
        ),
    ),
    "VAE.encode": (method("vae", "encode"), lambda: dict(x=FLAT, labels=None)),
    "VAE.decode": (method("vae", "decode"), lambda: dict(z=np.zeros((2, 2)), labels=None)),
    "VAE.reconstruct": (method("vae", "reconstruct"), lambda: dict(x=FLAT, labels=None)),
    "VAE.generate": (method("vae", "generate"), lambda: dict(num_samples=2, labels=None, seed=0)),
    "Sampling": (vae.Sampling, lambda: dict(seed=0)),
    "KLDivergenceLoss": (vae.KLDivergenceLoss, lambda: dict(weight=1.0)),
    "build_generator": (
        gan.build_generator,
        lambda: dict(
            latent_dim=2,
            hidden_dims=(3,),
            output_dim=6,
            activation="relu",
            output_activation="tanh",
            num_classes=3,
            initializer="pytorch",
        ),
    ),
    "build_discriminator": (
        gan.build_discriminator,
        lambda: dict(
            input_dim=6,
            hidden_dims=(3,),
            activation="relu",
            rescale=True,
            num_classes=3,
            initializer="pytorch",
        ),
    ),
    "build_conv_encoder": (
        conv_networks.build_conv_encoder,
        lambda: dict(
            image_shape=(4, 4, 1),
            widths=(2,),
            hidden_dim=3,
            latent_dim=2,
            activation="relu",
            num_classes=3,
        ),
    ),
    "build_conv_decoder": (
        conv_networks.build_conv_decoder,
        lambda: dict(
            latent_dim=2,
            hidden_dim=3,
            widths=(2,),
            image_shape=(4, 4, 1),
            activation="relu",
            num_classes=3,
        ),
    ),
    "build_conv_generator": (
        conv_networks.build_conv_generator,
        lambda: dict(latent_dim=2, widths=(2,), image_shape=(4, 4, 1), num_classes=3),
    ),
    "build_conv_discriminator": (
        conv_networks.build_conv_discriminator,
        lambda: dict(
            image_shape=(4, 4, 1), widths=(2,), num_classes=3, output_activation="sigmoid"
        ),
    ),
    "sample_latents": (
        latent_editing.sample_latents,
        lambda: dict(model=model("vae"), num_samples=2, labels=None, seed=0),
    ),
    "decode_latents": (
        latent_editing.decode_latents,
        lambda: dict(model=model("vae"), z=np.zeros((2, 2)), labels=None),
    ),
    "latent_directions": (
        latent_editing.latent_directions,
        lambda: dict(z=FLAT[:, :2], attributes={"a": FLAT[:, 2]}, labels=np.zeros(4)),
    ),
    "LatentDirections.edit": (
        latent_editing.latent_directions(FLAT[:, :2], {"a": FLAT[:, 2]}).edit,
        lambda: dict(z=np.zeros((2, 2)), changes={"a": 1.0}),
    ),
    "interpolate_latents": (
        latent_editing.interpolate_latents,
        lambda: dict(start=FLAT, end=FLAT[::-1], steps=3, method="spherical"),
    ),
    "invert": (
        latent_editing.invert,
        lambda: dict(
            model=model("gan"),
            images=FLAT,
            labels=None,
            num_steps=1,
            learning_rate=0.1,
            num_restarts=1,
            prior_weight=0.1,
            batch_size=4,
            seed=0,
        ),
    ),
    "add_classes": (few_shot.add_classes, lambda: dict(model=model("ddpm"), num_new=1)),
    "MixturePrior": (
        learned_prior.MixturePrior,
        lambda: dict(latent_dim=2, num_components=3, num_classes=3),
    ),
    "MixturePrior.sample": (
        method("prior", "sample"),
        lambda: dict(num_samples=2, labels=None, seed=0),
    ),
    "LearnedPriorVAE": (
        learned_prior.LearnedPriorVAE,
        lambda: dict(
            encoder=model("encoder"),
            decoder=model("decoder"),
            prior=model("prior"),
            beta=1.0,
            likelihood="bernoulli",
            seed=0,
        ),
    ),
    "AudioVAE": (
        audio_vae.AudioVAE,
        lambda: dict(
            **audio_networks(),
            beta=1.0,
            likelihood="bernoulli",
            seed=0,
            sample_rate=8,
            class_names=list("abc"),
        ),
    ),
    "AudioVAE.generate": (
        method("audio_vae", "generate"),
        lambda: dict(num_samples=2, labels=1, seed=0),
    ),
    "AudioVAE.interpolate": (
        method("audio_vae", "interpolate"),
        lambda: dict(start=WAVES[0], end=WAVES[1], steps=2, labels=[0, 1]),
    ),
    "AudioVAE.waveforms_to_spectrograms": (
        method("audio_vae", "waveforms_to_spectrograms"),
        lambda: dict(waveforms=WAVES),
    ),
    "compute_spectrograms": (
        spectrograms.compute_spectrograms,
        lambda: dict(waveforms=WAVES, image_shape=(8, 4, 1)),
    ),
    "invert_spectrograms": (
        spectrograms.invert_spectrograms,
        lambda: dict(spectrograms=SPECTROGRAMS, num_iterations=2),
    ),
    "log_spectral_distance": (
        spectrograms.log_spectral_distance,
        lambda: dict(spectrograms=SPECTROGRAMS, others=SPECTROGRAMS),
    ),
    "num_samples": (spectrograms.num_samples, lambda: dict(image_shape=(8, 4, 1))),
    "resample": (
        spectrograms.resample,
        lambda: dict(waveform=WAVES[1], sample_rate=8, target_rate=4),
    ),
    "image_features": (
        metrics.image_features,
        lambda: dict(images=FLAT, network=model("encoder_mean")),
    ),
    "frechet_distance": (metrics.frechet_distance, lambda: dict(real=FLAT, generated=FLAT)),
    "kernel_distance": (
        metrics.kernel_distance,
        lambda: dict(real=FLAT, generated=FLAT, num_subsets=2, subset_size=2, seed=0),
    ),
    "precision_recall": (metrics.precision_recall, lambda: dict(real=FLAT, generated=FLAT, k=2)),
    "density_coverage": (metrics.density_coverage, lambda: dict(real=FLAT, generated=FLAT, k=2)),
    "elbo": (metrics.elbo, likelihood_arguments),
    "importance_weighted_log_likelihood": (
        metrics.importance_weighted_log_likelihood,
        likelihood_arguments,
    ),
    "bits_per_dimension": (
        metrics.bits_per_dimension,
        lambda: dict(nats=[1.0, 2.0], num_dimensions=3),
    ),
    "perplexity": (metrics.perplexity, lambda: dict(nats_per_token=1.0)),
    "nats_per_character": (
        metrics.nats_per_character,
        lambda: dict(model=model("lm"), text="abc"),
    ),
    "build_gan": (gan.build_gan, new_gan),
    "train_gan": (
        gan.train_gan,
        lambda: dict(
            **new_gan(),
            x=FLAT,
            labels=None,
            epochs=1,
            batch_size=4,
            joint_batch=False,
            resample_noise=True,
            generator_optimizer=None,
            discriminator_optimizer=None,
            seed=0,
            shuffle=True,
            verbose=0,
        ),
    ),
    "GAN": (
        gan.GAN,
        lambda: dict(
            **new_gan(),
            joint_batch=False,
            resample_noise=True,
            seed=0,
            loss="non_saturating",
            discriminator_steps=1,
        ),
    ),
    "GAN.generate": (method("gan", "generate"), lambda: dict(num_samples=2, labels=None, seed=0)),
    "build_cnn": (cnn.build_cnn, lambda: dict(image_shape=(4, 4, 1), num_classes=2)),
    "build_unet": (
        unet.build_unet,
        lambda: dict(image_shape=(4, 4, 1), widths=(2, 4), block_depth=1, num_classes=3),
    ),
    "SinusoidalTimeEmbedding": (unet.SinusoidalTimeEmbedding, lambda: dict(dim=4)),
    "NoiseSchedule": (
        noise_schedule.NoiseSchedule,
        lambda: dict(beta_schedule="cosine", num_timesteps=4),
    ),
    "NoiseSchedule.timesteps": (
        method("schedule", "timesteps"),
        lambda: dict(num_steps=2, timestep_spacing="karras"),
    ),
    "step_function": (noise_schedule.step_function, lambda: dict(method="ddim", eta=0.0)),
    "DDPM": (
        diffusion.DDPM,
        lambda: dict(
            network=model("unet"),
            schedule=model("schedule"),
            seed=0,
            cond_drop_prob=0.1,
            ema_momentum=0.9,
            prediction_type="v",
        ),
    ),
    "build_text_encoder": (
        text_to_image.build_text_encoder,
        lambda: dict(vocab_size=4, max_words=2, d_model=4, num_layers=1, num_heads=2, dff=3),
    ),
    "tokenize": (
        text_to_image.tokenize,
        lambda: dict(captions=["red"], vocabulary=["red", "blue"], max_words=2),
    ),
    "collect_words": (text_to_image.collect_words, lambda: dict(captions=["red", "a blue"])),
    "TextToImageDDPM": (
        text_to_image.TextToImageDDPM,
        lambda: dict(
            network=model("text_unet"),
            schedule=model("schedule"),
            vocabulary=["red", "blue"],
            example_prompts=["red"],
        ),
    ),
    "TextToImageDDPM.tokenize": (
        method("text_to_image", "tokenize"),
        lambda: dict(captions=["red", "blue"]),
    ),
    "thickness": (morphology.thickness, lambda: dict(images=IMAGES)),
    "slant": (morphology.slant, lambda: dict(images=IMAGES)),
    "width": (morphology.width, lambda: dict(images=IMAGES)),
    "DDPM.add_noise": (method("ddpm", "add_noise"), lambda: dict(x=IMAGES, t=2, seed=0)),
    "DDPM.generate": (
        method("ddpm", "generate"),
        lambda: dict(num_samples=2, **DIFFUSION),
    ),
    "DDPM.generate_progressive": (
        method("ddpm", "generate_progressive"),
        lambda: dict(num_samples=2, num_frames=2, **DIFFUSION),
    ),
    "GatedPixelCNNLayer": (
        pixelcnn.GatedPixelCNNLayer,
        lambda: dict(num_filters=2, kernel_size=3, dilation_rate=1),
    ),
    "Quantize": (pixelcnn.Quantize, lambda: dict(num_levels=2)),
    "PixelCNN": (
        pixelcnn.PixelCNN,
        lambda: dict(
            image_shape=(3, 3, 1), num_filters=2, num_layers=2, num_levels=2, num_classes=3
        ),
    ),
    "PixelCNN.log_prob": (method("pixelcnn", "log_prob"), lambda: dict(x=SMALL, labels=1)),
    "PixelCNN.generate": (
        method("pixelcnn", "generate"),
        lambda: dict(num_samples=2, labels=1, upper_rows=SMALL[0, :2], sampler=GREEDY, seed=0),
    ),
    "ResidualBlock": (
        wavenet.ResidualBlock,
        lambda: dict(residual_channels=2, skip_channels=2, dilation_rate=1),
    ),
    "receptive_field": (wavenet.receptive_field, lambda: dict(num_blocks=1, layers_per_block=2)),
    "WaveNet": (
        wavenet.WaveNet,
        lambda: dict(
            quantization_channels=8,
            num_blocks=1,
            layers_per_block=2,
            residual_channels=2,
            skip_channels=2,
            num_classes=3,
            sample_rate=4,
        ),
    ),
    "WaveNet.log_prob": (method("wavenet", "log_prob"), lambda: dict(waveform=WAVES, labels=1)),
    "WaveNet.generate": (
        method("wavenet", "generate"),
        lambda: dict(num_samples=2, labels=1, length=3, sampler=GREEDY, seed=0),
    ),
    # Tokens.
    "RecurrentLanguageModel": (
        rnn.RecurrentLanguageModel,
        lambda: dict(**LM, cell="gru", tokenizer=None),
    ),
    "build_forecaster": (
        rnn.build_forecaster,
        lambda: dict(window=4, horizon=2, cell="gru", units=3),
    ),
    "lstm_gates": (rnn.lstm_gates, lambda: dict(model=model("lm"), text="abc")),
    "gradient_norms": (
        rnn.gradient_norms,
        lambda: dict(model=model("lm"), tokens=TOKENS, target=np.array([1, 2])),
    ),
    "CausalLM.generate": (
        method("lm", "generate"),
        lambda: dict(prompt="ab", max_new_tokens=2, **DECODING),
    ),
    "CausalLM.stream": (
        method("lm", "stream"),
        lambda: dict(prompt="ab", max_new_tokens=2, **DECODING),
    ),
    "CausalLM.beam_search": (
        method("lm", "beam_search"),
        lambda: dict(prompt="ab", max_new_tokens=2, **BEAMS),
    ),
    "CausalLM.log_prob": (method("lm", "log_prob"), lambda: dict(tokens="abcd")),
    "generate": (
        autoregressive.generate,
        lambda: dict(
            model=model("gpt2"), prompt=TOKENS, max_new_tokens=2, conditioning=None, **DECODING
        ),
    ),
    "stream": (
        stream,
        lambda: dict(
            model=model("gpt2"), prompt=TOKENS, max_new_tokens=2, conditioning=None, **DECODING
        ),
    ),
    "log_prob": (
        autoregressive.log_prob,
        lambda: dict(model=model("gpt2"), tokens=TOKENS, conditioning=None),
    ),
    "beam_search": (
        beam_search.beam_search,
        lambda: dict(
            model=model("gpt2"), prompt=TOKENS, max_new_tokens=2, conditioning=None, **BEAMS
        ),
    ),
    "Sampler": (
        lambda **options: model("lm").generate("ab", 2, sampler=autoregressive.Sampler(**options)),
        lambda: dict(temperature=0.5, top_k=2, top_p=0.9),
    ),
    "MaskedCrossentropy": (
        language_model.MaskedCrossentropy,
        lambda: dict(label_smoothing=0.1, ignore_class=-100),
    ),
    "pad_texts": (
        language_model.pad_texts,
        lambda: dict(sequences=[[0, 1, 2], [1, 2]], ignore_class=-100),
    ),
    "GPT2": (
        gpt2.GPT2,
        lambda: dict(
            vocab_size=4,
            context_length=4,
            num_layers=1,
            num_heads=2,
            d_model=4,
            dff=4,
            activation="relu",
            layer_norm_epsilon=1e-5,
            tie_embeddings=False,
            dropout=0.1,
            tokenizer=None,
        ),
    ),
    "PositionEmbedding": (gpt2.PositionEmbedding, lambda: dict(context_length=4)),
    "enable_lora": (gpt2.enable_lora, lambda: dict(model=gpt2.GPT2(4, 4, 1, 1, 4), rank=2)),
    "generate_text": (
        gpt2.generate_text,
        lambda: dict(
            model=model("gpt2"),
            tokenizer=model("gpt2").tokenizer,
            prompt="ab",
            max_length=5,
            num_return_sequences=1,
            sampler=GREEDY,
            seed=0,
            sliding_window=True,
        ),
    ),
    "load_gpt2": (
        gpt2_checkpoint.load_gpt2,
        lambda: dict(source=checkpoint_folder(), tokenizer="auto"),
    ),
    "save_gpt2": (
        gpt2_checkpoint.save_gpt2,
        lambda: dict(model=model("gpt2"), folder=checkpoint_folder()),
    ),
    "checkpoint_tensors": (gpt2_checkpoint.checkpoint_tensors, lambda: dict(model=model("gpt2"))),
    "save_gguf": (
        gpt2_gguf.save_gguf,
        lambda: dict(model=model("gpt2 with merges"), path=checkpoint_folder() / "gpt2.gguf"),
    ),
    "load_model": (saving.load_model, lambda: dict(path=checkpoint_folder() / "model.keras")),
    "CachedMultiHeadAttention": (
        attention.CachedMultiHeadAttention,
        lambda: dict(num_heads=2, dropout=0.1, kernel_initializer="glorot_uniform"),
    ),
    "TransformerEncoderLayer": (attention.TransformerEncoderLayer, lambda: dict(LAYER)),
    "TransformerDecoderLayer": (
        attention.TransformerDecoderLayer,
        lambda: dict(**LAYER, cross_attention=False),
    ),
    "PositionalEmbedding": (
        embeddings.PositionalEmbedding,
        lambda: dict(vocab_size=4, max_seq_length=4, d_model=4, add_positions=True),
    ),
    "positional_encoding": (embeddings.positional_encoding, lambda: dict(length=4, d_model=4)),
    "AttentionLSTM": (
        seq2seq_lstm.AttentionLSTM,
        lambda: dict(units=4, attention_units=4),
    ),
    "Seq2SeqLSTM": (
        seq2seq_lstm.Seq2SeqLSTM,
        lambda: dict(
            input_vocab_size=8,
            target_vocab_size=8,
            max_seq_length=8,
            attention=True,
            embed_dim=4,
            units=4,
            dropout=0.5,
            input_tokenizer=None,
            target_tokenizer=None,
        ),
    ),
    "form_tokens": (
        forms.form_tokens,
        lambda: dict(form="*", tokenizer=text.CharacterTokenizer("ab")),
    ),
    "Seq2SeqTransformer": (
        seq2seq.Seq2SeqTransformer,
        lambda: dict(
            input_vocab_size=8,
            target_vocab_size=8,
            max_seq_length=8,
            **TRANSFORMER,
            norm_first=False,
            input_tokenizer=None,
            target_tokenizer=None,
        ),
    ),
    "TranslationModel.translate": (
        method("seq2seq", "translate"),
        lambda: dict(source="abd", beam_width=2, length_penalty=0.5, max_new_tokens=2),
    ),
    "TranslationModel.attention_maps": (
        method("seq2seq", "attention_maps"),
        lambda: dict(source="abd", target="abd"),
    ),
    "TransformerSchedule": (
        seq2seq.TransformerSchedule,
        lambda: dict(d_model=4, warmup_steps=4, decay_steps=4),
    ),
    "build_transformer": (
        transformer.build_transformer,
        lambda: dict(
            vocab_size=5,
            output_vocab_size=5,
            max_seq_length=6,
            **TRANSFORMER,
            causal=True,
            pooling=None,
            tokenizer=None,
            class_names=None,
        ),
    ),
    "SequentialTransformer.classify": (
        method("classifier", "classify"),
        lambda: dict(text="abd"),
    ),
    "SequentialTransformer.attention_maps": (
        method("classifier", "attention_maps"),
        lambda: dict(text="abd"),
    ),
    "SequentialTransformer.token_importance": (
        method("classifier", "token_importance"),
        lambda: dict(text="abd"),
    ),
    "CharacterTokenizer": (text.CharacterTokenizer, lambda: dict(characters="abc", unknown="map")),
    "ABCTokenizer": (text.ABCTokenizer, lambda: dict(characters="abc", unknown="map")),
    "CharacterTokenizer.from_text": (
        text.CharacterTokenizer.from_text,
        lambda: dict(text="abc", unknown="map"),
    ),
    "CharacterTokenizer.encode": (method("tokenizer", "encode"), lambda: dict(text="abc")),
    "CharacterTokenizer.decode": (method("tokenizer", "decode"), lambda: dict(ids=[0, 1])),
    "GPT2Tokenizer": (
        text.GPT2Tokenizer,
        lambda: dict(
            tokenizer_json=text.GPT2Tokenizer.train("abc", 260).tokenizer_json,
            end_of_text=text.GPT2Tokenizer.END_OF_TEXT,
        ),
    ),
    "GPT2Tokenizer.from_files": (
        text.GPT2Tokenizer.from_files,
        lambda: dict(
            vocabulary=datasets.data_path("gpt2/encoder.json"),
            merges=datasets.data_path("gpt2/vocab.bpe"),
            end_of_text=text.GPT2Tokenizer.END_OF_TEXT,
        ),
    ),
    "GPT2Tokenizer.train": (text.GPT2Tokenizer.train, lambda: dict(text="abc", vocab_size=260)),
    "TranslationTokenizer": (
        text.TranslationTokenizer,
        lambda: dict(tokenizer_json=text.TranslationTokenizer.train("abc", 260).tokenizer_json),
    ),
    # Labels, random numbers and metrics.
    "OneHot": (conditioning.OneHot, lambda: dict(num_classes=3)),
    "label_input": (conditioning.label_input, lambda: dict(num_classes=3)),
    "predict_arrays": (
        conditioning.predict_arrays,
        lambda: dict(network=model("decoder"), x=np.zeros((2, 2)), labels=None),
    ),
    "count_classes": (conditioning.count_classes, lambda: dict(model=model("unet"))),
    "sample_prior": (conditioning.sample_prior, lambda: dict(num_samples=2, shape=(2,), seed=0)),
    "random_generator": (random_state.random_generator, lambda: dict(seed=0)),
    "label_accuracy": (metrics.label_accuracy, lambda: dict(predicted=[0, 1], labels=[0, 1])),
    "mode_coverage": (
        metrics.mode_coverage,
        lambda: dict(labels=[0, 1], num_classes=3, threshold=0.1),
    ),
    "sliding_window_log_prob": (
        metrics.sliding_window_log_prob,
        lambda: dict(model=model("gpt2"), sequences=[[0, 1, 2], [3, 2]]),
    ),
    "mean_absolute_error": (
        metrics.mean_absolute_error,
        lambda: dict(forecasts=[0.0, 1.0], values=[1.0, 1.0]),
    ),
    # Data.
    "mu_law_encode": (
        audio.mu_law_encode,
        lambda: dict(waveform=WAVES[0], quantization_channels=8),
    ),
    "mu_law_decode": (audio.mu_law_decode, lambda: dict(levels=[0, 1], quantization_channels=8)),
    "save_wav": (
        audio.save_wav,
        lambda: dict(path=checkpoint_folder() / "a.wav", waveform=WAVES[0], sample_rate=8000),
    ),
    "split_tunes": (music.split_tunes, lambda: dict(text=TUNE)),
    "to_training_text": (music.to_training_text, lambda: dict(tunes=[TUNE])),
    "to_abc_text": (music.to_abc_text, lambda: dict(tunes=[TUNE])),
    "read_tune": (music.read_tune, lambda: dict(tune=TUNE)),
    "analyze_tune": (music.analyze_tune, lambda: dict(tune=TUNE)),
    "tune_statistics": (music.tune_statistics, lambda: dict(tunes=[TUNE])),
    "tune_notes": (music.tune_notes, lambda: dict(tune=TUNE)),
    "save_midi": (
        music.save_midi,
        lambda: dict(path=checkpoint_folder() / "a.mid", tune=TUNE),
    ),
    "synthesize": (music.synthesize, lambda: dict(tune=TUNE, sample_rate=8000)),
    "load_wav": (audio.load_wav, lambda: dict(path=saved_wav())),
    "binarize": (datasets.binarize, lambda: dict(images=IMAGES, seed=0)),
    "series_windows": (
        datasets.series_windows,
        lambda: dict(series=np.arange(9.0), window=3, horizon=2, first=0),
    ),
    "trim_silence": (datasets.trim_silence, lambda: dict(waveform=WAVES[1])),
    "make_dataset": (
        batches_of(pipelines.make_dataset),
        lambda: dict(arrays=FLAT, batch_size=2, seed=0, epoch=EPOCH),
    ),
    "make_window_dataset": (
        batches_of(pipelines.make_window_dataset),
        lambda: dict(tokens=np.arange(9), window=3, batch_size=2, seed=0, epoch=EPOCH),
    ),
    "make_pair_dataset": (
        batches_of(pipelines.make_pair_dataset),
        lambda: dict(sources=TOKENS, targets=TOKENS, batch_size=2, seed=0, epoch=EPOCH),
    ),
    "make_audio_dataset": (
        batches_of(pipelines.make_audio_dataset),
        lambda: dict(
            waveforms=WAVES, labels=[0, 1], batch_size=2, seed=0, epoch=EPOCH, augment=True
        ),
    ),
    "image_folder_batches": (
        batches_of(datasets.image_folder_batches),
        lambda: dict(
            folder=data_folder("images"),
            batch_size=4,
            subset="train",
            image_size=(3, 4),
            channels=1,
            background=0,
            seed=0,
            epoch=None,
            cache=None,
            input_context=None,
        ),
    ),
    "sound_folder_batches": (
        batches_of(datasets.sound_folder_batches),
        lambda: dict(
            folder=data_folder("sounds"),
            batch_size=4,
            subset="train",
            seed=0,
            epoch=None,
            cache=None,
            input_context=None,
            augment=True,
        ),
    ),
    "text_file_batches": (
        batches_of(datasets.text_file_batches),
        lambda: dict(
            path=data_folder("texts"),
            tokenizer=networks()["tokenizer"],
            window=3,
            batch_size=4,
            subset="train",
            seed=0,
            epoch=None,
            cache=None,
            input_context=None,
        ),
    ),
    # Figures, and the callbacks that use them.
    "plot_images": (
        figure_of(plotting.plot_images),
        lambda: dict(images=SMALL, columns=2, titles=None, image_shape=None, row_labels=None),
    ),
    "plot_pixel_nll": (
        figure_of(plotting.plot_pixel_nll),
        lambda: dict(images=SMALL, nll=np.ones((2, 3, 3))),
    ),
    "plot_sounds": (
        figure_of(plotting.plot_sounds),
        lambda: dict(waveforms=WAVES, sample_rate=100, titles=["a", "b"], color="black"),
    ),
    "plot_piano_roll": (
        figure_of(music.plot_piano_roll),
        lambda: dict(tunes=[TUNE], titles=None),
    ),
    "plot_history": (
        figure_of(plotting.plot_history),
        lambda: dict(history={"loss": [2.0, 1.0]}, color="black", unit="nats"),
    ),
    "plot_latent_space": (
        figure_of(plotting.plot_latent_space),
        lambda: dict(
            vae=model("square_vae"), x=FLAT[:, :4], labels=[0, 0, 1, 1], size=2, extent=2.0
        ),
    ),
    "plot_interpolation": (
        figure_of(plotting.plot_interpolation),
        lambda: dict(
            vae=model("square_vae"), start=FLAT[0, :4], end=FLAT[1, :4], steps=3, labels=None
        ),
    ),
    "plot_forecasts": (
        figure_of(plotting.plot_forecasts),
        lambda: dict(series=np.arange(9.0), forecast_start=7, forecasts={"a": [7.0, 8.0]}),
    ),
    "plot_gates": (
        figure_of(plotting.plot_gates),
        lambda: dict(text="abc", gates=rnn.lstm_gates(model("lm"), "abc"), max_units=2),
    ),
    "plot_attention": (
        figure_of(plotting.plot_attention),
        lambda: dict(attention_maps=model("seq2seq").attention_maps("ab", "ab"), layer=-1, head=0),
    ),
    "save_figure": (
        callbacks.save_figure,
        lambda: dict(figure=plotting.plot_images(SMALL), path="a.png"),
    ),
    "SampleGrid": (
        sample_grid,
        lambda: dict(
            path=None, num_images=4, labels=None, seed=0, columns=None, image_shape=(2, 2)
        ),
    ),
    "SampleMetrics": (
        sample_metrics,
        lambda: dict(
            images=np.random.default_rng(0).random((10, 4), "float32"),
            every=1,
            num_samples=10,
            labels=None,
            seed=0,
            network=model("square_features"),
        ),
    ),
    "common_substrings": (
        evaluation.common_substrings,
        lambda: dict(text="abcab", source="bcabc"),
    ),
    "to_table": (quality_report.to_table, lambda: dict(rows=[ROW])),
    "to_json": (quality_report.to_json, lambda: dict(rows=[ROW])),
    "plot_quality": (figure_of(quality_report.plot_quality), lambda: dict(rows=[ROW])),
    "AtomicModelCheckpoint": (
        callbacks.AtomicModelCheckpoint,
        lambda: dict(path=checkpoint_folder() / "saved.keras"),
    ),
    "RaiseOnNaN": (callbacks.RaiseOnNaN, lambda: dict(max_growth=1000.0)),
    # Recipes.
    "find": (catalog.find, lambda: dict(name="article4-vae")),
    "metadata": (pretrained.metadata, lambda: dict(name="article4-vae")),
    "load": (pretrained.load, lambda: dict(name="article4-vae")),
    "create": (recipes.create, lambda: dict(name="article4-vae", seed=0, steps=1)),
    "prepare": (
        recipes.prepare,
        lambda: dict(
            name="article3-forecast",
            epochs=1,
            batch_size=8,
            seed=0,
            resume=False,
            cache=None,
            distribute=None,
            dtype="float32",
            jit_compile=False,
        ),
    ),
    "strategy": (distribution.strategy, lambda: dict(name="auto", timeout=5.0)),
}


@functools.cache
def saved_wav():
    path = checkpoint_folder() / "sound.wav"
    audio.save_wav(path, WAVES[0])
    return path


@functools.cache
def data_folder(kind):
    """A folder of ten images, ten sounds, or a text."""
    folder = checkpoint_folder() / kind
    folder.mkdir()
    if kind == "texts":
        (folder / "a.txt").write_text("abcd" * 20)
    else:
        for i in range(10):
            if kind == "images":
                Image.new("L", (4, 3), i).save(folder / f"{i}.png")
            else:
                audio.save_wav(folder / f"{i}.wav", WAVES[1])
    return folder


# Odd values by name, each new at every call.
ODD_VALUES = {
    "None": lambda: None,
    "True": lambda: True,
    "-1": lambda: -1,
    "0": lambda: 0,
    "1.5": lambda: 1.5,
    "nan": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "'x'": lambda: "x",
    "[]": list,
    "[[]]": lambda: [[]],
    "{}": dict,
    "object": object,
    "uint8(20)": lambda: np.uint8(20),
    "int64(3)": lambda: np.int64(3),
    "empty array": lambda: np.zeros(0),
    "array of rank 5": lambda: np.zeros((1, 1, 1, 1, 1)),
    "array of strings": lambda: np.array(["a", "b"]),
    "array of objects": lambda: np.array([None, {}]),
    "array of complex numbers": lambda: np.array([[1j, 2j]]),
    "ragged list": lambda: [[0, 1], [0]],
    "network": lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]),
    "a class": lambda: dict,
    "float32(2)": lambda: np.float32(2),
    "'3'": lambda: "3",
    "-0.0": lambda: -0.0,
    "10**30": lambda: 10**30,
    "array of bools": lambda: np.array([True, False]),
    "datetime64": lambda: np.datetime64("2020-01-01"),
    "tensor": lambda: tf.constant([[0.5, 1.0]]),
    "variable": lambda: keras.Variable(2.0),
    "range(3)": lambda: range(3),
    "set": lambda: {0, 1},
    "bytes": lambda: b"ab",
    "path": lambda: pathlib.Path("x"),
}
VALUES_OF_PATHS = ("'x'", "'3'", "path")
CALLS = [
    (name, argument, value)
    for name, (_, arguments) in CASES.items()
    for argument, value in itertools.product(arguments(), ODD_VALUES)
]


def public_names() -> set[str]:
    """Return the public functions and classes of `MODULES`, each by the name of its definition."""
    names = set()
    for module in MODULES:
        for value in vars(module).values():
            is_public = inspect.isclass(value) or inspect.isfunction(value)
            if is_public and value.__module__ == module.__name__:
                names.add(value.__name__)
    return {name for name in names if not name.startswith("_")}


def run(name, argument, value) -> str:
    """Call a function with one odd value; return how it ended, "" for an ending as it should be."""
    function, arguments = CASES[name]
    try:
        function(**{**arguments(), argument: ODD_VALUES[value]()})
    except (ValueError, TypeError, FileNotFoundError) as error:
        named = argument in str(error)
        # An error of a file or a recipe names the path or the recipe.
        names_file = argument in ("path", "name", "folder") and value in VALUES_OF_PATHS
        if not named and not names_file:
            return f"{type(error).__name__}: {str(error).strip():.150}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error).strip():.150}"
    return ""
