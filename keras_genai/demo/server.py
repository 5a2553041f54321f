"""Server of the demo, on this machine."""

import os
import sys
import time
import warnings

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read at the import
try:
    import gradio as gr

    from keras_genai.demo import page
except ImportError as error:
    raise ImportError('demo needs an extra: pip install "keras_genai[demo]".') from error

# The Chinese page is that of a Chinese browser, unless the link to the English one was followed.
# Gradio's own texts, such as those of its buttons, follow the language of the page.
HEAD = """
<script>
{
  const chinese = /\\/zh\\/?$/.test(location.pathname);
  const followed = document.referrer.startsWith(location.origin);
  if (!chinese && !followed && navigator.language.startsWith('zh')) location.replace('zh');
  const language = chinese ? 'zh-CN' : 'en';
  document.documentElement.lang = language;
  for (const [name, value] of [['language', language], ['languages', [language]]])
    Object.defineProperty(navigator, name, {get: () => value});
}
</script>
"""
# Hidden: the bar of pages, for which the header has a link; texts of Gradio that are English only.
STYLE = """
.nav-holder, .toast-title, .meta-text, .meta-text-center { display: none !important; }
.header { display: flex; align-items: baseline; justify-content: space-between; gap: 16px; }
.header h1 { margin: 0; font-size: 1.5rem; }
"""
SANS = ("system-ui", "-apple-system", "Segoe UI", "Noto Sans CJK SC", "sans-serif")
MONO = ("ui-monospace", "Consolas", "monospace")


def launch(host: str = "127.0.0.1", port: int | None = None, browser: bool = False) -> gr.Blocks:
    """Start the server of the demo in the background.

    Args:
        host: String. Address to listen on. Defaults to `"127.0.0.1"`, this machine only.
        port: Int or `None`. Port; `None` is the first free one from 7860 on. Defaults to `None`.
        browser: Bool. Whether to open the page in the browser of the user. Defaults to `False`.

    Returns:
        The `gr.Blocks`, whose `local_url` is the address of the page; `close()` ends it.

    Raises:
        ValueError: for a blank host.
        OSError: if the address is not one of this machine, or no port is free.
    """
    if not host.strip():
        raise ValueError(f"host: expected an address, got {host!r}.")
    blocks = page.build()
    theme = gr.themes.Default(font=SANS, font_mono=MONO)
    try:
        blocks.launch(
            inbrowser=browser,
            share=False,
            prevent_thread_lock=True,
            server_name=host,
            server_port=port,
            quiet=True,
            footer_links=[],
            enable_monitoring=False,
            ssr_mode=False,
            theme=theme,
            css=STYLE,
            head=HEAD,
        )
    except OSError as error:
        shown = "a free port from 7860 on" if port is None else f"the free port {port}"
        raise OSError(f"demo: expected {shown} at the address {host} of this machine.") from error
    return blocks


def serve(host: str, port: int | None, browser: bool) -> int:
    """Serve the demo until Ctrl-C; return the exit code. See `launch`."""
    warnings.filterwarnings("ignore", module="gradio")  # its own use of older libraries
    blocks = launch(host, port, browser)
    print(f"The demo is at {blocks.local_url} (Ctrl-C ends it).", flush=True)
    try:
        while True:
            time.sleep(1)  # Ctrl-C interrupts it, on Windows too
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
    finally:
        blocks.close(verbose=False)
    return 130
