"""The tiny CLIP that tests run on, and where the project lies."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TASKS = ("cars", "mnist", "dtd")
ARCHITECTURE = {
    "embed_dim": 12,
    "vision_cfg": {
        "image_size": 32,
        "patch_size": 16,
        "width": 16,
        "layers": 2,
        "head_width": 8,
    },
    "text_cfg": {"context_length": 6, "width": 8, "heads": 2, "layers": 1},
    "mean": (0.5, 0.4, 0.3),
    "std": (0.25, 0.2, 0.3),
}
WORDS = ("<pad>", "a", "photo", "of", "red", "green", "blue", "<eot>")
