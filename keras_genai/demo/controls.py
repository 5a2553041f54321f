"""Controls of the page, and its events, whose errors are messages in the language of the page."""

import functools
import inspect
import sys
import time

import gradio as gr
import numpy as np

from keras_genai.demo import actions, texts

STREAM_SECONDS = 0.05  # between two updates of a text


class Controls:
    """Controls and events in one language.

    Args:
        language: String. One of `texts.LANGUAGES`.
    """

    def __init__(self, language):
        self.language = language
        self.text = functools.partial(texts.text, language)

    def model_choice(self, tab):
        names = list(actions.MODELS[tab])
        return gr.Dropdown(names, value=names[0], label=self.text("model"), filterable=False)

    def digit_choice(self, **options):
        digits = list(range(10))
        return gr.Dropdown(digits, value=7, label=self.text("digit"), filterable=False, **options)

    def slider(self, name, value, step=1):
        minimum, maximum = actions.LIMITS[name]
        slider = gr.Slider(minimum, maximum, value, step=step, label=self.text(name))
        slider.preprocess = lambda payload: payload  # the action checks it, with a message
        return slider

    def seed(self):
        return gr.Number(0, precision=0, label=self.text("seed"))

    def image(self, key):
        # Gradio's label would cover a part of the image.
        buttons = ["download", "fullscreen"]
        return gr.Image(label=self.text(key), show_label=False, format="png", buttons=buttons)

    def buttons(self, seed, first="generate"):
        """Return the triggers of two buttons, the second of which increments the seed."""
        with gr.Row():
            button = gr.Button(self.text(first), variant="primary")
            another = gr.Button(self.text("another"))
        incremented = another.click(increment, seed, seed, queue=False, api_visibility="private")
        return [button.click, incremented.success]

    # Events.

    def on(self, tab, triggers, function, inputs, outputs, **options):
        """Call an action after events, with its errors as messages on the page.

        The actions of a tab wait for each other, in both languages: they share their models.
        """
        options = {
            "concurrency_id": tab,
            "concurrency_limit": 1,
            "show_progress_on": outputs[-1],
            "trigger_mode": "always_last",
            **options,
        }
        arguments = self.with_messages(function), inputs, outputs
        events = [trigger for trigger in triggers if hasattr(trigger, "event_name")]
        gr.on(events, *arguments, api_name=f"{function.__name__}_{self.language}", **options)
        for trigger in triggers:
            if trigger not in events:  # the success of another event, which `gr.on` does not take
                trigger(*arguments, api_visibility="private", **options)

    def with_messages(self, function):
        """Return a function whose errors are messages in the language of the page."""
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def wrapper(*arguments):
                try:
                    yield from function(*arguments)
                except Exception as error:
                    raise self.message(error) from error
        else:

            @functools.wraps(function)
            def wrapper(*arguments):
                try:
                    return function(*arguments)
                except Exception as error:
                    raise self.message(error) from error

        return wrapper

    def message(self, error: Exception) -> Exception:
        """Return an error as the message that the page shows."""
        if isinstance(error, actions.InputError):
            message = self.text(error.key, **error.values)
        else:
            print(f"keras_genai: {type(error).__name__}: {error}", file=sys.stderr)
            message = self.text("error_unexpected", error=error)
        return gr.Error(message, print_exception=False)

    def render(self, figure):
        return None if figure is None else actions.render(figure, self.language)


def increment(seed):
    """Return the next seed."""
    return (seed or 0) + 1


def drawn_pixels(event: gr.EventData):
    """Return the pixels of an event of a `widgets.drawing_canvas`."""
    return event.pixels


def slow(texts_so_far):
    """Yield the newest of several texts at most 20 times a second, and the last one."""
    text, shown, sent = "", "", -STREAM_SECONDS
    for text in texts_so_far:
        if time.monotonic() - sent >= STREAM_SECONDS:
            yield text
            shown, sent = text, time.monotonic()
    if text != shown:
        yield text


def to_audio(waveform, sample_rate: int):
    """Return a waveform in [-1, 1] as the value of an `gr.Audio`."""
    return sample_rate, np.round(32767 * np.clip(waveform, -1, 1)).astype("int16")
