"""Page of the demo: a tab for each kind of model, in English at `/` and in Chinese at `/zh`."""

import gradio as gr

from keras_genai import music
from keras_genai.demo import actions, controls, sequences, texts, widgets


class Page(controls.Controls):
    """All tabs in one language, built inside of a `gr.Blocks`.

    Args:
        blocks: `gr.Blocks` of the page.
        language: String. One of `texts.LANGUAGES`.
    """

    def __init__(self, blocks, language):
        super().__init__(language)
        target = "./zh" if language == "en" else "./"
        gr.HTML(
            f'<div class="header"><h1>{self.text("title")}</h1>'
            f'<a href="{target}">{self.text("other_language")}</a></div>'
            f"<p>{self.text('introduction')}</p>",
            elem_id="header",
        )
        with gr.Tabs():
            for tab in actions.MODELS:
                with gr.Tab(self.text(f"{tab}_tab"), elem_id=f"{tab}_tab") as item:
                    gr.Markdown(self.text(f"{tab}_hint"))
                    at_start = blocks.load if tab == "latent" else item.select
                    getattr(self, f"build_{tab}")(at_start)

    # Tabs.

    def build_latent(self, at_start):
        with gr.Row():
            with gr.Column():
                name, digit = self.model_choice("latent"), self.digit_choice(visible=False)
                decoded = widgets.small_image(self.text("decoded"), "decoded")
                position = gr.Textbox(label=self.text("position"), interactive=False)
            plane = widgets.latent_plane(self.text("plane"), "plane", "decoded")

        def latent_plane(name, digit):
            conditional = actions.is_conditional("latent", name)
            digit = digit if conditional else None
            grid = actions.latent_plane(name, digit)
            center = widgets.to_data_url(actions.decode_point(name, digit, 0, 0))
            return gr.update(visible=conditional), widgets.to_data_url(grid), center, "(0, 0)"

        def decode_point(name, digit, event: gr.EventData):
            digit = digit if actions.is_conditional("latent", name) else None
            image = actions.decode_point(name, digit, event.x, event.y)
            x, y = (actions.EXTENT * value for value in (event.x, event.y))
            return widgets.to_data_url(image), f"({x:.2f} σ, {y:.2f} σ)"

        outputs = [digit, plane, decoded, position]
        self.on("latent", [at_start, name.input, digit.input], latent_plane, [name, digit], outputs)
        self.on(
            "latent",
            [plane.input],
            decode_point,
            [name, digit],
            [decoded, position],
            trigger_mode="multiple",
            show_progress="hidden",
        )

    def build_gan(self, at_start):
        with gr.Row():
            with gr.Column():
                name, digit = self.model_choice("gan"), self.digit_choice()
                num_images, seed = self.slider("num_images", 10), self.seed()
                triggers = self.buttons(seed)
            images = self.image("images")

        def gan_images(name, digit, num_images, seed):
            conditional = actions.is_conditional("gan", name)
            figure = actions.gan_images(name, digit if conditional else None, num_images, seed)
            return gr.update(visible=conditional), self.render(figure)

        triggers += [at_start, name.input, digit.input, num_images.release]
        self.on("gan", triggers, gan_images, [name, digit, num_images, seed], [digit, images])

    def build_diffusion(self, at_start):
        with gr.Row():
            with gr.Column():
                name, digit = self.model_choice("diffusion"), self.digit_choice()
                scale = self.slider("guidance_scale", 2, step=0.5)
                num_steps, num_paths = self.slider("num_steps", 20), self.slider("num_paths", 2)
                seed = self.seed()
                triggers = self.buttons(seed)
            with gr.Column(scale=2):
                path = self.image("path")

        def diffusion_path(name, digit, scale, *numbers):
            conditional = actions.is_conditional("diffusion", name)
            label = (digit, scale) if conditional else (None, None)
            figure = actions.diffusion_path(name, *label, *numbers)
            visible = gr.update(visible=conditional)
            return visible, visible, self.render(figure)

        inputs = [name, digit, scale, num_steps, num_paths, seed]
        triggers += [at_start, name.input, digit.input]
        triggers += [slider.release for slider in (scale, num_steps, num_paths)]
        self.on("diffusion", triggers, diffusion_path, inputs, [digit, scale, path])

    def build_words(self, at_start):
        with gr.Row():
            with gr.Column():
                name = self.model_choice("words")
                prompt = gr.Textbox(self.text("default_words"), label=self.text("words"))
                scale = self.slider("guidance_scale", 2, step=0.5)
                num_images, seed = self.slider("num_images", 10), self.seed()
                triggers = self.buttons(seed)
            images = self.image("images")

        def word_images(*values):
            return self.render(actions.word_images(*values))

        inputs = [name, prompt, scale, num_images, seed]
        triggers += [at_start, prompt.submit, scale.release, num_images.release]
        self.on("words", triggers, word_images, inputs, [images])

    def build_completion(self, at_start):
        drawn = gr.State(None)
        with gr.Row():
            with gr.Column():
                name = self.model_choice("completion")
                labels = self.text("drawing"), self.text("clear")
                drawing = widgets.drawing_canvas(*labels, "upper_half", half=True)
            with gr.Column():
                number, seed = self.slider("num_completions", 4), self.seed()
                triggers = self.buttons(seed)
                completions = self.image("completions")

        def complete_digit(name, pixels, number, seed):
            return self.render(actions.complete_digit(name, pixels, number, seed))

        kept = drawing.release(
            controls.drawn_pixels, None, drawn, queue=False, api_visibility="private"
        )
        drawing.clear(
            lambda: (None, None), None, [drawn, completions], queue=False, api_visibility="private"
        )
        triggers += [kept.success, number.release]
        self.on("completion", triggers, complete_digit, [name, drawn, number, seed], [completions])

    def build_digit(self, at_start):
        with gr.Row():
            with gr.Column():
                name = self.model_choice("digit")
                labels = self.text("drawing"), self.text("clear")
                drawing = widgets.drawing_canvas(*labels, "drawn_digit")
            probabilities = gr.Label(label=self.text("probabilities"), num_top_classes=10)

        def classify_digit(name, event: gr.EventData):
            return actions.classify_digit(name, event.pixels)

        def classify_line(name, event: gr.EventData):
            try:
                return actions.classify_digit(name, event.pixels)
            except actions.InputError:  # the first few pixels of a drawing
                return gr.skip()

        for event, function in ((drawing.release, classify_digit), (drawing.input, classify_line)):
            self.on("digit", [event], function, [name], [probabilities], show_progress="hidden")
        drawing.clear(lambda: None, None, probabilities, queue=False, api_visibility="private")

    def build_text(self, at_start):
        with gr.Row():
            with gr.Column():
                name = self.model_choice("text")
                prompt = gr.Textbox(
                    self.text("default_prompt"), label=self.text("prompt"), elem_id="prompt"
                )
                new_tokens = self.slider("new_tokens", 150)
                temperature, seed = self.slider("temperature", 0.8, step=0.1), self.seed()
                triggers = self.buttons(seed)
            with gr.Column(scale=2):
                text = gr.Textbox(label=self.text("continuation"), lines=14, elem_id="text")

        def stream_text(*values):
            yield from controls.slow(sequences.stream_text(*values))

        def default_prompt(name):
            return self.text("tang_prompt" if name.endswith("-tang") else "default_prompt")

        name.input(default_prompt, name, prompt, queue=False, api_visibility="private")
        inputs = [name, prompt, new_tokens, temperature, seed]
        self.on("text", [*triggers, prompt.submit], stream_text, inputs, [text])

    def build_music(self, at_start):
        with gr.Row():
            with gr.Column():
                name = self.model_choice("music")
                with gr.Row():
                    meter = gr.Dropdown(list(sequences.METERS), label=self.text("meter"))
                    key = gr.Dropdown(list(sequences.KEYS), label=self.text("key"))
                temperature, seed = self.slider("temperature", 0.8, step=0.1), self.seed()
                triggers = self.buttons(seed)
            with gr.Column(scale=2):
                tune = gr.Textbox(label=self.text("tune"), lines=10, elem_id="tune")
                sound = gr.Audio(
                    label=self.text("sound"),
                    format="wav",
                    elem_id="tune_sound",
                    buttons=["download"],
                )
                notes = self.image("notes")

        def stream_tune(*values):
            stream, text = sequences.stream_tune(*values), ""
            for text in controls.slow(stream):
                yield text, None, None
            waveform, figure = sequences.play_tune(text)
            yield text, controls.to_audio(waveform, music.SAMPLE_RATE), self.render(figure)

        inputs = [name, meter, key, temperature, seed]
        self.on("music", triggers, stream_tune, inputs, [tune, sound, notes])

    def build_translation(self, at_start):
        with gr.Row():
            with gr.Column():
                name = self.model_choice("translation")
                sentence = gr.Textbox(
                    self.text("default_sentence"), label=self.text("sentence"), elem_id="sentence"
                )
                button = gr.Button(self.text("translate"), variant="primary")
                translation = gr.Textbox(label=self.text("translation"), elem_id="translation")
                note = gr.Markdown(self.text("no_attention"), visible=False)
            attention = self.image("attention")

        def translate(name, sentence):
            translation, figure = sequences.translate(name, sentence)
            return translation, gr.update(visible=figure is None), self.render(figure)

        triggers = [at_start, name.input, button.click, sentence.submit]
        self.on(
            "translation", triggers, translate, [name, sentence], [translation, note, attention]
        )

    def build_author(self, at_start):
        with gr.Row():
            with gr.Column():
                name = self.model_choice("author")
                passage = gr.Textbox(
                    self.text("default_passage"),
                    label=self.text("passage"),
                    lines=3,
                    elem_id="passage",
                )
                button = gr.Button(self.text("classify"), variant="primary")
            with gr.Column():
                books = gr.Label(label=self.text("probabilities"))
                tokens = gr.HighlightedText(label=self.text("importance"), elem_id="importance")

        def classify_author(name, passage):
            result = sequences.classify_author(name, passage)
            named = {self.text(book): p for book, p in result.probabilities.items()}
            return named, result.tokens

        triggers = [at_start, name.input, button.click]
        self.on("author", triggers, classify_author, [name, passage], [books, tokens])

    def build_forecast(self, at_start):
        name, week = self.model_choice("forecast"), self.slider("week", 2055)
        errors = gr.Textbox(label=self.text("error"), elem_id="forecast_error", interactive=False)
        figure = self.image("forecast")

        def forecast(name, week):
            figure, error, repeated = sequences.forecast(name, week)
            message = self.text("error_values", forecast=error, repeated=repeated)
            return message, self.render(figure)

        triggers = [at_start, name.input, week.release]
        self.on("forecast", triggers, forecast, [name, week], [errors, figure])

    def build_sound(self, at_start):
        with gr.Row():
            with gr.Column():
                name = self.model_choice("sound")
                classes = [(self.text(label), label) for label in sequences.SOUND_CLASSES]
                label = gr.Dropdown(
                    classes, value="tabla", label=self.text("sound_class"), filterable=False
                )
                seconds = self.slider("seconds", 1, step=0.25)
                temperature, seed = self.slider("temperature", 0.9, step=0.1), self.seed()
                triggers = self.buttons(seed)
            with gr.Column(scale=2):
                sound = gr.Audio(
                    label=self.text("sound"), format="wav", elem_id="sound", buttons=["download"]
                )
                spectrogram = self.image("spectrogram")

        def generate_sound(name, label, seconds, temperature, seed):
            visible = sequences.is_autoregressive(name)
            options = (seconds, temperature) if visible else (None, None)
            waveform, rate, figure = sequences.generate_sound(name, label, *options, seed)
            update = gr.update(visible=visible)
            return update, update, controls.to_audio(waveform, rate), self.render(figure)

        inputs = [name, label, seconds, temperature, seed]
        outputs = [seconds, temperature, sound, spectrogram]
        self.on("sound", [*triggers, name.input, label.input], generate_sound, inputs, outputs)


def build() -> gr.Blocks:
    """Build both pages."""
    # Images and sounds are files, which are deleted after an hour, and at the end.
    title = texts.text("en", "title")
    blocks = gr.Blocks(title=title, analytics_enabled=False, delete_cache=(600, 3600))
    with blocks:
        Page(blocks, "en")
    with blocks.route("zh", "/zh", show_in_navbar=False):
        Page(blocks, "zh")
    return blocks
