"""The model card of an exported folder: every word of it comes from what the pipeline knows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from pipeline.checkpoints.architecture import VISION
from pipeline.exported import HEADS, LABELS, PROVENANCE, Labels
from pipeline.exporting.formats import LIBRARIES
from pipeline.merging.methods import METHODS

# Of checkpoints whose licence this project knows: those that it made.
LICENCES = {"mini": "apache-2.0"}
CLASSES_SHOWN = 5
ARXIV = "https://arxiv.org/abs/"
HUB = "https://huggingface.co/"

LOADING = {
    "open_clip": """\
model, _, preprocess = open_clip.create_model_and_transforms("local-dir:" + folder)
model.eval()


def features_of(image):
    return model.encode_image(preprocess(image)[None])
""",
    "hf": """\
model = CLIPModel.from_pretrained(folder).eval()
processor = CLIPImageProcessor.from_pretrained(folder)


def features_of(image):
    pixels = processor(images=image, return_tensors="pt")
    return model.visual_projection(model.vision_model(**pixels).pooler_output)
""",
}
IMPORTS = {
    "open_clip": "import open_clip\nimport torch\nfrom PIL import Image\n"
    "from safetensors.torch import load_file\n",
    "hf": "import torch\nfrom PIL import Image\nfrom safetensors.torch import load_file\n"
    "from transformers import CLIPImageProcessor, CLIPModel\n",
}
CLASSIFYING = """\
heads = load_file(f"{{folder}}/{heads}")
with open(f"{{folder}}/{labels}", encoding="utf-8") as file:
    labels = json.load(file)

task, image = {task!r}, Image.open("photo.png")
with torch.no_grad():
    features = torch.nn.functional.normalize(features_of(image), dim=-1)
    logits = model.logit_scale.exp() * features @ heads[task].T
best = logits.softmax(dim=1)[0].topk(min(5, len(heads[task])))
for probability, number in zip(best.values.tolist(), best.indices.tolist()):
    print(f"{{probability:6.1%}}  {{labels[task]['classes'][number]}}")
"""
TEXTS = {
    "open_clip": "The text tower is the pretrained model's, for classes of your own: "
    '`open_clip.get_tokenizer("local-dir:" + folder)` and `model.encode_text` give what the heads '
    "were made with.",
    "hf": "The text tower is the pretrained model's, for classes of your own: "
    "`CLIPTokenizer.from_pretrained(folder)` and `model.get_text_features` give what the heads "
    "were made with.",
}
OWN_WORDS = (
    "The text tower is the pretrained model's, which reads whole words of a vocabulary of its own: "
    f"no tokenizer of {{library}} fits it. Use the heads in `{HEADS}`; classes of your own need "
    "this project."
)


@dataclass(frozen=True)
class Card:
    """What a model card is made of."""

    name: str  # of the folder
    provenance: Mapping[str, Any]
    labels: Mapping[str, Labels]
    architecture: Mapping[str, Any]
    byte_pairs: bool  # whether the model reads CLIP's own tokens
    parameters: int  # of both towers


def model_card(card: Card) -> str:
    """README.md with the front matter that the Hugging Face hub reads."""
    said = card.provenance
    parts = [
        f"---\n{yaml.safe_dump(_front_matter(card), sort_keys=False, allow_unicode=True)}---",
        f"# {said['title']}: one CLIP for {_tasks(len(card.labels))}",
        _what(card),
        f"## Tasks\n\n{_table(card)}",
        f"## Use\n\n{_use(card)}",
        f"## Where it comes from\n\n{_origin(said)}",
        f"## Limits\n\n{_limits(card)}",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(card: Card) -> dict[str, Any]:
    said = card.provenance
    family = said["checkpoint"]["family"]
    bases = [said["checkpoint"]["hub"], *(one["source"] for one in _fetched(said))]
    bases = [base for base in dict.fromkeys(bases) if base]
    front: dict[str, Any] = {
        "license": LICENCES.get(family, "unknown"),
        "library_name": LIBRARIES[said["format"]],
        "pipeline_tag": "zero-shot-image-classification",
        "tags": ["clip", "merge", "model-merging", said["method"].replace("_", "-")],
    }
    return front | ({"base_model": bases, "base_model_relation": "merge"} if bases else {})


def _fetched(said: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The experts that are repositories of the hub."""
    return [one for one in said["experts"].values() if "commit" in one]


def _what(card: Card) -> str:
    said, row = card.provenance, METHODS[card.provenance["method"]]
    vision = VISION | card.architecture["vision_cfg"]
    gelu = "QuickGELU" if card.architecture["quick_gelu"] else "GELU"
    merged = (
        "It is the pretrained model, unchanged."
        if said["method"] == "pretrained"
        else f"Its image tower is merged from {said['checkpoint']['source']} and the experts "
        f"fine-tuned from it, one for each task, by [{said['title']}]({row.paper}): {row.summary}."
    )
    images = "eval" if said["protocol"] == "transductive" else "adapt"
    facts = []
    if row.reads("labels"):
        facts.append("Labels of the `select` images chose its coefficient (**label-tuned**).")
    elif row.reads("images"):
        facts.append(f"It was made with the unlabeled `{images}` images of every task.")
        if said["protocol"] == "transductive":
            facts.append(
                "Those are the images that its accuracy is measured on (**transductive**)."
            )
    return " ".join(
        [
            f"An image classifier for {_tasks(len(card.labels))} in the format of "
            f"{LIBRARIES[said['format']]}.",
            merged,
            *facts,
            f"Images of {vision['image_size']} x {vision['image_size']} pixels, patches of "
            f"{vision['patch_size']}, {gelu}, {card.parameters / 1e6:,.1f} million parameters with "
            "the text tower.",
        ]
    )


def _tasks(count: int) -> str:
    return f"{count} task{'s' if count != 1 else ''}"


def _table(card: Card) -> str:
    accuracy = card.provenance["accuracy"]
    lines = [
        "| Task | Name here | Classes | Images | Accuracy | 95 % interval |",
        "| :-- | :-- | --: | --: | --: | --: |",
    ]
    for task, said in card.labels.items():
        figure = accuracy["tasks"][task] if accuracy else {}
        shown = " | ".join(_figure(figure))
        lines.append(f"| {said.title} | `{task}` | {len(said.classes)} | {shown} |")
    if not accuracy:
        return "\n".join([*lines, "", "Its accuracy was not measured."])
    lines.append(f"| **Average** |  |  | {' | '.join(_figure(accuracy['average']))} |")
    words = [
        "Accuracy in percent on the `eval` images, which took no part in the merge."
        if card.provenance["protocol"] == "inductive"
        else "Accuracy in percent on the `eval` images.",
        "Intervals say how much a figure depends on which images were tested.",
    ]
    if len(accuracy["seeds"]) > 1:
        words.append(
            f"Figures are means over models made in the same way from {len(accuracy['seeds'])} "
            f"seeds; this is that of seed {card.provenance['seed']}."
        )
    return "\n".join([*lines, "", " ".join(words)])


def _figure(figure: Mapping[str, Any]) -> tuple[str, str, str]:
    """Images, value and interval, as a table shows them; blank where it is not known."""
    images, ends, value = (figure.get(key) for key in ("images", "interval", "value"))
    return (
        f"{images:,}" if images else "",
        "" if value is None else f"{value:.1f}",
        f"{ends[0]:.1f} to {ends[1]:.1f}" if ends else "",
    )


def _use(card: Card) -> str:
    form = card.provenance["format"]
    library = LIBRARIES[form]
    task = next(iter(card.labels))
    code = "".join(
        [
            "import json\n\n",
            IMPORTS[form],
            f"\nfolder = {card.name!r}\n",
            LOADING[form],
            "\n\n",
            CLASSIFYING.format(heads=HEADS, labels=LABELS, task=task),
        ]
    )
    words = TEXTS[form] if card.byte_pairs else OWN_WORDS.format(library=library)
    return (
        f"With {library}, torch and safetensors:\n\n```python\n{code}```\n\n"
        f"`{HEADS}` has a tensor for each task, with a row of unit length for each class of "
        f"`{LABELS}`. {words}\n\n"
        f"Or in one line, with adamerge: `adamerge predict photo.png --model {card.name} --task "
        f"{task}`; `--task any` takes the classes of all tasks together."
    )


def _origin(said: Mapping[str, Any]) -> str:
    checkpoint, git = said["checkpoint"], said["git"]
    changed = " with local changes" if git["dirty"] else ""
    rows = {
        "Made by": f"`adamerge export`, profile `{said['profile']}`, method `{said['method']}`, "
        f"seed {said['seed']}, protocol {said['protocol']}",
        "Merged at commit": f"`{git['commit']}`{changed}" if git["commit"] else "not known",
        "Pretrained model": ", ".join(
            [
                f"{checkpoint['source']} (family `{checkpoint['family']}`)",
                *([f"revision `{checkpoint['revision']}`"] if checkpoint["revision"] else []),
                *([f"SHA-256 `{checkpoint['sha256']}`"] if checkpoint["sha256"] else []),
            ]
        ),
        "Experts": ", ".join(f"{one['source']}" for one in said["experts"].values())
        or "fine-tuned by this project",
        "Weights": f"`{said['weights']['file']}`, SHA-256 `{said['weights']['sha256']}`",
    }
    if said["coefficients"]:
        rows["Learned coefficients"] = f"SHA-256 `{said['coefficients']['sha256']}`"
    lines = "\n".join(f"- {what}: {value}" for what, value in rows.items())
    return f"{lines}\n\nThe same for programs: `{PROVENANCE}`."


def _limits(card: Card) -> str:
    said = card.provenance
    family, source = said["checkpoint"]["family"], said["checkpoint"]["source"]
    limits = [
        "It answers with one of the classes listed in its labels, also for an image of none.",
        "It knows these tasks at the price of others: merging can lose accuracy on tasks that took "
        "no part in it.",
        "An EXIF orientation is not applied: turn photographs upright.",
    ]
    if family == "mini":
        limits.insert(
            0,
            "Its tasks are drawn miniatures of the published ones of like names: it is no use for "
            "photographs, and its figures are comparable with no published ones.",
        )
    if (licence := LICENCES.get(family)) is None:
        limits.append(
            f"The licence of {source} and of the experts is not known to the pipeline: look at "
            "their pages before you pass this model on. All of them apply to it."
        )
    else:
        limits.append(f"The pretrained model is this project's own, under {licence}.")
    return "\n".join(f"- {limit}" for limit in limits)


def parameters_of(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """How many numbers there are in tensors of these shapes."""
    return sum(math.prod(shape) for shape in shapes.values())
