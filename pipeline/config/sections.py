"""The sections of a profile and of params.yaml, each with the types that its values must have."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-3 as text; take it for the number it is."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _texts(value: Any) -> Any:
    """YAML reads a class folder called 0 as a number."""
    if not isinstance(value, dict):
        return value
    return {str(name) if type(name) is int else name: word for name, word in value.items()}


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise PydanticCustomError("twice", "a value is listed twice")
    return values


def _amount(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < MOST:
        raise PydanticCustomError("amount", "must be a number of images, or a share of them")
    return value


# Published image towers and how sources spell them.
_BACKBONES = {
    "ViT-B-32": r"vit-b-32|clip-vit-base-patch32",
    "ViT-B-16": r"vit-b-16|clip-vit-base-patch16",
    "ViT-L-14": r"vit-l-14(?!-336)|clip-vit-large-patch14(?!-336)",
}


def _backbone(*places: str | None) -> str | None:
    words = " ".join(place for place in places if place).lower()
    found = (name for name, look in _BACKBONES.items() if re.search(rf"({look})(?![0-9])", words))
    return next(found, None)


MOST = 2**31  # above every number and seed
Float = Annotated[float, BeforeValidator(_number)]
Positive = Annotated[float, BeforeValidator(_number), Field(gt=0)]
NotNegative = Annotated[float, BeforeValidator(_number), Field(ge=0)]
Fraction = Annotated[float, BeforeValidator(_number), Field(ge=0, le=1)]
Share = Annotated[float, BeforeValidator(_number), Field(gt=0, le=1)]
Amount = Annotated[Any, BeforeValidator(_number), AfterValidator(_amount)]
Count = Annotated[int, Field(ge=1, lt=MOST)]
Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
Numbers = [Field(strict=False, min_length=1), AfterValidator(_distinct)]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0, lt=MOST)], ...], *Numbers]
Words = Annotated[dict[str, str], BeforeValidator(_texts)]
Options = dict[str, Annotated[Any, BeforeValidator(_number)]]
Severity = Annotated[int, Field(ge=1, le=5)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Family = Literal["mini", "hf", "original", "tall_masks", "own"]


class Section(BaseModel):
    """Keys and values, each of its type, and no others."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Checkpoint(Section):
    """The pretrained CLIP: a repository of the hub or a path, and the family it belongs to."""

    family: Family
    hub: str | None = None  # owner/name
    revision: str = "main"  # of the repository: a branch, or a commit
    path: str | None = None  # a file or a folder, relative to the project's root
    sha256: Sha256 | None = None  # that the file must have
    model: str | None = None  # open_clip's name of the architecture, where the file does not say it

    @property
    def backbone(self) -> str | None:
        """Which of the published image towers this is, as far as its names tell."""
        return _backbone(self.hub, self.path, self.model)


class OwnExpert(Section):
    """Where the expert of a task of one's own comes from."""

    hub: str | None = None
    revision: str = "main"
    file: str | None = None  # in the repository; absent: its weights in safetensors
    path: str | None = None


class OwnTask(Section):
    """A task of one's own: a folder of images with a sub-folder per class, or a list of files."""

    images: str
    title: str | None = None
    classes: Words | None = None  # sub-folder -> words; absent: the sub-folders' names
    templates: Names  # sentences with one "{}" for the class
    expert: OwnExpert | None = None  # absent: fine-tuned here


class Data(Section):
    """Disjoint splits: numbers of images to draw, or shares of each task's test split."""

    train: Amount | None = None  # experts are fine-tuned on these
    adapt: Amount  # unlabeled: coefficients are learned on these
    select: Amount  # labels allowed, for choices that are reported as such
    eval: Amount  # every figure comes from these
    revisions: dict[str, str] = {}  # task -> branch or commit of its data set, instead of main

    @property
    def sizes(self) -> dict[str, int | float | None]:
        """split -> number or share of images."""
        return {"train": self.train, "adapt": self.adapt, "select": self.select, "eval": self.eval}


class Finetuning(Section):
    """Fine-tuning of the image encoder with a frozen zero-shot head: AdamW, cosine schedule.

    What is left out is that of the task-arithmetic authors, whose experts had some 2,000 steps each
    (https://arxiv.org/abs/2212.04089).
    """

    steps: Count = 2000
    batch: Count = 128  # images per step
    lr: Positive = 1e-5  # peak learning rate
    weight_decay: NotNegative = 0.1
    warm_up: Annotated[int, Field(ge=0, lt=MOST)] = 500  # steps in which the rate rises
    clip: Positive | None = 1.0  # the gradient's greatest norm; null: as it is
    augmentation: Literal["crop", "shift"] = "crop"


class Experts(Section):
    """Fine-tuned experts: where they are fetched from, and the recipe of those made here."""

    hub: str | None = None  # owner/name, with {name} for the task
    revision: str = "main"
    file: str | None = None  # in the repository, with {name}; absent: its weights in safetensors
    path: str | None = None  # a file or a folder, with {name}
    revisions: dict[str, str] = {}  # task -> revision, where it is not that of the others
    names: dict[str, str] = {}  # task -> what the source calls it, where that differs
    finetuning: Finetuning | None = None

    @property
    def backbone(self) -> str | None:
        """As of `Checkpoint`."""
        return _backbone(self.hub, self.path, self.file)


class File(Section):
    """A file that a figure rests on, and the SHA-256 it must have."""

    path: str
    sha256: Sha256


class Learning(Section):
    """The methods that learn or choose coefficients: AdaMerging (https://arxiv.org/abs/2310.02575)."""

    methods: Annotated[tuple[str, ...], Field(strict=False)]
    schedule: Literal["paper", "fast"]
    steps: Count | None = None  # at most; absent: the schedule's own
    lr: Positive | None = None  # absent: the schedule's own
    batch: Count  # images per task in a batch
    batches_per_task: Count  # in a step
    images: Count | None = None  # unlabeled ones per task, at most; absent: all that there are
    initial: Fraction  # every coefficient's first value
    clamp: bool  # to [0, 1]
    keep: Share  # of a task vector's entries, of the ++ variants
    objective: Literal[
        "entropy", "normalized_entropy", "diversity", "gated_entropy", "distillation"
    ]
    on_collapse: Literal["warn", "restore"]
    vectors: Literal["float32", "float16", "mapped"]  # how task vectors are kept meanwhile
    memory_gb: Positive | None = None  # for weights, vectors, activations; absent: what is free
    grid: Annotated[tuple[Float, ...], *Numbers]  # for the label-tuned one
    coefficients: dict[str, File] = {}  # method -> a file instead of learning


class Merging(Section):
    """The methods that learn no coefficients, and what is not as their papers have it."""

    methods: Names
    options: dict[str, Options] = {}  # method -> its options; absent: the published ones


class Adapted(Section):
    """Methods whose coefficients are also learned on corrupted images."""

    methods: Annotated[tuple[str, ...], Field(strict=False)]
    severity: Severity  # one of `severities`
    conditions: Names = ("each",)  # of `pipeline.conditions`


class Robustness(Section):
    """Corrupted test images (https://arxiv.org/abs/1903.12261)."""

    tasks: Names
    corruptions: Names
    severities: Annotated[tuple[Severity, ...], *Numbers]
    # The image size that the constants are made for; adamerging: those for 32 pixels on images of
    # any size, before they are resized; published: splits of the hub that come corrupted.
    scale: Literal["cifar", "tiny", "imagenet", "adamerging", "published"]
    images: Count  # per task, the first of `eval`
    adapted: Adapted


class Split(Section):
    """One generalization split: merged from `seen`, tested on both."""

    seen: Names
    unseen: Names


class Generalization(Section):
    """Accuracy on tasks whose experts and images took no part in the merge."""

    methods: Names
    splits: dict[str, Split]
    leave_two_out: bool = False  # also every pair of tasks in turn


class Profile(Section):
    """One run: which model, tasks, methods and budgets."""

    suite: str
    checkpoint: Checkpoint
    seeds: Seeds  # of drawn images, splits, fine-tuning and learning; figures are means over them
    protocol: Literal["inductive", "transductive"]
    precision: Literal["auto", "float32", "bfloat16"]  # of forward passes
    processes: Count  # that share learning, evaluation, robustness and generalization
    tasks: Names
    own_tasks: dict[str, OwnTask]
    data: Data
    experts: Experts
    learn: Learning
    merge: Merging
    robustness: Robustness
    generalization: Generalization


class Params(Section):
    """What every profile shares: params.yaml."""

    profile: str
    device: Literal["auto", "cpu", "cuda"]
