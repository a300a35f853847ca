"""Build every task's zero-shot head and fine-tune one expert per task and seed.

python -m stages.experts
"""

from collections.abc import Callable
from pathlib import Path

import typer

from stages._stage import DryRunOption, ProfileOption, Stage, stage


def main(profile: ProfileOption = None, dry_run: DryRunOption = False) -> None:
    """Build zero-shot heads and fine-tune the experts."""
    with stage("experts", profile, dry_run) as run:
        config = run.config.profile
        run.needs("fetch", [run.layout.pretrained])
        run.needs_data("train", config.tasks)
        run.plan(
            f"{len(config.seeds) * len(config.tasks)} experts x {config.experts.steps} steps "
            f"x {config.experts.batch} images"
        )
        build_heads(run)
        total = len(config.seeds) * len(config.tasks)
        with run.progress("fine-tuning", total * config.experts.steps) as update:
            hits = 0
            for place, (seed, task) in enumerate(
                (s, t) for s in config.seeds for t in config.tasks
            ):
                hits += expert(run, seed, task, place * config.experts.steps, update)
        run.result = f"{total - hits} experts fine-tuned, {hits} from the cache"


def build_heads(run: Stage) -> None:
    """Write heads/<task>.safetensors for every task."""
    import json

    from pipeline.checkpoints import save_weights
    from pipeline.clip import load_clip
    from pipeline.tasks import get_task

    clip = load_clip(run.layout.pretrained, "python -m stages.fetch")
    for name in run.config.profile.tasks:
        task = get_task(run.config.profile.suite, name)
        facts = {"classes": json.dumps(task.classes), "templates": json.dumps(task.templates)}
        head = clip.zero_shot_head(task.classes, task.templates)
        save_weights(run.layout.head(name), {"weight": head}, facts)


def expert(
    run: Stage, seed: int, task: str, before: int, update: Callable[[int, str], None]
) -> bool:
    """Fine-tune one expert, or find it in the cache (then True)."""
    from pipeline.checkpoints import save_weights
    from pipeline.finetuning import finetune
    from stages._inputs import encoder_of, heads_of, images_of, labels_of

    layout, config = run.layout, run.config.profile
    inputs = {
        "pretrained": layout.pretrained,
        "head": layout.head(task),
        "images": layout.images(seed, task, "train"),
        "labels": layout.labels(seed, task, "train"),
        "options": config.experts.model_dump(),
        "task": task,
        "seed": seed,
    }

    def make(path: Path) -> None:
        encoder, scale = encoder_of(run)
        weights = finetune(
            encoder,
            heads_of(run, [task])[task],
            scale,
            images_of(run, seed, [task], "train")[task],
            labels_of(run, seed, [task], "train")[task],
            config.experts,
            task=task,
            seed=seed,
            on_step=lambda step, loss: update(before + step, f"{task} loss {loss:.2f}"),
        )
        facts = {"family": config.checkpoint.family, "task": task, "seed": str(seed)}
        save_weights(path, weights, facts | {"pretrained_sha256": config.checkpoint.sha256})

    entry = run.cache.entry("experts", "pipeline.finetuning", inputs, ".safetensors")
    hit = run.cache.fetch(entry, layout.expert(seed, task), make)
    update(before + config.experts.steps, task)
    return hit


if __name__ == "__main__":
    typer.run(main)
