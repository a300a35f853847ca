"""Pretrain the miniature's CLIP and write zoo/mini-clip.safetensors: `make zoo`.

    python -m stages.pretrain

Not a stage of dvc.yaml: the result is shipped, so that `dvc repro` starts from it.
"""

import os
from pathlib import Path
from typing import Annotated

import typer

from stages._progress import say
from stages._stage import user_errors

Recipe = Annotated[Path, typer.Option("--recipe", help="What to train on, and how.")]
Output = Annotated[Path, typer.Option("--output", help="The checkpoint to write.")]


def main(
    recipe: Recipe = Path("zoo/mini-clip.yaml"), output: Output = Path("zoo/mini-clip.safetensors")
) -> None:
    """Pretrain the miniature's CLIP."""
    with user_errors():
        import yaml

        from pipeline.files import sha256

        plan = yaml.safe_load(recipe.read_text(encoding="utf-8"))
        train(plan, output)
        say(f"{output}: {output.stat().st_size / 1e6:.2f} MB, SHA-256 {sha256(output)}")


def train(plan: dict, output: Path) -> None:
    """Draw the corpus, train on it, write the checkpoint in half precision."""
    import json
    import time

    import torch

    from pipeline.checkpoints.weights import save_weights
    from pipeline.clip import build_clip
    from pipeline.pretraining import PretrainingOptions, pretrain
    from pipeline.sources import fingerprint
    from pipeline.tasks.mini.corpus import CONTEXTS, corpus, vocabulary

    started = time.monotonic()
    drawn = corpus(plan["corpus"]["per_source"], plan["seed"], workers=os.cpu_count() or 1)
    say(f"{len(drawn.images):,} pictures, {len(drawn.captions)} captions")
    torch.manual_seed(plan["seed"])
    options = dict(plan["training"])
    clip = build_clip(plan["architecture"], vocabulary(), options.pop("logit_scale"))

    def on_step(step: int, loss: float) -> None:
        if step % 100 == 0:
            say(f"step {step} loss {loss:.3f} {time.monotonic() - started:.0f} s")

    pretrain(
        clip,
        drawn.images,
        drawn.caption_ids,
        drawn.captions,
        CONTEXTS,
        PretrainingOptions(**options, seed=plan["seed"]),
        on_step,
    )
    facts = {
        "family": "mini",
        "architecture": json.dumps(plan["architecture"]),
        "vocabulary": json.dumps(vocabulary()),
        "recipe": json.dumps(plan),
        "sources_sha256": fingerprint("stages.pretrain"),
    }
    half = {name: tensor.half() for name, tensor in clip.model.state_dict().items()}
    save_weights(output, half, facts)


if __name__ == "__main__":
    typer.run(main)
