"""Parameters and profile -> one checked, frozen configuration.

`params.yaml` names the profile and holds what every profile shares; `profiles/<name>.yaml` says
which model, tasks, methods and budgets a run has. Everything that can be wrong without looking at
data is refused here, before anything is fetched or computed.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from pipeline.corruptions import CORRUPTIONS
from pipeline.errors import UserError, unknown
from pipeline.merging.methods import METHODS
from pipeline.tasks import SUITES, task_names


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-3 as text; take it for the number it is."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise PydanticCustomError("twice", "a value is listed twice")
    return values


Model = TypeVar("Model", bound=BaseModel)
Float = Annotated[float, BeforeValidator(_number)]
Positive = Annotated[float, BeforeValidator(_number), Field(gt=0)]
Fraction = Annotated[float, BeforeValidator(_number), Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
Numbers = [Field(strict=False, min_length=1), AfterValidator(_distinct)]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], *Numbers]
Severity = Annotated[int, Field(ge=1, le=5)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Checkpoint(_Section):
    """The pretrained model: a file, the SHA-256 it must have, and the family it belongs to."""

    path: str
    sha256: Sha256
    family: Literal["mini"]


class Data(_Section):
    """Images per task in each split; the splits are disjoint."""

    train: Count  # experts are fine-tuned on these
    adapt: Count  # unlabeled: coefficients are learned on these
    select: Count  # labels allowed, for choices that are reported as such
    eval: Count  # every figure comes from these


class Experts(_Section):
    """Fine-tuning of the image encoder with a frozen zero-shot head: AdamW, cosine schedule."""

    steps: Count
    batch: Count  # images per step
    lr: Positive  # peak learning rate, after a warm-up over a tenth of the steps
    weight_decay: Annotated[float, BeforeValidator(_number), Field(ge=0)]


class File(_Section):
    """A file that a figure rests on, and the SHA-256 it must have."""

    path: str
    sha256: Sha256


class Learning(_Section):
    """The methods that read images: AdaMerging (https://arxiv.org/abs/2310.02575)."""

    methods: Annotated[tuple[str, ...], Field(strict=False)]
    schedule: Literal["paper", "fast"]
    steps: Count | None = None  # at most; absent: the schedule's own
    lr: Positive | None = None  # absent: the schedule's own
    batch: Count  # images per task in a batch
    batches_per_task: Count  # in a step
    initial: Fraction  # every coefficient's first value
    clamp: bool  # to [0, 1]
    objective: Literal[
        "entropy", "normalized_entropy", "diversity", "gated_entropy", "distillation"
    ]
    on_collapse: Literal["warn", "restore"]
    vectors: Literal["float32", "float16", "mapped"]  # how task vectors are kept meanwhile
    memory_gb: Positive | None = None  # for weights, vectors, activations; absent: what is free
    grid: Annotated[tuple[Float, ...], *Numbers]  # for the label-tuned one
    coefficients: dict[str, File] = {}  # method -> a file instead of learning


class Merging(_Section):
    """The methods that read weights only, and what they share."""

    methods: Names
    coefficient: Fraction  # of task arithmetic and TIES
    keep: Annotated[float, BeforeValidator(_number), Field(gt=0, le=1)]  # of TIES


class Adapted(_Section):
    """Methods whose coefficients are also learned on the corrupted images themselves."""

    methods: Annotated[tuple[str, ...], Field(strict=False)]
    severity: Severity


class Robustness(_Section):
    """Corrupted test images (https://arxiv.org/abs/1903.12261)."""

    tasks: Names
    corruptions: Names
    severities: Annotated[tuple[Severity, ...], *Numbers]
    scale: Literal["cifar", "tiny", "imagenet"]  # image size that the constants are made for
    images: Count  # per task, the first of `eval`
    adapted: Adapted


class Split(_Section):
    """One generalization split: merged from `seen`, tested on both."""

    seen: Names
    unseen: Names


class Generalization(_Section):
    """Accuracy on tasks whose experts and images took no part in the merge."""

    methods: Names
    splits: dict[str, Split]


class Profile(_Section):
    """One run: which model, tasks, methods and budgets."""

    suite: str
    checkpoint: Checkpoint
    seeds: Seeds  # of drawn images, splits, fine-tuning and learning; figures are means over them
    protocol: Literal["inductive", "transductive"]
    precision: Literal["auto", "float32", "bfloat16"]  # of forward passes
    processes: Count  # that share learning, evaluation, robustness and generalization
    tasks: Names
    data: Data
    experts: Experts
    learn: Learning
    merge: Merging
    robustness: Robustness
    generalization: Generalization


class Params(_Section):
    """What every profile shares: params.yaml."""

    profile: str
    device: Literal["auto", "cpu", "cuda"]


class Config(_Section):
    """Everything a stage may ask for."""

    root: Path
    device: Literal["auto", "cpu", "cuda"]
    name: str  # of the profile
    profile: Profile

    @property
    def methods(self) -> tuple[str, ...]:
        """Every method of the profile, in the order of the methods table."""
        chosen = {*self.profile.merge.methods, *self.profile.learn.methods}
        return tuple(name for name in METHODS if name in chosen)


def load_config(root: Path, profile: str | None = None) -> Config:
    """Read params.yaml and the profile it names (or `profile`) below the folder `root`.

    Raises `UserError`: missing file, unknown key, wrong type, unknown task, method or corruption.
    """
    params = _parse(Params, _read(root / "params.yaml"), "params.yaml")
    name = profile or params.profile
    path = root / "profiles" / f"{name}.yaml"
    if not path.is_file():
        raise unknown("profile", name, sorted(p.stem for p in path.parent.glob("*.yaml")))
    where = f"profiles/{name}.yaml"
    parsed = _parse(Profile, _read(path), where)
    try:
        _check_names(parsed)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return Config(root=root, device=params.device, name=name, profile=parsed)


def _read(path: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"There is no {path.name} in {path.parent}. Run from the project's root folder."
        ) from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold keys and values.")
    return value


def _parse(model: type[Model], values: dict[str, Any], where: str) -> Model:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
    *parents, key = (str(part) for part in first["loc"])
    name = ".".join([*parents, key])
    if first["type"] == "extra_forbidden":
        raise UserError(f"{where}: {unknown('key', name, _keys(model, parents))}")
    if first["type"] == "missing":
        raise UserError(f"{where}: the key '{name}' is missing.")
    found = f", found {first['input']!r}" if not isinstance(first["input"], dict) else ""
    raise UserError(f"{where}: {name}: {first['msg'].lower()}{found}.")


def _keys(model: Any, parents: list[str]) -> list[str]:
    """The dotted keys that the section at `parents` may have."""
    for parent in parents:
        field = model.model_fields.get(parent) if hasattr(model, "model_fields") else None
        model = field.annotation if field else Split
    prefix = "".join(f"{parent}." for parent in parents)
    return [prefix + key for key in getattr(model, "model_fields", {})]


def _check_names(profile: Profile) -> None:
    """Every name in the profile must be in the table that gives it a meaning."""
    if profile.suite not in SUITES:
        raise unknown("suite", profile.suite, SUITES)
    _each_known("task", profile.tasks, task_names(profile.suite))
    splits = profile.generalization.splits.values()
    for tasks in (profile.robustness.tasks, *((*s.seen, *s.unseen) for s in splits)):
        _each_known("task (of those in 'tasks')", tasks, profile.tasks)
    _each_known("corruption", profile.robustness.corruptions, CORRUPTIONS)
    weights = [name for name, method in METHODS.items() if not method.reads("images")]
    images = [name for name in METHODS if name not in weights]
    _each_known("method (of those that read weights only)", profile.merge.methods, weights)
    _each_known("method (of those that read images)", profile.learn.methods, images)
    unlabeled = [name for name in profile.learn.methods if not METHODS[name].reads("labels")]
    for listed in (profile.robustness.adapted.methods, tuple(profile.learn.coefficients)):
        _each_known("method (of those in 'learn' without labels)", listed, unlabeled)
    single = [
        name
        for name, method in METHODS.items()
        if not (method.reads("labels") or method.reads("task_identity"))
    ]
    _each_known(
        "method (of those with one model, without labels)", profile.generalization.methods, single
    )
    if profile.protocol == "transductive" and (
        tuned := [name for name in profile.learn.methods if METHODS[name].reads("labels")]
    ):
        raise UserError(
            f"protocol 'transductive' refuses choices made with labels: remove {', '.join(tuned)}."
        )


def _each_known(kind: str, names: tuple[str, ...], known: Any) -> None:
    for name in names:
        if name not in known:
            raise unknown(kind, name, known)
    if len(set(names)) < len(names):
        raise UserError(f"A {kind} is listed twice in: {', '.join(names)}.")
