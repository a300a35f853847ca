"""The profiles of the published suites, written from one table so that they cannot drift apart.

Three image towers; the experts of three families; 8, 14 and 20 tasks, and for the published tables
of robustness, which are of ViT-B/32, the four tasks that were merged for them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.tasks import get_task, task_names

TEMPLATE = "suite.yaml.jinja"
SUITE = "hub"
IMAGE_BYTES = 3 * 224 * 224
ROBUSTNESS = ("cars", "eurosat", "resisc45", "gtsrb")
TERAFLOPS = 100  # a second: what a recent GPU sustains in bfloat16


@dataclass(frozen=True)
class Tower:
    """An image tower of the suites."""

    name: str
    pretrained: str
    width: int
    layers: int
    tokens: int
    weights: float  # million

    @property
    def gflop(self) -> float:
        """Of one image's forward pass."""
        block = 12 * self.width**2 + 2 * self.tokens * self.width
        return 2 * self.tokens * self.layers * block / 1e9


TOWERS = (
    Tower("ViT-B-32", "openai/clip-vit-base-patch32", 768, 12, 50, 87.8),
    Tower("ViT-B-16", "openai/clip-vit-base-patch16", 768, 12, 197, 86.2),
    Tower("ViT-L-14", "openai/clip-vit-large-patch14", 1024, 24, 257, 304.0),
)
# What sources call the tasks. The tasks of `hf` are names of repositories, the others' of folders.
_HF = {
    "cars": "stanford-cars",
    "flowers102": "oxford_flowers102",
    "oxford_iiit_pet": "oxford-iiit-pet",
    "rendered_sst2": "rendered-sst2",
}
_FOLDERS = {
    "sun397": "SUN397",
    "cars": "Cars",
    "resisc45": "RESISC45",
    "eurosat": "EuroSAT",
    "svhn": "SVHN",
    "gtsrb": "GTSRB",
    "mnist": "MNIST",
    "dtd": "DTD",
    "flowers102": "Flowers102",
    "pcam": "PCAM",
    "fer2013": "FER2013",
    "oxford_iiit_pet": "OxfordIIITPet",
    "stl10": "STL10",
    "cifar100": "CIFAR100",
    "cifar10": "CIFAR10",
    "food101": "Food101",
    "fashion_mnist": "FashionMNIST",
    "emnist_mnist": "EMNIST",
    "kmnist": "KMNIST",
    "rendered_sst2": "RenderedSST2",
}
# As FusionBench's documentation and the authors' code learn them.
_PUBLISHED: dict[str, dict[str, Any]] = {
    "hf": {"steps": 1000, "batches": 1, "clamp": "false"},
    "original": {"steps": 500, "batches": 2, "clamp": "true"},
    "tall_masks": {"steps": 500, "batches": 2, "clamp": "true"},
}


def profile_texts() -> dict[str, str]:
    """File name -> text of every profile of the published suites."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    template = environment.get_template(TEMPLATE)
    return {f"{facts['name']}.yaml": template.render(facts) for facts in _profiles()}


def _profiles() -> Iterator[dict[str, Any]]:
    for tower in TOWERS:
        few = (len(ROBUSTNESS),) if tower.name == "ViT-B-32" else ()
        for family, counts in (
            ("hf", (8, 14, 20, *few)),
            ("original", (8, *few)),
            ("tall_masks", (8, 14, 20)),
        ):
            for count in counts:
                yield _facts(tower, family, count)


def _facts(tower: Tower, family: str, count: int) -> dict[str, Any]:
    tasks = _tasks(family, count)
    own = "" if family == "hf" else f"-{family.replace('_', '-')}"
    many = "" if count == 8 else f"-{count}"
    images = sum(source.size for task in tasks if (source := get_task(SUITE, task).source))
    learned = _PUBLISHED[family]
    step = 16 * learned["batches"] * count * 3 * tower.gflop / 1e3 / TERAFLOPS
    half = tower.name == "ViT-L-14"
    each = tower.weights * 4e6 / 1e9
    names = _HF if family == "hf" else _FOLDERS
    return {
        "name": f"{tower.name.lower()}{own}{many}",
        "tower": tower.name,
        "count": count,
        "family": family,
        "pretrained": tower.pretrained,
        "tasks": fill(f"[{', '.join(tasks)}]", 98, initial_indent="  ", subsequent_indent="   "),
        "names": {task: names[task] for task in tasks if task in names},
        "images": f"{images:,}",
        "images_gb": f"{images * IMAGE_BYTES / 1e9:.0f}",
        "weights_gb": f"{each * count:.1f}",
        "each_gb": f"{each:.2g}",
        "gpu_gb": f"{each * (2 + count * (0.5 if half else 1)):.0f}",
        "teraflops": TERAFLOPS,
        "minutes": f"{max(1, learned['steps'] * step / 60):.0f}",
        "vectors": "float16" if half else "float32",
        "coefficient": f"{round(0.3 * 8 / max(8, count), 2):g}",
        **learned,
        **_source(tower, family),
    }


def _tasks(family: str, count: int) -> list[str]:
    """The first published tasks, or few; `tall_masks` has EMNIST's digits for its letters."""
    names = ROBUSTNESS if count == len(ROBUSTNESS) else task_names(SUITE)[:count]
    digits = {"emnist_letters": "emnist_mnist"} if family == "tall_masks" else {}
    return [digits.get(name, name) for name in names]


def _source(tower: Tower, family: str) -> Mapping[str, str | None]:
    """Where the experts of a family lie."""
    name = tower.name
    hub: str | None
    file: str | None
    if family == "hf":
        return {"hub": tower.pretrained.replace("openai", "tanganke") + "_{name}", "file": None}
    if family == "tall_masks":
        hub, file = "nik-dim/tall_masks", f"{name}/{{name}}Val/nonlinear_finetuned.pt"
    elif name == "ViT-B-32":
        hub, file = "JH-C-k/ViT-B-32", "ViT-B-32_TA/{name}/finetuned.pt"
    elif name == "ViT-L-14":
        hub, file = "JH-C-k/ViT-L-14_TA", "{name}/finetuned.pt"
    else:
        hub, file = None, None
    return {"hub": hub, "file": file, "path": f"checkpoints/{name}/{{name}}/finetuned.pt"}
