"""The published suites in small, on a loopback hub: a random CLIP, experts near it, data sets.

Repositories, file names and layouts are those of the real hub; widths and sizes are not.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from loopback_hub import LoopbackHub
from PIL import Image
from safetensors.torch import save
from tiny import ROOT
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel

from pipeline.tasks import Task, get_task
from pipeline.tasks import hub as catalog

PRETRAINED = "openai/clip-vit-base-patch32"
EXPERTS = "tanganke/clip-vit-base-patch32_{}"
CALLED = {"cars": "stanford-cars"}
IMAGES = 24  # in the test split of each data set
SIDE, LONG_SIDE = 32, 40  # of the pictures: they are cropped and not resized
# Of OpenAI's pixels, as the preprocessor_config.json of its repositories says.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
# ViT-B/32's structure, narrow.
TOWERS = {
    "projection_dim": 16,
    "vision_config": {
        **{"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2},
        **{"num_attention_heads": 4, "image_size": SIDE, "patch_size": 16, "projection_dim": 16},
    },
    "text_config": {
        **{"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 2},
        **{"num_attention_heads": 2, "projection_dim": 16, "bos_token_id": 0, "eos_token_id": 2},
    },
}


def random_clip(**vision: Any) -> CLIPModel:
    """A CLIP with random weights; `vision`: other values of its image tower."""
    torch.manual_seed(0)
    towers = TOWERS | {"vision_config": TOWERS["vision_config"] | vision}
    return CLIPModel(CLIPConfig(**towers)).eval()


def fine_tuned(pretrained: CLIPModel, seed: int) -> CLIPModel:
    """A model whose image tower differs a little, projection excepted."""
    expert = CLIPModel(pretrained.config).eval()
    expert.load_state_dict(pretrained.state_dict())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in expert.vision_model.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=generator)
    return expert


def add_models(hub: LoopbackHub, tasks: Sequence[str]) -> dict[str, CLIPModel]:
    """The pretrained CLIP and an expert per task; returns the models, "pretrained" first."""
    models = {"pretrained": random_clip()}
    config = json.dumps(models["pretrained"].config.to_dict()).encode()
    files = {"config.json": config, "model.safetensors": saved(models["pretrained"])}
    hub.add(PRETRAINED, files)
    for seed, task in enumerate(tasks, start=1):
        models[task] = fine_tuned(models["pretrained"], seed)
        hub.add(expert_of(task), expert_files(models[task]))
    return models


def expert_of(task: str) -> str:
    """The repository of a task's expert."""
    return EXPERTS.format(CALLED.get(task, task))


def expert_files(model: CLIPModel, **changes: Any) -> dict[str, bytes]:
    """As published: the image tower without its projection. `changes`: to its config.json."""
    config = json.dumps(model.vision_model.config.to_dict() | changes).encode()
    return {"config.json": config, "model.safetensors": saved(model, "vision_model.")}


def saved(model: torch.nn.Module, only: str = "") -> bytes:
    """The model's tensors as a safetensors file."""
    state = model.state_dict().items()
    return save({name: tensor.contiguous() for name, tensor in state if name.startswith(only)})


@dataclass(frozen=True)
class Pictures:
    """What a data set on the hub holds, in the order of its rows."""

    pixels: np.ndarray  # uint8 [N, SIDE, LONG_SIDE, 3]
    classes: np.ndarray  # of the catalog's task, by their places in its list

    @property
    def cropped(self) -> np.ndarray:
        """As a model with images of that side sees them, uint8 [N, 3, SIDE, SIDE]."""
        margin = (LONG_SIDE - SIDE) // 2
        return self.pixels[:, :, margin:-margin].transpose(0, 3, 1, 2)


def add_images(hub: LoopbackHub, tasks: Sequence[str], count: int = IMAGES) -> dict[str, Pictures]:
    """The tasks' data sets, `count` images each; returns what they hold."""
    made = {name: pictures(get_task("hub", name), seed, count) for seed, name in enumerate(tasks)}
    for name, held in made.items():
        task = get_task("hub", name)
        hub.add(task.source.repository, shards(task, held), kind="dataset")
    return made


def add_corrupted(
    hub: LoopbackHub, name: str, held: Pictures, corruptions: Sequence[str], order: Any = None
) -> dict[str, np.ndarray]:
    """Splits with a task's images corrupted, rows in another `order` if given.

    Returns corruption -> pixels uint8 [N, 3, SIDE, SIDE] of what was row k of the test split. The
    pixel that says class and row stays as it is.
    """
    task, made = get_task("hub", name), {}
    rows = np.arange(len(held.classes)) if order is None else np.array(order)
    for place, corruption in enumerate(corruptions):
        pixels = held.pixels // 2 + 20 * place
        pixels[:, SIDE // 2, LONG_SIDE // 2] = held.pixels[:, SIDE // 2, LONG_SIDE // 2]
        changed = Pictures(pixels, held.classes)
        made[corruption] = changed.cropped
        there = Pictures(pixels[rows], held.classes[rows])
        split = task.source.corrupted[corruption]
        hub.move(task.source.repository, shards(task, there, split=split), kind="dataset")
    return made


def pictures(task: Task, seed: int, count: int) -> Pictures:
    """Random pixels of random classes, one of the pixels being the class and the row."""
    rng = np.random.default_rng(seed)
    order = source_order(task)
    # Sorted as most data sets are: by the source's number of the class.
    classes = order[np.sort(rng.integers(0, len(order), count))]
    pixels = rng.integers(0, 256, (count, SIDE, LONG_SIDE, 3), dtype=np.uint8)
    code = np.stack([classes % 256, classes // 256, np.arange(count) % 256], axis=1)
    pixels[:, SIDE // 2, LONG_SIDE // 2] = code
    return Pictures(pixels, classes)


def source_order(task: Task) -> np.ndarray:
    """Our class of what a task's data set labels k: another order than the catalog's."""
    return np.random.default_rng(len(task.name)).permutation(len(task.classes))


def seen(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(classes, rows) that the pixels of stored images [N, 3, SIDE, SIDE] say."""
    code = np.asarray(images[:, :, SIDE // 2, SIDE // 2]).astype(int)
    return code[:, 0] + 256 * code[:, 1], code[:, 2]


def shards(
    task: Task, held: Pictures, names: Mapping[str, str] | None = None, split: str = ""
) -> dict[str, bytes]:
    """The files of a data set, two shards; `names`: label in the catalog -> what it is called."""
    place = f"{task.source.configuration or 'data'}/{split or task.source.split}"
    halves = np.array_split(np.arange(len(held.classes)), 2)
    return {
        f"{place}-{part:05}-of-00002.parquet": shard(task, held, rows, names or {})
        for part, rows in enumerate(halves)
    }


def shard(task: Task, held: Pictures, rows: np.ndarray, names: Mapping[str, str]) -> bytes:
    """A parquet file as the `datasets` library writes it."""
    contents = [{"bytes": png(held.pixels[row]), "path": None} for row in rows]
    return parquet(task, contents, held.classes[rows], names)


def parquet(
    task: Task,
    contents: Sequence[Mapping[str, Any]],
    classes: np.ndarray,
    names: Mapping[str, str],
) -> bytes:
    """A parquet file of these encoded images."""
    order = source_order(task)
    called = [names.get(word, word) for word in task.labels or task.classes]
    features = {
        task.source.image: {"_type": "Image"},
        task.source.label: {"names": [called[k] for k in order], "_type": "ClassLabel"},
    }
    struct = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    columns = {
        task.source.image: pa.array(contents, struct),
        task.source.label: pa.array(np.argsort(order)[classes]),
    }
    facts = json.dumps({"info": {"features": features}})
    sink = io.BytesIO()
    pq.write_table(pa.table(columns).replace_schema_metadata({"huggingface": facts}), sink)
    return sink.getvalue()


def png(pixels: np.ndarray) -> bytes:
    """An image as PNG."""
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "png")
    return sink.getvalue()


def small_catalog(patch: pytest.MonkeyPatch) -> None:
    """The catalog's data sets have `IMAGES` images."""
    small = {
        name: replace(task, source=replace(task.source, size=IMAGES))
        for name, task in catalog.TASKS.items()
    }
    patch.setattr(catalog, "TASKS", small)


@torch.inference_mode()
def image_features(model: CLIPModel, images: np.ndarray) -> torch.Tensor:
    """What `transformers` makes of uint8 images [N, 3, side, side]: unit rows."""
    pixels = torch.from_numpy(np.array(images)).float() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return F.normalize(model.get_image_features((pixels - mean) / std).pooler_output, dim=-1)


@torch.inference_mode()
def text_head(model: CLIPModel, task: str) -> torch.Tensor:
    """The mean over templates of what `transformers` makes of each class: unit rows."""
    words, rows = get_task("hub", task), []
    for name in words.classes:
        tokens = open_clip.tokenize([template.format(name) for template in words.templates])
        features = model.get_text_features(tokens).pooler_output
        rows.append(F.normalize(F.normalize(features, dim=-1).mean(0), dim=0))
    return torch.stack(rows)


def profile(**changes: Any) -> dict[str, Any]:
    """profiles/vit-b-32.yaml with small budgets, and top-level keys replaced.

    With other `tasks` it has no generalization splits, and its first task's corruptions.
    """
    found = yaml.safe_load((ROOT / "profiles" / "vit-b-32.yaml").read_text(encoding="utf-8"))
    found["learn"] |= {"steps": 3, "batch": 4, "methods": ["adamerging_layerwise"]}
    found["robustness"] |= {"tasks": ["cars"], "corruptions": ["contrast"], "images": 6}
    found["robustness"] |= {"scale": "imagenet", "severities": [3]}
    found["robustness"]["adapted"]["severity"] = 3
    found["generalization"]["methods"] = ["ties", "adamerging_layerwise"]
    if "tasks" in changes:
        found["robustness"]["tasks"] = changes["tasks"][:1]
        found["generalization"]["splits"] = {}
        names = found["experts"]["names"].items()
        found["experts"]["names"] = {k: name for k, name in names if k in changes["tasks"]}
    return found | changes
