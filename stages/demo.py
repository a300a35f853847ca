"""A page on this machine to try a merged model on: an image, its classes, and a slider.

adamerge demo
adamerge demo --method ties --port 7861
"""

import os
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from stages._model import MethodOption, SeedOption
from stages._progress import say
from stages._server import HOST, check_free, until_stopped
from stages._stage import ProfileOption, user_errors

Port = Annotated[int, typer.Option("--port", help="Port of the page.")]


def main(
    profile: ProfileOption = None,
    method: MethodOption = None,
    seed: SeedOption = None,
    port: Port = 7860,
) -> None:
    """Open a page to try a merged model on, beside the pretrained one (needs gradio)."""
    with user_errors():
        _check_gradio()
        check_free(port)
        with until_stopped(), tempfile.TemporaryDirectory(prefix="adamerge-demo-") as folder:
            # Read by gradio when it is imported. What is uploaded goes when the page does.
            os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": folder}
            from stages._demo_page import launched, open_demo

            demo = open_demo(Path.cwd(), profile, method, seed, Path(folder))
            with launched(demo, port):
                say(f"demo: http://{HOST}:{port} shows {demo.title}")
                say("Press Ctrl-C to stop.")
                while True:
                    time.sleep(3600)


def _check_gradio() -> None:
    from pipeline.errors import UserError

    if find_spec("gradio") is None:
        raise UserError(
            "The page needs gradio, which is not installed: run \"pip install 'adamerge[demo]'\", "
            "or in this checkout \".venv/bin/pip install -e '.[demo]'\"."
        )


if __name__ == "__main__":
    typer.run(main)
