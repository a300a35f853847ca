"""Write an exported folder as an MLflow model that any `mlflow models serve` can run."""

import base64
import io
import logging
import os
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from pipeline.checkpoints.contents import OPEN_CLIP_CONFIG
from pipeline.checkpoints.writing import open_arrays
from pipeline.errors import CheckpointError, UserError
from pipeline.exported import HEADS, MADE_BY, WEIGHTS, read_labels
from pipeline.files import need

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

CODE = Path(__file__).with_name("served_model.py")
REQUIRED = ("mlflow", "torch", "open_clip_torch", "safetensors", "pillow", "pandas")
ANY, TOP = "any", 5  # what the served model takes where a request does not say
ANSWER = {"class": "cross", "tasks": ["gtsrb"], "probability": 0.5}  # the types of an answer

_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}


def check_servable(folder: Path) -> tuple[str, ...]:
    """The tasks of an exported folder.

    Raises `UserError` unless it can be served, `CheckpointError` for damaged files.
    """
    tasks = tuple(read_labels(folder))
    if (folder / WEIGHTS["hf"]).exists():
        raise UserError(
            f"{folder} is in the format hf. The server loads open_clip's: export the model again "
            "with --format open_clip."
        )
    need(folder / OPEN_CLIP_CONFIG, MADE_BY)
    open_arrays(folder / WEIGHTS["open_clip"], MADE_BY)
    if missing := [task for task in tasks if task not in open_arrays(folder / HEADS, MADE_BY)]:
        raise CheckpointError(
            f"{folder / HEADS} has no head of {missing[0]}. Run '{MADE_BY}' again."
        )
    return tasks


def save_served(folder: Path, out: Path) -> tuple[str, ...]:
    """Write `folder`, an export in open_clip's format, as an MLflow model to the new folder `out`.

    It holds a copy of the export, the code that runs it, signature, example and the versions of
    what the code needs. Returns the tasks. Raises `UserError` where `folder` is no such export.
    """
    tasks = check_servable(folder)
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's, of its own modules
        from mlflow.pyfunc import save_model

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        save_model(
            str(out),
            python_model=str(CODE),
            artifacts={"model": str(folder)},
            signature=_signature(),
            input_example=_example(),
            pip_requirements=[f"{name}=={version(name)}" for name in REQUIRED],
        )
    return tasks


def request_for(
    images: Sequence[bytes], task: str | None = None, top: int | None = None
) -> dict[str, Any]:
    """The JSON body that asks the server about encoded images, such as the bytes of a PNG file."""
    rows = [{"image": base64.b64encode(content).decode("ascii")} for content in images]
    params = {"task": task, "top": top}
    said = {name: value for name, value in params.items() if value is not None}
    return {"dataframe_records": rows} | ({"params": said} if said else {})


def _signature() -> "ModelSignature":
    """One column in, two parameters, and for each row a list of answers."""
    from mlflow.models import ModelSignature, infer_signature
    from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema

    params = ParamSchema([ParamSpec("task", "string", ANY), ParamSpec("top", "long", TOP)])
    answers = infer_signature(model_output=[[ANSWER]]).outputs
    return ModelSignature(Schema([ColSpec("string", "image")]), answers, params)


def _example() -> Any:
    """A small picture as a request holds it."""
    import pandas as pd

    made = io.BytesIO()
    Image.linear_gradient("L").resize((32, 32)).save(made, "PNG")
    return pd.DataFrame(request_for([made.getvalue()])["dataframe_records"])
