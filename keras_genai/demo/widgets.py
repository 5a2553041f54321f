"""Parts of the page with JavaScript of their own: the latent plane, and the canvas for drawings."""

import base64
import io

import gradio as gr
from PIL import Image

# While the mouse moves, one event at a time, the last position included: the next one waits until
# the image of the last one has arrived, or for half a second.
PLANE_SCRIPT = """
let point = null, waiting = null, observer = null;
const next = () => {
  if (waiting !== null || point === null) return;
  if (observer === null) {
    observer = new MutationObserver(answered);
    const changes = {attributes: true, childList: true, subtree: true};
    observer.observe(document.getElementById(props.target), changes);
  }
  waiting = setTimeout(answered, 500);
  trigger('input', point);
  point = null;
};
const answered = () => { clearTimeout(waiting); waiting = null; next(); };
const clip = (value) => Math.min(1, Math.max(-1, value));
const move = (event) => {
  const plane = element.querySelector('.plane'), dot = element.querySelector('.dot');
  if (!plane) return;
  const box = plane.getBoundingClientRect();
  const x = clip(2 * (event.clientX - box.left) / box.width - 1);
  const y = clip(1 - 2 * (event.clientY - box.top) / box.height);
  dot.style.left = 50 * (x + 1) + '%';
  dot.style.top = 50 * (1 - y) + '%';
  dot.style.display = 'block';
  point = {x: x, y: y};
  next();
};
element.addEventListener('pointermove', move);
element.addEventListener('pointerdown', move);
"""
PLANE_TEMPLATE = """
${value ? `<div class="plane"><img src="${value}" alt="${alt}" draggable="false">
<div class="dot"></div></div>` : ''}
"""
PLANE_STYLE = """
.plane { position: relative; width: 100%; max-width: 480px; cursor: crosshair; touch-action: none; }
.plane img { display: block; width: 100%; user-select: none; }
.dot { display: none; position: absolute; width: 14px; height: 14px; margin: -7px 0 0 -7px;
  border: 3px solid #e69f00; border-radius: 50%; pointer-events: none; box-sizing: border-box; }
"""
# `input` is triggered while a line is drawn, `release` at its end, both with 28 × 28 gray values.
DRAWING_SCRIPT = """
const canvas = element.querySelector('canvas');
const context = canvas.getContext('2d', {willReadFrequently: true});
let last = null, timer = null, sent = 0;
const clear = () => { context.fillStyle = 'black'; context.fillRect(0, 0, 280, 280); };
const pixels = () => {
  const data = context.getImageData(0, 0, 280, 280).data, sums = new Array(784).fill(0);
  for (let i = 0; i < 78400; i++)
    sums[28 * Math.floor(i / 2800) + Math.floor((i % 280) / 10)] += data[4 * i];
  return sums.map((sum) => Math.round(sum / 100));
};
const send = () => { timer = null; sent = Date.now(); trigger('input', {pixels: pixels()}); };
const position = (event) => {
  const box = canvas.getBoundingClientRect();
  const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
  return [280 * x, 280 * y];
};
const draw = (event) => {
  if (last === null) return;
  const next = position(event);
  context.strokeStyle = 'white';
  context.lineWidth = 22;
  context.lineCap = context.lineJoin = 'round';
  context.beginPath();
  context.moveTo(...last);
  context.lineTo(...next);
  context.stroke();
  last = next;
  if (timer === null) timer = setTimeout(send, Math.max(0, 100 - (Date.now() - sent)));
};
canvas.addEventListener('pointerdown', (event) => {
  canvas.setPointerCapture(event.pointerId);
  last = position(event);
  draw(event);
});
canvas.addEventListener('pointermove', draw);
const end = () => {
  if (last === null) return;
  last = null;
  trigger('release', {pixels: pixels()});
};
canvas.addEventListener('pointerup', end);
canvas.addEventListener('pointercancel', end);
element.querySelector('button').addEventListener('click', () => { clear(); trigger('clear'); });
clear();
"""
DRAWING_TEMPLATE = """
<div class="drawing ${half ? 'half' : ''}"><canvas width="280" height="280"></canvas></div>
<button type="button">${clear}</button>
"""
DRAWING_STYLE = """
.drawing { position: relative; width: 280px; height: 280px; }
canvas { display: block; cursor: crosshair; touch-action: none; }
.half::after { content: ''; position: absolute; left: 0; right: 0; top: 50%; height: 50%;
  border-top: 2px dashed #e69f00; background: rgb(128 128 128 / 40%); pointer-events: none; }
button { margin-top: 8px; padding: 6px 16px; cursor: pointer;
  border: 1px solid var(--border-color-primary); border-radius: 8px;
  background: var(--button-secondary-background-fill); color: var(--button-secondary-text-color); }
"""
IMAGE_TEMPLATE = """
${value ? `<img class="decoded" src="${value}" alt="${alt}">` : '<div class="decoded"></div>'}
"""
IMAGE_STYLE = """
.decoded { width: 224px; height: 224px; background: black; image-rendering: pixelated; }
"""


def latent_plane(label: str, name: str, target: str) -> gr.HTML:
    """Return a component with the image of a plane, whose `input` event has a position.

    Args:
        label: String. Label of the component, and description of its image.
        name: String. Its id on the page.
        target: String. Id of the component with the image of the position.
    """
    return gr.HTML(
        "",
        label=label,
        container=True,
        html_template=PLANE_TEMPLATE,
        css_template=PLANE_STYLE,
        js_on_load=PLANE_SCRIPT,
        elem_id=name,
        target=target,
        alt=label,
    )


def drawing_canvas(label: str, clear: str, name: str, half: bool = False) -> gr.HTML:
    """Return a canvas to draw on, whose `input` and `release` events have the drawn pixels.

    Args:
        label: String. Label of the component.
        clear: String. Text of the button that triggers the event `clear`.
        name: String. Its id on the page.
        half: Bool. Whether the lower half is marked as the model's. Defaults to `False`.
    """
    return gr.HTML(
        "",
        label=label,
        container=True,
        html_template=DRAWING_TEMPLATE,
        css_template=DRAWING_STYLE,
        js_on_load=DRAWING_SCRIPT,
        elem_id=name,
        clear=clear,
        half=half,
    )


def small_image(label: str, name: str) -> gr.HTML:
    """Return a component for an image of few pixels, which is replaced without flickering."""
    return gr.HTML(
        "",
        label=label,
        container=True,
        html_template=IMAGE_TEMPLATE,
        css_template=IMAGE_STYLE,
        elem_id=name,
        alt=label,
    )


def to_data_url(image) -> str:
    """Return the data URL of an image, a uint8 array `(height, width)`."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
