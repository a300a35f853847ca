"""Whether a profile merges as the published figures were made.

FusionBench's settings are those of its documentation and of its configurations, the AdaMerging
authors' those of their code (https://github.com/EnnengYang/AdaMerging).
"""

from collections.abc import Mapping
from typing import Any

from pipeline.config import Config
from pipeline.merging.methods import METHODS

# What schedule `paper` takes where a profile says nothing; pipeline.learning.schedules needs torch.
PAPER = {"steps": 500, "lr": 1e-3}

_LEARNED: Mapping[str, Any] = {
    "schedule": "paper",
    "lr": PAPER["lr"],
    "batch": 16,
    "images": None,  # all of them
    "initial": 0.3,
    "objective": "entropy",
    "on_collapse": "warn",
}
LEARNED: dict[str, dict[str, Any]] = {  # by checkpoint family
    "hf": {**_LEARNED, "steps": 1000, "batches_per_task": 1, "clamp": False},
    "original": {**_LEARNED, "steps": 500, "batches_per_task": 2, "clamp": True},
}
KEEP = 0.2  # of the entries of a task vector, in AdaMerging++
_ARITHMETIC = {"coefficient": 0.3}
_TIES = {"coefficient": 0.3, "keep": 0.2, "reduce": "sum"}
_IMAGES = {"images": 256, "shrink": 0.95}
MERGED: dict[str, dict[str, dict[str, Any]]] = {  # by checkpoint family and method
    "hf": {
        "task_arithmetic": _ARITHMETIC,
        "ties": _TIES,
        "tsv_m": {"coefficient": 1.0},
        "iso_c": {"coefficient": 1.5},
        "iso_cts": {"coefficient": 1.5, "common": 0.8},
        "wudi": {"solve": "adam", "steps": 400, "lr": 1e-5},
        "fisher": {"images": 256},
        "regmean": _IMAGES,
        "regmean_plus_plus": _IMAGES,
    },
    "original": {"task_arithmetic": _ARITHMETIC, "ties": _TIES},
}
# What no option changes. The layout of family `hf` has one matrix each of queries, keys and values;
# singular vectors, products of matrices and means over tensors depend on that.
_APART = "queries, keys and values in one matrix, published: in three"
_TRAINING = "evaluation images, published: training images"
OTHERWISE: dict[tuple[str, str], tuple[str, ...]] = {
    ("hf", "tsv_m"): (_APART,),
    ("hf", "iso_c"): (_APART,),
    ("hf", "iso_cts"): (_APART,),
    ("hf", "wudi"): (_APART, "pretrained but for linear layers, published: all tensors merged"),
    ("hf", "emr"): (_APART,),
    ("hf", "fisher"): (_TRAINING, "squares of each image's gradients, published: of a batch's sum"),
    ("hf", "regmean"): (_TRAINING,),
    ("hf", "regmean_plus_plus"): (_TRAINING,),
}
# (family, backbone, method): the coefficient was chosen on labels, or the published coefficients
# are larger than the published number of steps can make them.
UNKNOWN = {
    ("original", "ViT-B-32", "ties"),
    ("original", "ViT-L-14", "adamerging_layerwise"),
    ("original", "ViT-L-14", "adamerging_layerwise_pp"),
}
NOT_KNOWN = "the published settings are not known"


def other_settings(config: Config, method: str) -> tuple[str, ...]:
    """How the profile's settings of `method` differ from the published ones; empty: they agree."""
    checkpoint, learn = config.profile.checkpoint, config.profile.learn
    if method in learn.coefficients:
        # The authors' table holds the very coefficients that their figures come from.
        theirs = learn.coefficients[method].path.endswith(".json")
        return () if theirs and checkpoint.family == "original" else ("coefficients from a file",)
    if (checkpoint.family, checkpoint.backbone, method) in UNKNOWN:
        return (NOT_KNOWN,)
    settings = _learned(config, method) if METHODS[method].learns else _merged(config, method)
    if settings is None:
        return (NOT_KNOWN,)
    different = (
        f"{name} {_said(found)}, published: {_said(wanted)}"
        for name, (found, wanted) in settings.items()
        if found != wanted
    )
    return (*different, *OTHERWISE.get((checkpoint.family, method), ()))


Settings = dict[str, tuple[Any, Any]]  # name -> the profile's value, the published one


def _learned(config: Config, method: str) -> Settings | None:
    """All that learning depends on; None if nobody printed it."""
    learn, published = config.profile.learn, LEARNED.get(config.profile.checkpoint.family)
    if published is None:
        return None
    found = {name: getattr(learn, name) for name in published}
    settings = {
        name: (PAPER.get(name) if found[name] is None else found[name], wanted)
        for name, wanted in published.items()
    }
    if METHODS[method].defaults["processing"] == "ties":
        settings["keep"] = (learn.keep, KEEP)
    return settings


def _merged(config: Config, method: str) -> Settings | None:
    """The method's options; None if nobody printed them."""
    defaults = METHODS[method].defaults
    published = MERGED.get(config.profile.checkpoint.family, {}).get(method)
    if published is None:
        return None if defaults else {}
    found = {**defaults, **config.profile.merge.options.get(method, {})}
    return {name: (found[name], wanted) for name, wanted in published.items()}


def _said(value: Any) -> str:
    if value is None:
        return "all"
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else f"{value}"
