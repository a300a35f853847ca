"""Time the zero-shot heads of the paper's eight tasks, beside open_clip's way of building them.

    python -m benchmarks.heads                   # ViT-B/32 on the CPU
    python -m benchmarks.heads --model ViT-L-14 --device cuda

Random weights, which take as long. Beside it: `encode_text` for one class at a time, on every
twentieth class, times as many classes as there are. On a GPU only the wall clock counts.
"""

from functools import partial
from typing import Annotated

import typer

from stages._progress import say
from stages._stage import user_errors

TASKS = ("sun397", "cars", "resisc45", "eurosat", "svhn", "gtsrb", "mnist", "dtd")
EVERY = 20  # classes of the slow way

Model = Annotated[str, typer.Option("--model", help="open_clip's name of a model.")]
Device = Annotated[str, typer.Option("--device", help="cpu, or cuda where there is a GPU.")]


def main(model: Model = "ViT-B-32-quickgelu", device: Device = "cpu") -> None:
    """Print the seconds, and how many times as long open_clip's way takes."""
    with user_errors():
        from pipeline.tasks import get_task

        tasks = [get_task("hub", name) for name in TASKS]
        ours, theirs = seconds(model, [(task.classes, task.templates) for task in tasks], device)
        sentences = sum(len(task.classes) * len(task.templates) for task in tasks)
        say(f"{len(tasks)} heads of {model} from {sentences:,} sentences")
        for clock, name in (("wall_s", "wall clock"), ("cpu_s", "CPU")):
            ratio = theirs[clock] / ours[clock]
            say(f"{name}: {ours[clock]:.1f} s; one class at a time {ratio:.1f} times as long")


def seconds(
    name: str, tasks: list[tuple[tuple[str, ...], tuple[str, ...]]], device: str
) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds for the heads of `tasks` (classes, templates), by each clock: ours, one by one."""
    import torch
    from open_clip import build_zero_shot_classifier, get_model_config

    from benchmarks.machine import timed
    from pipeline.clip import build_clip

    config = get_model_config(name)
    small = {"image_size": 32, "patch_size": 32, "width": 64, "layers": 1}  # has no part in it
    text = {"vocab_size": 49408, **config["text_cfg"]}
    facts = {"quick_gelu": config.get("quick_gelu", False), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    clip = build_clip(config | facts | {"vision_cfg": small, "text_cfg": text}, None, 100.0)
    clip.model.eval().to(device)
    clip.zero_shot_head(("warm up",), ("{}",))

    def one_by_one(classes: tuple[str, ...], templates: tuple[str, ...]) -> torch.Tensor:
        found = build_zero_shot_classifier(
            clip.model, clip.tokenizer, classes, templates, 1, device
        )
        return found.T.cpu()

    heads, ours = timed(device, lambda: [clip.zero_shot_head(*task).cpu() for task in tasks])
    theirs = dict.fromkeys(ours, 0.0)
    for head, (classes, templates) in zip(heads, tasks, strict=True):
        some = classes[::EVERY]
        found, took = timed(device, partial(one_by_one, some, templates))
        torch.testing.assert_close(head[::EVERY], found, rtol=0, atol=1e-5)
        for clock in theirs:
            theirs[clock] += took[clock] * len(classes) / len(some)
    return ours, theirs


if __name__ == "__main__":
    typer.run(main)
