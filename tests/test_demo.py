"""Demo: the models of its tabs, the limits of its actions, its texts, and its page in process."""

import ast
import asyncio
import itertools
import os
import pathlib
import re
import signal
import string
import subprocess
import sys
import types
import urllib.request
import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from keras_genai import datasets, music, pretrained
from keras_genai.__main__ import main
from keras_genai.autoregressive import Sampler
from keras_genai.demo import actions, sequences, texts
from keras_genai.demo.actions import InputError
from keras_genai.plotting import chinese_font

DEMO = pathlib.Path(actions.__file__).parent


@pytest.fixture(scope="module")
def test_digits():
    _, (x, y) = datasets.load_mnist()
    return x, y


def key_of(call) -> str:
    """The key of the message that a call raises."""
    with pytest.raises(InputError) as caught:
        call()
    assert texts.text("en", caught.value.key, **caught.value.values)  # all its values are there
    return caught.value.key


# Models.


def test_every_pretrained_model_has_a_tab():
    shown = [name for names in actions.MODELS.values() for name in names]
    assert sorted(shown) == pretrained.names()


def test_a_model_of_another_tab_is_refused():
    assert key_of(lambda: actions.gan_images("article4-vae", None, 1, 0)) == "error_choice"


# Texts.


def used_keys() -> set[str]:
    """Strings of the demo's modules, except for the texts themselves; a key is one of them."""
    strings = set()
    for path in DEMO.glob("*.py"):
        if path.name != "texts.py":
            tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            strings |= {node.value for node in tree if isinstance(node, ast.Constant)}
    tabs = {f"{tab}_{kind}" for tab in actions.MODELS for kind in ("tab", "hint")}
    books = set(actions.model("author", "article1-transformer-classifier").class_names)
    return strings | tabs | books


def test_every_text_is_used():
    assert not set(texts.TEXTS) - used_keys()


def test_texts_have_both_languages_with_the_same_values():
    fields = string.Formatter().parse
    for key, versions in texts.TEXTS.items():
        assert len(versions) == len(texts.LANGUAGES) and all(versions), key
        english, chinese = ({field for _, field, _, _ in fields(text)} for text in versions)
        assert english == chinese, key
        is_chinese = re.search(r"[\u4e00-\u9fff]", versions[1])
        same = key in (
            "gan_tab",
            "default_words",
            "default_prompt",
            "default_sentence",
            "default_passage",
        )
        assert is_chinese or same or key == "other_language", key


def test_the_font_of_figures_has_their_chinese_texts():
    figure = Figure()
    for chinese in texts.FIGURE_TEXTS.values():
        figure.text(0.5, 0.5, chinese, fontproperties=chinese_font())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a glyph that is missing
        figure.canvas.draw()


def test_texts_of_figures_are_translated():
    _, figure = sequences.play_tune("M:C\nL:1/8\nK:D\nDEFG ABcd|")
    assert figure.axes[0].get_xlabel() == "quarter notes"
    image = actions.render(figure, "zh")
    assert figure.axes[0].get_xlabel() == "四分音符"
    assert image.dtype == np.uint8 and image.shape[2] == 3 and image.min() < 100


# Values out of bounds.


def test_numbers_out_of_bounds_are_refused():
    for name, (minimum, maximum) in actions.LIMITS.items():
        whole = not isinstance(minimum, float)
        assert actions.check_number(name, maximum, whole) == maximum
        assert actions.check_number(name, float(minimum), whole) == minimum
        for value in (minimum - 1, maximum + 1, float("nan"), None, "1", True, [1]):
            key_of(lambda value=value: actions.check_number(name, value, whole))
    assert key_of(lambda: actions.check_number("seed", 0.5)) == "error_whole_number"
    assert actions.check_number("temperature", 0.5, whole=False) == 0.5


GAN, DDPM, VAE = "conditional-dcgan", "article3-diffusion", "conditional-vae"
DRAWN = [255] * 784
CALLS = {
    "too many images": (actions.gan_images, (GAN, 1, 26, 0), "error_whole_number"),
    "digit above 9": (actions.gan_images, (GAN, 10, 1, 0), "error_whole_number"),
    "digit without classes": (actions.gan_images, ("dcgan", 1, 1, 0), "error_unused"),
    "too many steps": (actions.diffusion_path, (DDPM, 1, 2, 101, 1, 0), "error_whole_number"),
    "too much guidance": (actions.diffusion_path, (DDPM, 1, 11, 1, 1, 0), "error_number"),
    "guidance without classes": (
        actions.diffusion_path,
        ("article3-diffusion-unconditional", None, 2, 1, 1, 0),
        "error_unused",
    ),
    "point outside": (actions.decode_point, (VAE, 1, 1.5, 0), "error_number"),
    "no drawing": (actions.classify_digit, ("article4-cnn", None), "error_empty_drawing"),
    "empty drawing": (actions.classify_digit, ("article4-cnn", [0] * 784), "error_empty_drawing"),
    "bright drawing": (actions.classify_digit, ("article4-cnn", [256] * 784), "error_drawing"),
    "short drawing": (actions.classify_digit, ("article4-cnn", [255] * 783), "error_drawing"),
    "empty upper half": (
        actions.complete_digit,
        ("article3-pixelcnn", [0] * 392 + [255] * 392, 1, 0),
        "error_empty_half",
    ),
    "too many completions": (
        actions.complete_digit,
        ("article3-pixelcnn", DRAWN, 9, 0),
        "error_whole_number",
    ),
    "no text to translate": (sequences.translate, ("article1-transformer", " "), "error_blank"),
    "long text to translate": (
        sequences.translate,
        ("article1-transformer", "a" * 201),
        "error_long",
    ),
    "too many tokens to translate": (
        sequences.translate,
        ("article1-transformer", "?1" * 100),
        "error_tokens",
    ),
    "no word to classify": (
        sequences.classify_author,
        ("article1-transformer-classifier", "!?"),
        "error_no_words",
    ),
    "week before the held-out ones": (
        sequences.forecast,
        ("article3-forecast", 2054),
        "error_whole_number",
    ),
    "unknown sound": (
        sequences.generate_sound,
        ("article3-wavenet", "horn", 1, 1, 0),
        "error_choice",
    ),
    "long sound": (sequences.generate_sound, ("article3-wavenet", "kick", 3, 1, 0), "error_number"),
    "unplayable tune": (sequences.play_tune, ("K:D\n",), "error_tune"),
}


@pytest.mark.parametrize("case", CALLS)
def test_invalid_input_is_refused_by_name(case):
    function, arguments, key = CALLS[case]
    assert key_of(lambda: function(*arguments)) == key


STREAMS = {
    "empty prompt": ("text", ("article3-lstm", "", 9, 1, 0), "error_blank"),
    "long prompt": ("text", ("article3-lstm", "a" * 201, 9, 1, 0), "error_long"),
    "too many tokens": ("text", ("article3-lstm", "a", 401, 1, 0), "error_whole_number"),
    "unknown characters": ("text", ("article3-lstm", "\u4f60", 9, 1, 0), "error_characters"),
    "temperature of 0": ("text", ("article3-lstm", "a", 9, 0, 0), "error_number"),
    "unknown meter": ("tune", ("article3-music", "5/4", "D", 1, 0), "error_choice"),
    "unknown key": ("tune", ("article3-music", "C", "H", 1, 0), "error_choice"),
}


@pytest.mark.parametrize("case", STREAMS)
def test_invalid_input_of_a_stream_is_refused_by_name(case):
    kind, arguments, key = STREAMS[case]
    function = getattr(sequences, f"stream_{kind}")
    assert key_of(lambda: next(function(*arguments))) == key


def test_limits_of_the_weeks_are_those_of_the_held_out_series():
    series, horizon = datasets.load_co2(), 52
    assert actions.LIMITS["week"] == (int(0.9 * len(series)), len(series) - horizon)


def test_classes_of_sounds_are_those_of_the_data():
    assert list(sequences.SOUND_CLASSES) == datasets.load_drums()[2]


# Results.


def test_latent_plane_shows_the_points_that_are_decoded():
    for name, digit in (("article4-vae", None), ("conditional-conv-vae", 3)):
        plane = actions.latent_plane(name, digit)
        size = actions.PLANE_SIZE
        assert plane.shape == (28 * size, 28 * size)
        # The upper right image: its center is 1/11 of the half width from both sides.
        point = actions.decode_point(name, digit, 1 - 1 / size, 1 - 1 / size)
        np.testing.assert_allclose(plane[:28, -28:], point, atol=1)
        assert np.abs(plane[:28, -28:].astype(int) - plane[-28:, :28]).max() > 100  # another image


def test_latent_plane_has_the_directions_of_largest_variance(test_digits):
    x, _ = test_digits
    origin, axes = actions._plane("article4-vae", None)
    vae = actions.model("latent", "article4-vae")
    z, _ = vae.encode(x[: actions.NUM_ENCODINGS].reshape(-1, 784).astype("float32") / 255)
    np.testing.assert_allclose(origin, z.mean(axis=0), atol=1e-4)
    variances = np.linalg.eigvalsh(np.cov(z.T, bias=True))[::-1][:2]  # of the principal components
    lengths = np.linalg.norm(axes, axis=1)
    np.testing.assert_allclose(lengths, actions.EXTENT * np.sqrt(variances), rtol=1e-3)
    assert abs(axes[0] @ axes[1]) < 1e-3


def test_drawings_are_centered_as_in_mnist(test_digits):
    x, y = test_digits
    # A digit of MNIST, moved into a corner, is moved back, up to the rounding of its center.
    digit = x[0] / 255
    moved = np.roll(digit, (-4, -4), axis=(0, 1))
    centered = actions.center_digit(moved)
    assert np.abs(centered - digit).mean() < 0.05
    # Drawn in double size, it is scaled to the box of 20 pixels.
    large = np.asarray(Image.fromarray(x[0]).crop((4, 4, 24, 24)).resize((28, 28))) / 255
    rows = np.flatnonzero(actions.center_digit(large).max(axis=1) > 0.1)
    assert rows[-1] - rows[0] + 1 in (19, 20, 21)


def test_classifier_recognizes_digits_of_mnist(test_digits):
    x, y = test_digits
    for image, label in zip(x[:5], y[:5], strict=True):
        probabilities = actions.classify_digit("article4-cnn", image.ravel().tolist())
        assert max(probabilities, key=probabilities.get) == str(label)
        assert abs(sum(probabilities.values()) - 1) < 1e-5


def test_forecast_returns_the_errors_of_the_figure():
    figure, error, last_error = sequences.forecast("article3-forecast", 2100)
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    future, observed = lines["forecast"], lines["observed"][-52:]
    assert np.isclose(error, np.abs(future - observed).mean())
    assert np.isclose(last_error, np.abs(lines["observed"][-53] - observed).mean())
    assert error < last_error


def test_words_are_those_of_the_vocabulary():
    figure = actions.word_images("article1-text-to-image", "A thin one", 2, 3, 0)
    assert len(figure.axes[0].images) == 3
    with pytest.raises(actions.InputError, match="error_words.*backslanted"):
        actions.word_images("article1-text-to-image", "a purple one", 2, 3, 0)


def test_diffusion_path_has_no_more_frames_than_steps():
    path = actions.diffusion_path("article3-diffusion-unconditional", None, None, 2, 1, 0)
    (axes,) = path.axes
    assert [title.get_text() for title in axes.texts] == ["0", "1", "2"]
    assert len(axes.images) == 3


@pytest.mark.slow
def test_token_importance_is_that_of_the_predicted_book():
    text = "And the king said unto the people, Go ye into the land of thy fathers."
    result = sequences.classify_author("article1-transformer-classifier", text)
    assert result.book == max(result.probabilities, key=result.probabilities.get) == "king_james"
    shares = [share for _, share in result.tokens]
    assert max(map(abs, shares)) == 1
    classifier = actions.model("author", "article1-transformer-classifier")
    occlusion = classifier.token_importance(text)["occlusion"]
    assert np.argmax(np.abs(occlusion)) == np.argmax(np.abs(shares))


# Command line.


def test_help_of_the_demo_loads_neither_gradio_nor_tensorflow():
    code = (
        "import sys\nfrom keras_genai.__main__ import main\n"
        "try: main(['demo', '--help'])\nexcept SystemExit as exit: assert exit.code == 0\n"
        "assert not {'tensorflow', 'keras', 'gradio'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_demo_without_gradio_is_one_line(monkeypatch, capsys):
    for name in ("page", "controls", "widgets", "server"):
        monkeypatch.delitem(sys.modules, f"keras_genai.demo.{name}", raising=False)
        monkeypatch.delattr(sys.modules["keras_genai.demo"], name, raising=False)
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo"]) == 2
    message = 'keras_genai: demo needs an extra: pip install "keras_genai[demo]".\n'
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("port", ["0", "65536", "x"])
def test_invalid_port_is_one_line(port, capsys):
    assert main(["demo", "--port", port]) == 2
    assert capsys.readouterr().err.startswith("keras_genai: argument --port: expected a whole")


# The page, in process.


@pytest.fixture(scope="module")
def pages():
    async def build():  # outside of a loop, gradio creates loops that it does not close
        from keras_genai.demo import page

        return page.build()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of gradio and its libraries
        return asyncio.run(build())


@pytest.fixture(scope="module")
def functions(pages):
    """The functions of the page's events by the name of the action and the language."""
    return {function.api_name: function.fn for function in pages.fns.values()}


def at(**values):
    """An event of a part of the page with JavaScript."""
    return types.SimpleNamespace(**values)


def test_both_pages_have_the_same_components(pages):
    kinds = {"": [], "zh": []}
    for component in pages.blocks.values():
        kinds[component.page].append(type(component).__name__)
    assert kinds[""] == kinds["zh"]


def test_each_action_has_one_queue_in_both_languages(pages):
    queues = {}
    for function in pages.fns.values():
        if function.api_name and function.api_name.endswith(("_en", "_zh")):
            assert function.concurrency_limit == 1
            queues.setdefault(function.api_name[:-3], []).append(function.concurrency_id)
    assert all(len(ids) == 2 and len(set(ids)) == 1 for ids in queues.values())
    assert {ids[0] for ids in queues.values()} == set(actions.MODELS)


def test_every_selectable_model_is_one_of_its_tab(pages):
    selectable = [
        [value for _, value in component.choices]
        for component in pages.blocks.values()
        if type(component).__name__ == "Dropdown" and component.label in texts.TEXTS["model"]
    ]
    assert selectable == 2 * [list(names) for names in actions.MODELS.values()]


def test_digit_is_hidden_for_an_unconditional_model(functions):
    for name, visible in (("article4-vae", False), ("conditional-vae", True)):
        update, plane, decoded, _ = functions["latent_plane_en"](name, 7)
        assert update["visible"] is visible
        assert plane.startswith("data:image/png;base64,") and decoded.startswith("data:image/png")
    update, image = functions["gan_images_en"]("article4-gan", 7, 3, 0)
    assert update["visible"] is False and image.std() > 10
    scale, digit, path = functions["diffusion_path_en"](
        "article3-diffusion-unconditional", 7, 2, 1, 1, 0
    )
    assert scale["visible"] is digit["visible"] is False and path.std() > 10


def test_position_is_in_standard_deviations(functions):
    image, position = functions["decode_point_zh"]("article4-vae", 7, at(x=1.0, y=-0.5))
    expected = widgets_url(actions.decode_point("article4-vae", None, 1.0, -0.5))
    assert image == expected and position == "(2.50 σ, -1.25 σ)"


def widgets_url(image) -> str:
    from keras_genai.demo import widgets

    return widgets.to_data_url(image)


def test_drawings_are_classified_line_by_line(functions, test_digits):
    x, y = test_digits
    pixels = x[0].ravel().tolist()
    for name in ("classify_digit_en", "classify_line_en"):
        probabilities = functions[name]("article4-cnn", at(pixels=pixels))
        assert max(probabilities, key=probabilities.get) == str(y[0])
    assert functions["classify_line_en"]("article4-cnn", at(pixels=[0] * 784)) == {
        "__type__": "update"
    }


@pytest.mark.slow
def test_texts_and_tunes_grow_until_they_are_complete(functions):
    pieces = list(functions["stream_text_en"]("article3-lstm", "And", 60, 0.8, 0))
    assert len(pieces) > 1 and all(b.startswith(a) for a, b in itertools.pairwise(pieces))
    assert pieces[-1] == actions.model("text", "article3-lstm").generate(
        "And", 60, sampler=Sampler(0.8), seed=0
    )
    *growing, (tune, sound, notes) = functions["stream_tune_zh"](
        "article3-music", "6/8", "D", 0.8, 0
    )
    assert tune.startswith("M:6/8\nL:1/8\nK:D\n") and growing[-1] == (tune, None, None)
    rate, waveform = sound
    assert rate == music.SAMPLE_RATE and len(waveform) > 5 * rate and np.abs(waveform).max() > 1000
    assert waveform.dtype == np.int16 and notes.std() > 10


@pytest.mark.slow
def test_translations_have_their_attention_unless_the_model_has_none(functions):
    for name, has_attention in (
        ("article3-lstm-attention", True),
        ("article3-lstm-translation", False),
    ):
        text = "Opens a dialog where you can select the file."
        translation, note, attention = functions["translate_zh"](name, text)
        assert translation == actions.model("translation", name).translate(text, beam_width=4)
        assert (attention is not None) == has_attention == (not note["visible"])


@pytest.mark.slow
def test_books_have_their_names_in_both_languages(functions):
    for language, name in (("en", "King James Bible"), ("zh", "《钦定版圣经》")):
        probabilities, tokens = functions[f"classify_author_{language}"](
            "article1-transformer-classifier", "And the king said unto the people, Go ye."
        )
        assert max(probabilities, key=probabilities.get) == name and len(tokens) > 5


@pytest.mark.slow
def test_sounds_have_the_selected_length(functions):
    *updates, (rate, waveform), image = functions["generate_sound_en"](
        "article3-wavenet", "tabla", 0.25, 0.9, 0
    )
    assert [update["visible"] for update in updates] == [True, True]
    assert rate == 8000 and waveform.shape == (2000,) and image.std() > 10


@pytest.mark.slow
def test_completions_keep_the_upper_half(functions, test_digits):
    x, _ = test_digits
    pixels = x[0].ravel().tolist()
    figure = actions.complete_digit("article3-pixelcnn", pixels, 2, 0)
    for image in figure.axes[0].images:
        np.testing.assert_array_equal(np.squeeze(image.get_array())[:14], x[0, :14] > 127)
    assert functions["complete_digit_en"]("article3-pixelcnn", pixels, 2, 0).std() > 10


def test_forecast_has_its_errors_in_words(functions):
    message, image = functions["forecast_zh"]("article3-forecast", 2100)
    _, error, last_error = sequences.forecast("article3-forecast", 2100)
    assert f"{error:.2f} ppm" in message and f"{last_error:.2f} ppm" in message
    assert image.std() > 10


def test_errors_are_messages_in_the_language_of_the_page(functions, capsys, monkeypatch):
    import gradio

    for language, message in (
        ("en", "Number of images: expected a whole number from 1 to 25, got 26."),
        ("zh", "图像数量：应为 1 到 25 的整数，实际为 26。"),
    ):
        with pytest.raises(gradio.Error) as caught:
            functions[f"gan_images_{language}"]("dcgan", None, 26, 0)
        assert caught.value.message == message
    with pytest.raises(gradio.Error) as caught:
        list(functions["stream_text_zh"]("article3-lstm", " ", 1, 1, 0))
    assert caught.value.message == "提示：不能为空。"
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sequences, "forecast", lambda name, week: 1 / 0)  # a fault of our own
    with pytest.raises(gradio.Error) as caught:
        functions["forecast_en"]("article3-forecast", 2100)
    assert caught.value.message == "The model failed: division by zero"
    assert capsys.readouterr().err == "keras_genai: ZeroDivisionError: division by zero\n"


def test_seeds_and_prompts_follow_the_controls(pages):
    from keras_genai.demo import controls

    assert controls.increment(3) == 4 and controls.increment(None) == 1
    assert controls.drawn_pixels(at(pixels=[1, 2])) == [1, 2]
    (prompt, _) = [f.fn for f in pages.fns.values() if f.name == "default_prompt"]
    assert prompt("article4-gpt2-tang") == "明月" and prompt("article4-gpt2") == "In the beginning"
    assert controls.to_audio(np.array([-2.0, 0, 1]), 8)[1].tolist() == [-32767, 0, 32767]


def test_streams_are_thinned_but_end_with_the_last_text(monkeypatch):
    from keras_genai.demo import controls

    clock = iter(np.arange(0, 10, 0.02))
    monkeypatch.setattr(controls.time, "monotonic", lambda: next(clock))
    shown = list(controls.slow(map(str, range(20))))
    assert shown[0] == "0" and shown[-1] == "19" and len(shown) < 15
    assert list(controls.slow([])) == []


# The server.


@pytest.fixture
def server(pages):
    from keras_genai.demo import server

    return server


def test_demo_stays_on_this_machine_unless_told_otherwise(server, pages, monkeypatch):
    launched = {}
    monkeypatch.setattr(server.page, "build", lambda: pages)
    monkeypatch.setattr(type(pages), "launch", lambda self, **options: launched.update(options))
    assert server.launch() is pages
    assert launched["server_name"] == "127.0.0.1" and launched["server_port"] is None
    assert launched["share"] is launched["inbrowser"] is launched["enable_monitoring"] is False
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert not launched["theme"]._stylesheets  # of fonts on other hosts


def test_occupied_port_is_named(server, pages, monkeypatch):
    def launch(self, **options):
        raise OSError("Cannot find empty port in range: 80-80.")

    monkeypatch.setattr(server.page, "build", lambda: pages)
    monkeypatch.setattr(type(pages), "launch", launch)
    message = "demo: expected the free port 80 at the address 127.0.0.1 of this machine."
    with pytest.raises(OSError, match=re.escape(message)):
        server.launch(port=80)


def test_ctrl_c_closes_the_server(server, monkeypatch, capsys):
    events = []

    def sleep(seconds):
        events.append("wait")
        raise KeyboardInterrupt

    blocks = types.SimpleNamespace(
        local_url="http://127.0.0.1:7860/", close=lambda verbose: events.append("close")
    )
    monkeypatch.setattr(server, "launch", lambda *arguments: events.append(arguments) or blocks)
    monkeypatch.setattr(server, "time", types.SimpleNamespace(sleep=sleep))
    assert main(["demo", "--no-browser", "--host", "0.0.0.0", "--port", "80"]) == 130
    assert events == [("0.0.0.0", 80, False), "wait", "close"]
    output = capsys.readouterr()
    assert output.out == "The demo is at http://127.0.0.1:7860/ (Ctrl-C ends it).\n"
    assert output.err == "\nStopped.\n"


@pytest.mark.slow
def test_demo_of_the_command_line_serves_both_pages_until_ctrl_c():
    command = [sys.executable, "-m", "keras_genai", "demo", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        url = re.fullmatch(r"The demo is at (http://127\.0\.0\.1:\d+/) .*\n", line)[1]
        for path in ("", "zh"):
            with urllib.request.urlopen(url + path) as response:
                html = response.read().decode()
            assert texts.TEXTS["other_language"][path == "zh"] in html
            loaded = re.findall(r"<(?:script|link)[^>]*(?:src|href)=.https?://([^/:]+)", html)
            assert set(loaded) <= {"127.0.0.1"}
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
