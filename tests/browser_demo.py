"""The demo in a headless browser: in each tab, act as a user would, and see the result.

    python -m pytest -n 0 tests/browser_demo.py

It needs the extra `demo`, playwright, and Chromium or Chrome; without a browser it fails.
"""

import io
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from keras_genai.demo import texts

BROWSERS = ("chromium", "chromium-headless-shell", "google-chrome", "chromium-browser")
SECONDS = 60  # for the first answer of a model, which is compiled
expect.set_options(timeout=1000 * SECONDS)


@pytest.fixture(scope="module")
def url():
    """The address of a demo of its own process."""
    command = [sys.executable, "-m", "keras_genai", "demo", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        yield re.search(r"http://127\.0\.0\.1:\d+/", line)[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


@pytest.fixture(scope="module")
def browser():
    paths = list(filter(None, map(shutil.which, BROWSERS)))
    assert paths, f"expected one of {', '.join(BROWSERS)} in PATH: no browser to test the demo in"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=paths[0], args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def hosts():
    """The hosts of all requests of all pages."""
    return set()


def open_page(browser, hosts, url, locale="en-US", width=1280):
    page = browser.new_page(locale=locale, viewport={"width": width, "height": 900})
    page.set_default_timeout(1000 * SECONDS)
    page.on("request", lambda request: hosts.add(urllib.parse.urlsplit(request.url).hostname))
    page.on("websocket", lambda socket: hosts.add(urllib.parse.urlsplit(socket.url).hostname))
    page.goto(url)
    expect(page.locator("#plane img")).to_be_visible()
    return page


@pytest.fixture(scope="module")
def page(browser, hosts, url):
    return open_page(browser, hosts, url)


def open_tab(page, tab, language="en"):
    page.get_by_role("tab", name=texts.text(language, f"{tab}_tab"), exact=True).click()
    page.wait_for_timeout(500)  # until its controls have their values


def press(page, key, language="en"):
    name = texts.text(language, key)
    page.get_by_role("button", name=name, exact=True).locator("visible=true").click()


def set_number(page, key, value):
    """Type a value into the number of a slider, or into a number."""
    label = f"number input for {texts.text('en', key)}"
    box = page.get_by_label(label).locator("visible=true")
    box.fill(str(value))
    box.press("Enter")
    box.blur()


def choose(page, key, choice):
    page.get_by_label(texts.text("en", key), exact=True).locator("visible=true").click()
    page.get_by_role("option", name=choice, exact=True).click()


def visible_image(page):
    """The image of the selected tab, once it is loaded."""
    image = page.locator(".image-container img, .image-frame img").locator("visible=true").first
    expect(image).to_be_visible()
    page.wait_for_function(
        "(image) => image.complete && image.naturalWidth > 0", arg=image.element_handle()
    )
    return image


def pixels(page, image) -> np.ndarray:
    """The pixels of an image element `(height, width)`."""
    data = page.request.get(image.evaluate("(image) => image.src")).body()
    return np.asarray(Image.open(io.BytesIO(data)).convert("L"))


def wait_until(condition):
    """Wait until a condition has a true value, and return it."""
    start = time.monotonic()
    while not (value := condition()):
        assert time.monotonic() - start < SECONDS, "expected a result, got none in time"
        time.sleep(0.1)
    return value


def draw(page, name, *points):
    """Draw lines between points, in fractions of the canvas, with the mouse."""
    canvas = page.locator(f"#{name} canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    positions = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*positions[0])
    page.mouse.down()
    for position in positions[1:]:
        page.mouse.move(*position, steps=10)
    page.mouse.up()


def duration(page, name) -> float:
    """The length of a sound in seconds, decoded by the browser."""
    link = page.locator(f"#{name} a[download]")
    expect(link).to_be_visible()
    source = link.get_attribute("href")
    return page.evaluate(
        """async (source) => {
            const data = await (await fetch(source)).arrayBuffer();
            return (await new OfflineAudioContext(1, 1, 8000).decodeAudioData(data)).duration;
        }""",
        source,
    )


def message(page) -> str:
    """The message of an error, which is closed."""
    toast = page.get_by_test_id("toast-body").last
    expect(toast).to_be_visible()
    text = toast.inner_text()
    while page.get_by_test_id("toast-body").count():  # a value may be sent more than once
        page.get_by_test_id("toast-close").last.click()
        page.wait_for_timeout(500)
    return text


def test_image_follows_the_mouse_over_the_latent_plane(page):
    box = page.locator("#plane .plane").bounding_box()
    images, waits = set(), []
    for x, y in ((0.05, 0.05), (0.95, 0.05), (0.05, 0.95), (0.95, 0.95)):
        before = page.locator("#decoded img").get_attribute("src")
        start = time.monotonic()
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=5)
        position = f"({5 * x - 2.5:.2f} σ, {2.5 - 5 * y:.2f} σ)"
        expect(page.get_by_label("Position").locator("visible=true")).to_have_value(position)
        waits.append(time.monotonic() - start)
        after = page.locator("#decoded img").get_attribute("src")
        assert after != before and after.startswith("data:image/png;base64,")
        images.add(after)
    assert len(images) == 4
    choose(page, "model", "conditional-vae")
    expect(page.get_by_label("Digit", exact=True).locator("visible=true")).to_be_visible()
    print(f"latent plane: {np.median(waits):.2f} s from the mouse to the image")


def test_gan_generates_as_many_images_as_selected(page):
    open_tab(page, "gan")
    first = visible_image(page)
    before, source = pixels(page, first), first.get_attribute("src")
    set_number(page, "num_images", 20)
    wait_until(lambda: visible_image(page).get_attribute("src") != source)
    after = pixels(page, visible_image(page))
    assert before.std() > 20 and after.std() > 20
    assert 1.8 < after.shape[0] / before.shape[0] < 2.2  # four rows in place of two


def test_diffusion_path_ends_with_an_image_after_noise(page):
    open_tab(page, "diffusion")
    set_number(page, "num_steps", 10)
    set_number(page, "num_paths", 1)
    time.sleep(0.5)
    choose(page, "digit", "3")
    image = pixels(page, visible_image(page))
    side = image.shape[1] // 11  # of one frame
    noise, result = image[-side:, :side], image[-side:, -side:]
    dark = [np.mean(frame[4:-4, 4:-4] < 60) for frame in (noise, result)]
    assert dark[0] < 0.6 < dark[1] < 0.98  # ink on a dark ground


def test_words_become_images_and_unknown_words_a_message(page):
    open_tab(page, "words")
    assert pixels(page, visible_image(page)).std() > 20
    prompt = page.get_by_label(texts.text("en", "words"), exact=True).locator("visible=true")
    prompt.fill("a purple one")
    press(page, "generate")
    assert "these words: a, an, backslanted" in message(page)


def test_pixelcnn_completes_the_drawn_half(page):
    open_tab(page, "completion")
    press(page, "generate")
    assert "above the line" in message(page)  # nothing is drawn
    draw(page, "upper_half", (0.3, 0.2), (0.7, 0.2), (0.6, 0.48))
    image = pixels(page, visible_image(page))
    side = image.shape[1] // 4
    for column in range(4):
        frame = image[-side:, column * side : (column + 1) * side]
        assert np.mean(frame[: side // 2] > 200) > 0.05  # the drawn half
        assert np.mean(frame[side // 2 :] > 200) > 0.02  # the generated one


def test_classifier_reads_a_drawn_digit(page):
    open_tab(page, "digit")
    heading = page.get_by_test_id("label-output-value").locator("visible=true")
    draw(page, "drawn_digit", (0.25, 0.2), (0.72, 0.2), (0.45, 0.85))
    expect(heading).to_have_text(re.compile(r"^\s*7\s*$"))
    press(page, "clear")
    expect(heading).to_have_count(0)
    draw(page, "drawn_digit", (0.5, 0.15), (0.48, 0.85))
    expect(heading).to_have_text(re.compile(r"^\s*1\s*$"))


def test_text_grows_while_it_is_generated(page):
    open_tab(page, "text")
    page.evaluate(
        """() => {
            const box = document.querySelector('#text textarea');
            window.lengths = [];
            setInterval(() => window.lengths.push(box.value.length), 10);
        }"""
    )
    choose(page, "model", "article3-lstm")
    page.locator("#prompt textarea").fill("And the LORD")
    set_number(page, "new_tokens", 400)
    press(page, "generate")
    box = page.locator("#text textarea")
    wait_until(lambda: len(box.input_value()) == len("And the LORD") + 400)
    assert box.input_value().startswith("And the LORD")
    assert len(set(page.evaluate("window.lengths"))) > 4  # several lengths on the way
    choose(page, "model", "article4-gpt2-tang")
    expect(page.locator("#prompt textarea")).to_have_value("明月")


def test_empty_prompts_and_unknown_characters_are_messages(page):
    open_tab(page, "text")
    page.locator("#prompt textarea").fill(" ")
    press(page, "generate")
    assert message(page).strip().endswith("Prompt: expected some input, got none.")
    page.locator("#prompt textarea").fill("hello 月")
    press(page, "generate")
    assert "Prompt: expected characters that the model has, got" in message(page)


def test_tune_is_written_played_and_plotted(page):
    open_tab(page, "music")
    press(page, "generate")
    tune = page.locator("#tune textarea")
    wait_until(lambda: tune.input_value().startswith("M:6/8\nL:1/8\nK:D\n"))
    assert duration(page, "tune_sound") > 5
    assert len(tune.input_value()) > 100
    assert pixels(page, visible_image(page)).std() > 20


def test_translation_has_its_attention(page):
    open_tab(page, "translation")
    page.locator("#sentence textarea").fill("The file could not be opened.")
    press(page, "translate")
    translation = page.locator("#translation textarea")
    wait_until(lambda: "文件" in translation.input_value() and "打开" in translation.input_value())
    assert pixels(page, visible_image(page)).std() > 20
    choose(page, "model", "article3-lstm-translation")
    expect(page.get_by_text(texts.text("en", "no_attention"))).to_be_visible()


def test_passage_is_classified_with_its_tokens(page):
    open_tab(page, "author")
    expect(page.get_by_test_id("label-output-value").locator("visible=true")).to_have_text(
        re.compile("King James Bible")
    )
    tokens = page.locator("#importance").get_by_text("unto")
    expect(tokens.first).to_be_visible()


def test_forecast_follows_the_week(page):
    open_tab(page, "forecast")
    errors = page.locator("#forecast_error textarea, #forecast_error input")
    expect(errors).to_have_value(re.compile(r"Forecast: \d\.\d\d ppm"))
    before = errors.input_value()
    set_number(page, "week", 2200)
    wait_until(lambda: errors.input_value() != before)
    assert pixels(page, visible_image(page)).std() > 20


def test_sound_has_the_selected_length_and_a_spectrogram(page):
    open_tab(page, "sound")
    set_number(page, "seconds", 0.5)
    press(page, "generate")
    assert abs(duration(page, "sound") - 0.5) < 0.01
    assert pixels(page, visible_image(page)).std() > 20


def test_value_beyond_a_slider_is_a_message_or_limited(page):
    open_tab(page, "gan")
    set_number(page, "num_images", 999)
    page.wait_for_timeout(1000)
    if page.get_by_test_id("toast-body").count():
        assert "Number of images: expected a whole number from 1 to 25" in message(page)
    else:
        box = page.get_by_label(f"number input for {texts.text('en', 'num_images')}")
        expect(box.locator("visible=true")).to_have_value("25")
    set_number(page, "num_images", 5)


def test_seed_of_no_number_is_a_message(page):
    open_tab(page, "gan")
    seed = page.get_by_label(texts.text("en", "seed"), exact=True).locator("visible=true")
    seed.fill("-1")
    press(page, "generate")
    assert "Seed: expected a whole number from 0 to 2147483647, got -1." in message(page)
    seed.fill("0")
    press(page, "another")
    expect(seed).to_have_value("1")


def test_page_is_in_the_language_of_the_browser_and_can_be_switched(browser, hosts, url):
    page = open_page(browser, hosts, url, locale="zh-CN", width=390)
    assert page.url == f"{url}zh"
    expect(page.locator("h1")).to_have_text(texts.text("zh", "title"))
    shown = page.locator("body").inner_text()
    names = r"article4-vae|VAE|GAN|PixelCNN|English|σ"
    assert not re.findall(r"[A-Za-z]{2,}", re.sub(names, "", shown))  # no word in English
    assert page.evaluate("document.documentElement.scrollWidth") <= 390  # nothing is cut
    page.get_by_text("English", exact=True).click()
    expect(page.locator("h1")).to_have_text(texts.text("en", "title"))
    page.get_by_text("中文", exact=True).click()
    expect(page.locator("h1")).to_have_text(texts.text("zh", "title"))
    page.get_by_role("tab", name="GAN", exact=True).click()
    seed = page.get_by_label(texts.text("zh", "seed"), exact=True).locator("visible=true")
    seed.fill("-1")
    press(page, "generate", "zh")
    assert "随机种子：应为 0 到 2147483647 的整数" in message(page)
    page.close()


def test_page_requests_nothing_of_other_hosts(page, hosts):
    assert hosts - {None, ""} == {"127.0.0.1"}
