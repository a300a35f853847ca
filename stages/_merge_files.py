"""`adamerge merge --method`: checkpoints that lie in files are merged, without a profile."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages._progress import progress_bar, say
from stages._stage import user_errors

if TYPE_CHECKING:
    from pipeline.merge_files import Plan

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{,99}")
DEVICES = ("auto", "cpu", "cuda")


def merge_files(
    given: dict[str, Any], method: str | None, profile: str | None, dry_run: bool
) -> None:
    """Merge by what the command line has `given`: name of an option -> its value."""
    from stages._processes import interruptible

    with user_errors(), interruptible():
        from pipeline.merge_files import merge_files, planned

        _check_given(given, method, profile)
        plan = planned(_request(given, str(method)))
        device = _device(given.get("device", "auto"))
        say(_words(plan, device))
        if dry_run:
            return
        with progress_bar("merging", plan.steps) as update:
            merge_files(plan, device, update)
        say(_written(plan))


def _check_given(given: dict[str, Any], method: str | None, profile: str | None) -> None:
    """Raise `UserError` unless all is there that a merge of files needs, and nothing of a stage."""
    from pipeline.errors import UserError

    if method is None:
        raise UserError(f"--{next(iter(given))} is for a merge of files: say by which --method.")
    if profile is not None:
        raise UserError(
            "--method merges files without a profile: leave out --profile, or leave out --method "
            "to run the stage."
        )
    for name, what in (
        ("pretrained", "the model that the experts were fine-tuned from"),
        ("expert", "name=path of a fine-tuned model, once for each"),
        ("out", "the .safetensors file or the folder to write"),
    ):
        if name not in given:
            raise UserError(f"--method needs --{name}: {what}.")


def _request(given: dict[str, Any], method: str) -> Any:
    from pipeline.errors import UserError
    from pipeline.merge_files import Request

    experts = dict(_pairs("expert", "path", given["expert"]))
    for name in experts:
        if not NAME.fullmatch(name):
            raise UserError(
                f"--expert: '{name}' is no name for a file: use at most 100 letters, digits, '_', "
                "'-' and '.'."
            )
    options = dict(_pairs("option", "value", given.get("option", ())))
    return Request(
        method,
        Path(given["pretrained"]).expanduser(),
        {name: Path(path).expanduser() for name, path in experts.items()},
        Path(given["out"]).expanduser(),
        {name: _value(name, text) for name, text in options.items()},
        given.get("seed", 0),
        given.get("model"),
        given.get("force", False),
    )


def _pairs(option: str, what: str, texts: Iterable[str]) -> Iterable[tuple[str, str]]:
    """(name, rest) of every name=rest; raises `UserError` for another form or a name twice."""
    from pipeline.errors import UserError

    seen = set()
    for text in texts:
        name, equals, rest = text.partition("=")
        if not (name and equals and rest):
            raise UserError(f"--{option} takes name={what}, and not '{text}'.")
        if name in seen:
            raise UserError(f"--{option} names '{name}' twice: once is enough.")
        seen.add(name)
        yield name, rest


def _value(name: str, text: str) -> Any:
    """A number, word or null as YAML has them, but that 1e-5 is a number as well."""
    import yaml

    from pipeline.errors import UserError

    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # the latter for a date such as 2020-13-45
        value = {}
    if isinstance(value, dict | list):
        raise UserError(f"--option {name}: '{text}' is no single value.")
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _device(wanted: str) -> str:
    """What torch calls it."""
    from pipeline.errors import UserError, unknown

    if wanted not in DEVICES:
        raise unknown("device", wanted, DEVICES)
    if wanted == "cpu":
        return wanted
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        raise UserError("--device is cuda but there is no CUDA GPU: leave it out, or say cpu.")
    return "cpu"


def _words(plan: "Plan", device: str) -> str:
    """What will be done."""
    request, output = plan.request, plan.output
    options = ", ".join(f"{name} {value}" for name, value in plan.options.items())
    tensors, parameters = plan.size
    what = {
        "file": "the image encoder, open_clip's names",
        "folder": f"Hugging Face's layout, {plan.output.loaded_by}",
        "tasks": f"{len(output.models)} image encoders, open_clip's names",
    }[output.kind]
    return "\n".join(
        [
            f"merge: {request.method} ({options or 'no options'}), seed {request.seed}, {device}",
            f"  pretrained: {request.pretrained}",
            *(f"  expert {name}: {path}" for name, path in request.experts.items()),
            f"  merged: {tensors} tensors, {parameters:,} parameters",
            f"  written: {request.out}, {output.bytes / 1e6:,.1f} MB ({what})",
        ]
    )


def _written(plan: "Plan") -> str:
    """What was written, and how to load it."""
    out, kind = plan.request.out, plan.output.kind
    if kind == "folder":
        how = f"transformers.{plan.output.loaded_by}.from_pretrained('{out}')"
    else:
        file = out / f"{plan.output.models[0]}.safetensors" if kind == "tasks" else out
        tensors = f"safetensors.torch.load_file('{file}')"
        how = f"clip.load_state_dict({tensors}, strict=False), with a CLIP of open_clip"
    return f"merge: {out} is written. Load it by {how}."
