"""Images of the pretrained article1-text-to-image: are they as their prompts say?

    python tests/benchmarks/text_to_image.py [--samples 5] [--guidance 1 2 4]

For each guidance scale and two samplers, the percentage of samples of all 120 prompts whose digit,
thickness and slant are as asked, and of all three at once; beside them real test images with their
captions, and samples without a prompt, which show how often a prompt is met by chance.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from keras_genai import datasets, load_model, pretrained
from keras_genai.tasks import caption_test_digits
from keras_genai.tasks.text_to_image import all_prompts, prompt_accuracy

SAMPLERS = {
    "DDPM, 50 steps": {"method": "ddpm"},
    "DPM-Solver++, 10 steps": {
        "method": "dpm_solver++",
        "num_steps": 10,
        "timestep_spacing": "karras",
    },
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=5, help="samples of each prompt [5]")
    parser.add_argument("--guidance", type=float, nargs="+", default=[1, 2, 4], metavar="S")
    parser.add_argument("--model", help="a .keras file [the pretrained model]")
    options = parser.parse_args()
    name = "article1-text-to-image"
    model = load_model(options.model) if options.model else pretrained.load(name)
    classifier = pretrained.load("article4-cnn")
    prompts = options.samples * all_prompts()

    images = datasets.load_mnist()[1][0][: len(prompts), ..., None].astype("float32") / 255
    report("test images", images, caption_test_digits(len(images))[0], classifier)
    samples = model.generate(len(prompts), seed=0, **SAMPLERS["DPM-Solver++, 10 steps"])
    report("without a prompt", samples, prompts, classifier)
    for sampler, arguments in SAMPLERS.items():
        for scale in options.guidance:
            start = time.perf_counter()
            samples = model.generate(
                len(prompts), prompts, guidance_scale=scale, seed=0, **arguments
            )
            seconds = time.perf_counter() - start
            label = f"{sampler}, guidance {scale:g}, {1000 * seconds / len(prompts):.0f} ms each"
            report(label, samples, prompts, classifier)


def report(label, images, prompts, classifier):
    accuracy = prompt_accuracy(images, prompts, classifier)
    print(f"{label}: " + ", ".join(f"{k} {v:.1f}%" for k, v in accuracy.items()), flush=True)


if __name__ == "__main__":
    main()
