"""The recipes of texts, series and sounds."""

from keras_genai.catalog.base import Recipe

SEQUENCE_RECIPES = (
    Recipe(
        name="article1-transformer",
        article="article 1, Transformer",
        model="Transformer, 4 and 4 layers of 128",
        data="English–Chinese help",
        epochs=40,
        batch_size=64,
        metric="BLEU of 1,000 held-out sentences, greedy",
        expected=42.2,
        tolerance=1.5,
        notes="The article gives no data, size or loss. Size and training follow Vaswani et al. "
        "2017 (Adam's betas, warmup, label smoothing) at a quarter of the width and two thirds of "
        "the depth, with pre-norm layers, a dropout of 0.2, and a learning rate that decays to 0.",
    ),
    Recipe(
        name="article1-transformer-classifier",
        article="article 1, Transformer",
        model="Transformer, 2 layers of 64, mean",
        data="four English books",
        epochs=120,
        batch_size=64,
        metric="test accuracy, %",
        expected=93.9,
        tolerance=3,
        notes="The article's own Sequential model, for which it gives no data, size or loss. It "
        "assigns passages of 64 byte pairs to books, without letter case, punctuation and the "
        "speakers of the play. The Bible has 37 times as many words as the play: all books have "
        "equally many passages. Half of the tokens are dropped in training.",
    ),
    Recipe(
        name="article3-rnn",
        article="article 3, section 1",
        model="simple RNN, 256-1113",
        data="three English books",
        epochs=3,
        batch_size=32,
        metric="held-out nats per character",
        expected=1.329,
        tolerance=0.02,
        notes="The article gives no data or size. The network has as many parameters as "
        "article3-lstm's.",
    ),
    Recipe(
        name="article3-lstm",
        article="article 3, section 2",
        model="LSTM, 256-512",
        data="three English books",
        epochs=3,
        batch_size=32,
        metric="held-out nats per character",
        expected=1.242,
        tolerance=0.02,
        notes="The article gives no data or size: As You Like It, the King James Bible and "
        "Paradise Lost, in windows of 128 characters.",
    ),
    Recipe(
        name="article3-lstm-tang",
        article="article 3, section 2",
        model="LSTM, 128-384",
        data="Tang quatrains",
        epochs=12,
        batch_size=32,
        metric="held-out nats per character",
        expected=5.575,
        tolerance=0.05,
        notes="The article gives no data or size. The network is smaller than article3-lstm's, "
        "since 4,508 characters take most of its parameters.",
    ),
    Recipe(
        name="article3-lstm-translation",
        article="article 3, section 2",
        model="encoder and decoder of LSTMs of 288, without attention",
        data="English–Chinese help",
        epochs=20,
        batch_size=32,
        metric="BLEU of 1,000 held-out sentences, greedy",
        expected=15.1,
        tolerance=2.0,
        notes="The article names machine translation without data or size. The networks have about "
        "as many parameters as article1-transformer, 3.4 million, and learn from the same pairs.",
    ),
    Recipe(
        name="article3-lstm-attention",
        article="article 3, section 2",
        model="encoder and decoder of LSTMs of 224, with attention",
        data="English–Chinese help",
        epochs=20,
        batch_size=32,
        metric="BLEU of 1,000 held-out sentences, greedy",
        expected=34.2,
        tolerance=2.0,
        notes="article3-lstm-translation with the attention of Bahdanau et al. 2015, and LSTMs of "
        "fewer units, so that the number of parameters is about the same.",
    ),
    Recipe(
        name="article3-music",
        article="article 3, section 1",
        model="LSTM, 64-384-384",
        data="Irish tunes",
        epochs=25,
        batch_size=16,
        metric="held-out nats per character",
        expected=1.112,
        tolerance=0.02,
        notes="The article names the generation of music without data or size: 1,841 tunes in ABC "
        "notation, in windows of 256 characters.",
    ),
    Recipe(
        name="article3-forecast",
        article="article 3, section 1",
        model="LSTM, 260 weeks to 64 to 52 weeks",
        data="weekly CO2",
        epochs=15,
        batch_size=32,
        metric="held-out absolute error 1 week ahead, ppm",
        expected=0.323,
        tolerance=0.02,
        notes="The article gives no data or size. The input is five years, the output the next "
        "year, week by week.",
    ),
    Recipe(
        name="article3-wavenet",
        article="article 3, section 5",
        model="WaveNet, 2 blocks of 10 layers of 32",
        data="percussion at 8 kHz",
        epochs=100,
        batch_size=2,
        metric="held-out nats per sample",
        expected=3.103,
        tolerance=0.05,
        notes="The article gives no data or size: 98 percussion sounds, conditioned on their "
        "class. In training, each sound is attenuated by a random factor of up to 4, and inverted "
        "with probability 1/2.",
    ),
    Recipe(
        name="article3-audio-vae",
        article="article 3, section 7",
        model="VAE of spectrograms, convolutions 16-32-64-64, conditioned on the class",
        data="percussion at 8 kHz",
        epochs=100,
        batch_size=16,
        metric="distance of reconstructed spectrograms, dB",
        expected=2.69,
        tolerance=0.3,
        notes="The article names the generation of audio without data or size. Phases are "
        "estimated by Griffin-Lim; each sound is in training at seven pitches.",
    ),
    Recipe(
        name="article4-gpt2",
        article="article 4, section 4",
        model="GPT-2, 6 layers of 192, 2,048 byte pairs",
        data="three English books",
        epochs=15,
        batch_size=8,
        metric="held-out nats per character",
        expected=1.102,
        tolerance=0.02,
        notes="The article uses the weights of a GPT-2 trained on 40 GB of text. This is the same "
        "network at a smaller size, trained on 4.2 MB, nine tenths of three books.",
    ),
    Recipe(
        name="article4-gpt2-tang",
        article="article 4, section 4",
        model="GPT-2, 4 layers of 160",
        data="Tang quatrains",
        epochs=20,
        batch_size=16,
        metric="held-out nats per character",
        expected=5.055,
        tolerance=0.05,
        notes="Not in the article: a smaller network, on the poems of article3-lstm-tang and with "
        "two thirds of its parameters, to compare a GPT with an LSTM.",
    ),
    Recipe(
        name="article4-finetune",
        article="article 4, section 4",
        model="article4-gpt2, fine-tuned",
        data="Alice in Wonderland",
        epochs=10,
        batch_size=8,
        metric="held-out nats per character",
        expected=1.358,
        tolerance=0.02,
        notes="The article mentions fine-tuning without code: the GPT of three books is trained "
        "further on a fourth one. tests/benchmarks/finetuning.py compares it with LoRA.",
    ),
)
