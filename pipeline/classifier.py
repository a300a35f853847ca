"""A merged model with the heads of its tasks: from a profile, or from an exported folder.

    model = load_exported(Path("merged-clip"))
    images = np.stack([preprocessed(path.read_bytes(), model.size) for path in paths])
    for guesses in model.classify(images, "cars", top=5):
        print(guesses[0].word, guesses[0].probability)

torch and open_clip are imported when a model is loaded, so that mistakes in names are said at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.checkpoints.architecture import VISION
from pipeline.checkpoints.writing import open_arrays
from pipeline.errors import CheckpointError, UserError, unknown
from pipeline.exported import HEADS, MADE_BY, Labels, read_labels
from pipeline.layout import Layout
from pipeline.merge_files.inputs import Pretrained, open_pretrained
from pipeline.merging.methods import METHODS
from pipeline.profile_models import check_heads, heads_of, labels_of, pretrained_of, tower_of

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.clip import ImageEncoder
    from pipeline.config import Config
    from pipeline.joint import Joint

ANY = "any"  # stands for the classes of all tasks at once
PREFERRED = "adamerging_layerwise"
BATCH = 128  # images in a forward pass; of more, activations of a CPU leave its caches


def default_method(config: "Config") -> str:
    """The method that is exported, used and served where none is named.

    Layer-wise AdaMerging where the profile has it; else the first of its methods, in the order of
    the methods table, that merges, into one model, without labels. Accuracy has no part in it.
    Raises `UserError` where the profile has no such method.
    """
    if PREFERRED in config.methods:
        return PREFERRED
    for method in config.methods:
        if method != "pretrained" and one_model(method) and not METHODS[method].reads("labels"):
            return method
    raise UserError(
        f"Profile {config.name} has no method that merges into one model without labels: add one "
        f"to profiles/{config.name}.yaml, such as weight_average, or name a method."
    )


def one_model(method: str) -> bool:
    """Whether a method makes one model for all tasks, and nothing that a task has of its own."""
    row = METHODS[method]
    return not (row.reads("task_identity") or row.reads("extra_parameters"))


def check_choice(config: "Config", method: str, seed: int) -> None:
    """Raise `UserError` unless the profile has this method and this seed."""
    if method not in config.methods:
        raise unknown(f"method of profile {config.name}", method, config.methods)
    if seed not in config.profile.seeds:
        known = ", ".join(map(str, config.profile.seeds))
        raise UserError(f"Profile {config.name} has no seed {seed}. Available: {known}.")


def check_task(task: str, known: Sequence[str]) -> None:
    """Raise `UserError`, with the nearest names, unless it is one of the tasks or `ANY`."""
    if task not in (*known, ANY):
        raise unknown("task", task, (*known, ANY))


@dataclass(frozen=True)
class Guess:
    """A class that an image may show."""

    word: str
    tasks: tuple[str, ...]  # that have this class: of `ANY`, several where they ask alike
    probability: float  # among the classes that were asked for


@dataclass(frozen=True)
class Classifier:
    """An image encoder and the heads of its tasks."""

    encoder: "ImageEncoder"
    logit_scale: float
    size: int  # pixels along each side of the images that it takes
    heads: Mapping[str, "Tensor"]  # task -> unit rows [classes, dim], on the encoder's device
    labels: Mapping[str, Labels]  # the same tasks, in the order of their profile

    def classify(self, images: np.ndarray, task: str = ANY, top: int = 5) -> list[list[Guess]]:
        """For each of uint8 images [N, 3, size, size] its most probable classes, the first first.

        `task`: whose classes compete; `ANY`: those of all tasks. Classes that tasks ask for with
        the same sentences are one guess, as no model can tell them apart (`pipeline.joint`). Raises
        `UserError` for an unknown task.
        """
        classes = self.classes(task)
        best = self.probabilities(images, task).topk(min(top, len(classes)), dim=1)
        return [
            [
                Guess(classes[place][0], classes[place][1], share)
                for place, share in zip(places, shares, strict=True)
            ]
            for places, shares in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def probabilities(self, images: np.ndarray, task: str = ANY) -> "Tensor":
        """softmax [N, classes] for uint8 images [N, 3, size, size], in the order of `classes`."""
        from pipeline.predictions import probabilities

        check_task(task, tuple(self.labels))
        head = self._joint.head if task == ANY else self.heads[task]
        if not len(images):
            return head.new_zeros((0, len(head)))
        return probabilities(self.encoder, head, self.logit_scale, images)

    def classes(self, task: str = ANY) -> list[tuple[str, tuple[str, ...]]]:
        """(word, tasks that have it) of each class; raises `UserError` for an unknown task."""
        check_task(task, tuple(self.labels))
        if task != ANY:
            return [(word, (task,)) for word in self.labels[task].classes]
        members: list[list[tuple[str, str]]] = [[] for _ in self._joint.head]
        for name, joint in self._joints.items():
            for number, row in joint.own.nonzero().tolist():
                members[row].append((self.labels[name].classes[number], name))
        return [(held[0][0], tuple(dict.fromkeys(name for _, name in held))) for held in members]

    @cached_property
    def _joints(self) -> "dict[str, Joint]":
        from pipeline.joint import joint_heads

        return joint_heads(self.labels, self.heads)

    @property
    def _joint(self) -> "Joint":
        return next(iter(self._joints.values()))


def load_exported(folder: Path, device: str = "cpu") -> Classifier:
    """The model in a folder that `adamerge export` wrote, in either format.

    Raises `UserError` for another folder, and `CheckpointError` for damaged or foreign files.
    """
    labels = read_labels(folder)
    heads = open_arrays(folder / HEADS, MADE_BY)
    if heads.keys() != labels.keys():
        raise CheckpointError(
            f"{folder / HEADS} has not the tasks of the labels beside it. Run '{MADE_BY}' again."
        )
    pretrained = open_pretrained(folder, None)
    check_heads(heads, labels, pretrained, folder / HEADS)
    return _classifier(pretrained, pretrained.tower, heads, labels, device)


def load_merged(
    config: "Config",
    layout: Layout,
    method: str,
    seed: int,
    task: str = ANY,
    device: str = "cpu",
) -> Classifier:
    """A model of a profile, from the files that its stages wrote.

    `task`: the one that will be asked for. Methods with a model per task load that task's, and
    know no other. Raises `UserError` for an unknown name, or where such a method is not told its
    task; `MissingInput` naming the stage to run; `CheckpointError` for damaged files.
    """
    check_choice(config, method, seed)
    tasks = config.profile.tasks
    check_task(task, tasks)
    if not one_model(method):
        if task == ANY:
            raise UserError(
                f"{METHODS[method].title} has a model for every task: name the task "
                f"(--task {', '.join(tasks)}), or a method that is one model."
            )
        tasks = (task,)
    labels = labels_of(config, layout, tasks)
    pretrained = pretrained_of(layout)
    heads = heads_of(layout, labels, pretrained)
    tower = tower_of(layout, method, seed, task, pretrained)
    return _classifier(pretrained, tower, heads, labels, device)


def _classifier(
    pretrained: Pretrained,
    tower: Mapping[str, Any],
    heads: Mapping[str, np.ndarray],
    labels: Mapping[str, Labels],
    device: str,
) -> Classifier:
    import torch

    return Classifier(
        encoder=_encoder(pretrained, tower).to(device),
        logit_scale=float(np.exp(pretrained.arrays["logit_scale"])),
        size=(VISION | pretrained.architecture["vision_cfg"])["image_size"],
        heads={task: torch.tensor(heads[task], device=device) for task in labels},
        labels=labels,
    )


def _encoder(pretrained: Pretrained, tower: Mapping[str, Any]) -> "ImageEncoder":
    """The image encoder with the weights of `tower`, and what that lacks of `pretrained`."""
    import torch
    from open_clip.model import CLIP

    from pipeline.clip import ImageEncoder

    architecture = pretrained.architecture
    parts = {key: architecture[key] for key in ("embed_dim", "vision_cfg", "text_cfg")}
    with torch.device("meta"):  # no time goes into random values
        visual = CLIP(**parts, quick_gelu=architecture["quick_gelu"]).visual
    encoder = ImageEncoder(visual, architecture["mean"], architecture["std"]).eval()
    held = pretrained.tower
    # Copies: torch's own memory lies at addresses such that sums are rounded alike in every run.
    weights = {
        name: torch.as_tensor((tower if name in tower else held)[name]).clone() for name in held
    }
    encoder.load_state_dict(weights, assign=True)
    return encoder
