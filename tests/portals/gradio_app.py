"""An application on Gradio: a queue with progress, a file in and a file out, behind a login of its own."""

import sys
import time

import gradio


def count(file, progress=gradio.Progress()):
    """Counts the bytes of a file, slowly, and gives it back."""
    for step in progress.tqdm(range(5), desc="Counting"):
        time.sleep(0.1)
    with open(file, "rb") as opened:
        return f"{len(opened.read())} bytes", file


def tick():
    """Sends a number ten times a second until nobody listens."""
    for number in range(100_000):
        yield str(number)
        time.sleep(0.1)


with gradio.Blocks(title="Pumps") as app:
    gradio.Markdown("# Pumps")
    upload = gradio.File(label="Readings")
    counted = gradio.Textbox(label="Counted")
    result = gradio.File(label="Result")
    gradio.Button("Count").click(count, upload, [counted, result])
    live = gradio.Textbox(label="Live")
    gradio.Button("Watch").click(tick, None, live)
    gradio.Button("Log out", link="/logout")

app.launch(server_name="127.0.0.1", server_port=int(sys.argv[1]), auth=("ada", "of the portal"), quiet=True)
