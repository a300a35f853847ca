"""A merged CLIP that classifies images: MLflow runs this file as it is ("models from code").

It stands alone: beside MLflow it needs torch, open_clip, safetensors, Pillow and pandas. Its one
artifact, `model`, is a folder that `adamerge export --format open_clip` wrote. No pickle is read.
"""

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel, PythonModelContext
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

ANY = "any"  # stands for the classes of all tasks at once
TOP = 5
BATCH = 64  # images in a forward pass
# Others are refused: PIL hands some of them, such as PostScript, to other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
MOST_BYTES = 50 * 10**6  # of an image as it is sent
MOST_PIXELS = 5 * 10**7  # of an image once unfolded, or of one resized before it is cropped

Classes = list[dict[str, Any]]  # of each row of a head: its words, and the tasks they are of


class Refused(MlflowException):
    """What the server answers with status 400: its message, as it is."""

    def __init__(self, message: str) -> None:
        super().__init__(message, error_code=INVALID_PARAMETER_VALUE)

    @property
    def message(self) -> str:
        """What is wrong, and where."""
        return self._message

    @message.setter
    def message(self, text: str) -> None:
        # The first stays: the server would put all the data before it.
        self._message: str = getattr(self, "_message", text)


class MergedClip(PythonModel):
    """Images, each with its most probable classes."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the exported folder with open_clip's own loader; on the GPU where there is one."""
        folder = Path(context.artifacts["model"])
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model, _, self.transform = open_clip.create_model_and_transforms(
            f"local-dir:{folder}", device=self.device
        )
        self.model.eval()
        size = self.model.visual.image_size
        self.size = size if isinstance(size, int) else max(size)
        heads = load_file(folder / "heads.safetensors", device=self.device)
        labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
        self.heads: dict[str, tuple[Tensor, Classes]] = {
            task: (heads[task], [{"class": word, "tasks": [task]} for word in said["classes"]])
            for task, said in labels.items()
        }
        self.heads[ANY] = joint_head(heads, labels)

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> list[list[dict[str, Any]]]:
        """For each row its most probable classes, the first first: class, tasks, probability.

        `model_input` has the column `image`: files in base64. Parameters: `task`, whose classes
        compete, `any` for those of all tasks; `top`, how many are told. Of `any`, classes that
        tasks ask for with the same sentences are one, of several tasks. What cannot be used is
        refused as a whole, by a `Refused` that names it.
        """
        task, top = (params or {}).get("task", ANY), (params or {}).get("top", TOP)
        if task not in self.heads:
            raise Refused(f"Unknown task '{task}'. Available: {', '.join(self.heads)}.")
        if top < 1:
            raise Refused(f"'top' is {top}: it has to be 1 or more.")
        head, classes = self.heads[task]
        pixels = [self.pixels(row, text) for row, text in enumerate(model_input["image"])]
        answers = []
        for start in range(0, len(pixels), BATCH):
            shares = self.probabilities(torch.stack(pixels[start : start + BATCH]), head)
            best = shares.topk(min(top, len(classes)), dim=1)
            for places, values in zip(best.indices.tolist(), best.values.tolist(), strict=True):
                found = zip(places, values, strict=True)
                answers.append([classes[place] | {"probability": value} for place, value in found])
        return answers

    @torch.inference_mode()
    def probabilities(self, pixels: Tensor, head: Tensor) -> Tensor:
        """softmax [images, classes] on the CPU, of normalised float32 pixels [images, 3, H, W]."""
        features = self.model.encode_image(pixels.to(self.device), normalize=True)
        return (self.model.logit_scale.exp() * features @ head.T).softmax(dim=1).cpu()

    def pixels(self, row: int, text: str) -> Tensor:
        """What the model sees of an image in base64: float32 [3, H, W]."""
        try:
            content = base64.b64decode("".join(text.split()), validate=True)
        except (AttributeError, ValueError):
            raise Refused(f"Image {row} is not in base64: send a file's bytes so.") from None
        if len(content) > MOST_BYTES:
            raise Refused(f"Image {row} is larger than {MOST_BYTES:,} bytes.")
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                self.check_size(row, *image.size)
                return self.transform(image)
        except (Refused, MemoryError):
            raise
        except Image.UnidentifiedImageError:
            known = ", ".join(FORMATS)
            raise Refused(f"Image {row} is no image of a known format ({known}).") from None
        except Exception as error:  # PIL's readers raise whatever the bytes lead them to
            raise Refused(f"Image {row} is broken ({error}).") from None

    def check_size(self, row: int, width: int, height: int) -> None:
        """Refuse an image that would take much memory, before it is unfolded."""
        # A narrow one becomes long when its shorter side is resized.
        resized = self.size**2 * max(width, height) / max(min(width, height), 1)
        if max(width * height, resized) > MOST_PIXELS:
            raise Refused(f"Image {row} has {width} x {height} pixels: send a smaller one.")


def joint_head(
    heads: Mapping[str, Tensor], labels: Mapping[str, Mapping[str, Any]]
) -> tuple[Tensor, Classes]:
    """The classes of all tasks in one head: unit rows [classes, dim].

    Classes that are asked with the same sentences, as the digits of two tasks, share a row, as no
    model can tell them apart. Upper and lower case are the same to CLIP.
    """
    rows: dict[tuple[str, tuple[str, ...]], tuple[Tensor, dict[str, Any]]] = {}
    for task, said in labels.items():
        for word, row in zip(said["classes"], heads[task], strict=True):
            key = (word.casefold(), tuple(said["templates"]))
            _, merged = rows.setdefault(key, (row, {"class": word, "tasks": []}))
            if task not in merged["tasks"]:
                merged["tasks"].append(task)
    head = torch.stack([row for row, _ in rows.values()])
    return head, [said for _, said in rows.values()]


set_model(MergedClip())
