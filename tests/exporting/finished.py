"""Projects of a published suite in small whose stages are done: CLIP's own byte pairs, two tasks.

mnist and svhn have the same words in the same sentence.
"""

import json

import numpy as np
import torch
import yaml
from published_suite import profile

from pipeline.checkpoints.weights import save_weights
from pipeline.clip import build_clip
from pipeline.config import load_config
from pipeline.evaluation import Predictions
from pipeline.files import write_json
from pipeline.layout import Layout
from pipeline.tasks.words import write_words

TASKS = ["svhn", "mnist"]
ARCHITECTURE = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "layers": 2, "head_width": 8},
    "text_cfg": {
        **{"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    },
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
}
EXPERTS = {
    task: {"source": f"tanganke/clip-vit-base-patch32_{task}", "commit": "e" * 40} for task in TASKS
}
SOURCES = {
    "pretrained": {
        **{"source": "openai/clip-vit-base-patch32", "revision": "main", "commit": "c" * 40},
        **{"file": "model.safetensors", "sha256": "a" * 64},
    },
    "experts": EXPERTS,
}
IMAGES = 40  # that predictions are of


def finished_project(folder, quick_gelu=True, **changes):
    """(config, layout) with all that exporting and predicting read; `changes`: of the profile."""
    (folder / "profiles").mkdir(parents=True)
    (folder / "params.yaml").write_text("profile: small\ndevice: cpu\n", encoding="utf-8")
    text = yaml.safe_dump(profile(tasks=TASKS) | changes)
    (folder / "profiles" / "small.yaml").write_text(text, encoding="utf-8")
    config, layout = load_config(folder), Layout(folder, "small")
    architecture = ARCHITECTURE | {"quick_gelu": quick_gelu}
    torch.manual_seed(0)
    clip = build_clip(architecture, None, 20.0)
    with torch.no_grad():
        for weight in clip.model.parameters():  # new ones hold zeros and ones
            weight += 0.1 * torch.randn(weight.shape)
    facts = {"architecture": json.dumps(architecture), "tokenizer": "clip", "family": "hf"}
    save_weights(layout.pretrained, clip.model.eval().state_dict(), facts)
    write_words(layout.tasks, [config.task(task) for task in TASKS])
    write_json(layout.sources, SOURCES)
    for task in TASKS:
        words = config.task(task)
        head = clip.zero_shot_head(words.classes, words.templates)
        save_weights(layout.head(task), {"weight": head}, {})
    start = clip.image_encoder().weights()
    for seed in config.profile.seeds:
        for method in config.methods:
            near = {n: w + 0.05 * torch.randn(w.shape) for n, w in start.items()}
            save_weights(layout.merged(seed, method), near, {"method": method})
    write_metrics(config, layout)
    return config, layout


def write_metrics(config, layout):
    """Predictions drawn at random, and the metrics that follow from them."""
    rng, clean = np.random.default_rng(0), {}
    for method in config.methods:
        shares = {}
        for seed in config.profile.seeds:
            for task in TASKS:
                label = rng.integers(0, 10, IMAGES)
                top = np.where(rng.random(IMAGES) < 0.8, label, (label + 1) % 10)[:, None]
                some = np.zeros(IMAGES, np.float32)
                index = np.arange(IMAGES, dtype=np.int32)
                Predictions(index, label, top.astype(np.int16), some, some, some, some).save(
                    layout.predictions(seed, method, task)
                )
                shares[seed, task] = 100 * float((top[:, 0] == label).mean())
        means = {t: np.mean([shares[s, t] for s in config.profile.seeds]) for t in TASKS}
        clean[method] = {
            "avg": round(float(np.mean(list(means.values()))), 2),
            "tasks": {task: round(float(mean), 2) for task, mean in means.items()},
            "seeds": {
                str(seed): round(float(np.mean([shares[seed, task] for task in TASKS])), 2)
                for seed in config.profile.seeds
            },
            "avg_interval": [60.0, 95.0],
        }
    write_json(layout.metric("clean"), clean)
