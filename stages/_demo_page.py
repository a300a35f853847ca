"""The page of `adamerge demo`: what it shows, and what it says of an image."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages._model import choose, torch_device
from stages._server import HOST

if TYPE_CHECKING:
    from pipeline.blending import Blend
    from pipeline.layout import Layout

TOP = 5
STEP = 0.05
MOST_BYTES = 50 * 10**6  # of an image
FONTS = ("ui-sans-serif", "system-ui", "sans-serif")  # of the reader's own system
# An image fills its frame. Of a model that takes small ones, they are shown large, not smoothed.
LARGE = "#image img { width: 100%; height: 100%; object-fit: contain; }"
SHARP = "img { image-rendering: pixelated; }"
SMALL = 64  # pixels along a side


@dataclass(frozen=True)
class Demo:
    """What the page shows."""

    blend: "Blend"
    title: str  # the method and the seed, the profile, the protocol
    examples: tuple[str, ...]  # paths of images

    def answer(self, image: str | None, task: str, share: float) -> dict[str, float]:
        """The most probable classes of an image file -> probability; nothing for none.

        `share`: of the merged weights, 0..1. Of all tasks at once, a class names its tasks.
        Raises `BrokenImage`.
        """
        import numpy as np

        from pipeline.classifier import ANY
        from pipeline.data.given import pixels_of

        if image is None:
            return {}
        classifier = self.blend.at(share)
        pixels = pixels_of(Path(image), classifier.size)
        titles = {name: said.title for name, said in classifier.labels.items()}
        return {
            guess.word
            if task != ANY
            else f"{guess.word} ({', '.join(titles[name] for name in guess.tasks)})": (
                guess.probability
            )
            for guess in classifier.classify(np.stack([pixels]), task, TOP)[0]
        }

    @property
    def tasks(self) -> list[tuple[str, str]]:
        """(what is printed, name) of what a reader chooses from."""
        from pipeline.classifier import ANY

        held = [(said.title, name) for name, said in self.blend.merged.labels.items()]
        return [("All tasks at once", ANY), *held]


def open_demo(
    root: Path, profile: str | None, method: str | None, seed: int | None, folder: Path
) -> Demo:
    """The demo of a profile's model; example images are written to `folder`.

    Raises `UserError` where the profile, the method or the model is not there.
    """
    from pipeline.blending import load_blend
    from pipeline.config import load_config
    from pipeline.layout import Layout
    from pipeline.merging.methods import METHODS

    config = load_config(root, profile)
    layout = Layout(config.root, config.name)
    chosen, number = choose(config, method, seed)
    blend = load_blend(config, layout, chosen, number, torch_device(config.device))
    title = (
        f"{METHODS[chosen].title}, seed {number}, of profile {config.name} "
        f"({config.profile.protocol} protocol)"
    )
    return Demo(blend, title, tuple(_examples(layout, number, config.profile.tasks, folder)))


def _examples(layout: "Layout", seed: int, tasks: tuple[str, ...], folder: Path) -> Iterator[str]:
    """The first of each task's `eval` images as a file, where they are there."""
    import numpy as np
    from PIL import Image

    for task in tasks:
        images = layout.images(seed, task, "eval")
        if images.exists():
            path = folder / f"{task}.png"
            pixels = np.load(images, mmap_mode="r")[0]
            Image.fromarray(pixels.transpose(1, 2, 0)).save(path)
            yield str(path)


@contextmanager
def launched(demo: Demo, port: int) -> Iterator[None]:
    """The page on this machine, as long as the block lasts; nothing is sent anywhere."""
    import gradio

    page = build(demo)
    page.launch(
        server_name=HOST,
        server_port=port,
        share=False,
        prevent_thread_lock=True,
        quiet=True,
        show_error=True,
        ssr_mode=False,
        enable_monitoring=False,
        run_history=False,
        footer_links=[],
        max_file_size=MOST_BYTES,
        theme=gradio.themes.Base(font=FONTS, font_mono=("ui-monospace", "monospace")),
        css=LARGE + (SHARP if demo.blend.merged.size <= SMALL else ""),
    )
    try:
        yield
    finally:
        page.server.force_exit = True  # tabs that are open do not keep it
        page.close(verbose=False)


def build(demo: Demo) -> Any:
    """The page, as gradio's blocks."""
    import gradio

    from pipeline.classifier import ANY
    from pipeline.data.decoding import BrokenImage

    def answer(image: str | None, task: str, share: float) -> dict[str, float]:
        try:
            return demo.answer(image, task, share)
        except BrokenImage as error:
            raise gradio.Error(f"This is no image to use: {error}.") from None

    with gradio.Blocks(title="adamerge", analytics_enabled=False) as page:
        gradio.Markdown(f"# One CLIP for all tasks\n{demo.title}")
        with gradio.Row():
            with gradio.Column():
                image = gradio.Image(
                    next(iter(demo.examples), None),
                    label="Image",
                    elem_id="image",
                    height=280,
                    type="filepath",
                    image_mode=None,  # the file as it is
                    sources=["upload", "clipboard"],
                    buttons=["fullscreen"],
                )
                task = gradio.Dropdown(demo.tasks, value=ANY, label="Task")
                share = gradio.Slider(
                    0, 1, value=1, step=STEP, label="Weights: 0 is the pretrained model, 1 merged"
                )
            with gradio.Column():
                classes = gradio.Label(num_top_classes=TOP, label="What the model sees")
        inputs = [image, task, share]
        if demo.examples:
            gradio.Examples(list(demo.examples), image, label="Test images, one of each task")
        moments = [page.load, *(one.change for one in inputs)]
        gradio.on(moments, answer, inputs, classes, trigger_mode="always_last")
    return page
