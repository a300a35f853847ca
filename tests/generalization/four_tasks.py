"""The profile that the stage's tests run: four tasks, two splits and all pairs."""

from pathlib import Path

import yaml

TASKS = ["cars", "svhn", "mnist", "dtd"]
SPLITS = {
    "unseen_dtd": {"seen": ["mnist", "cars"], "unseen": ["dtd"]},
    # The same merge, and one of the pairs left out.
    "unseen_svhn_dtd": {"seen": ["mnist", "cars"], "unseen": ["svhn", "dtd"]},
}


def write_profile(folder: Path, **generalization: object) -> None:
    """Four tasks, two seeds."""
    path = folder / "profiles" / "ci.yaml"
    profile = yaml.safe_load(path.read_text(encoding="utf-8"))
    profile |= {"tasks": TASKS, "seeds": [0, 1]}
    profile["data"] |= {"train": 64, "eval": 60}
    # Experts far enough from the pretrained model that every merge classifies otherwise.
    profile["experts"]["finetuning"] |= {"steps": 30, "batch": 16, "lr": 0.02}
    profile["generalization"] = {
        "methods": ["ties", "adamerging_layerwise"],
        "splits": SPLITS,
        "leave_two_out": True,
        **generalization,
    }
    path.write_text(yaml.safe_dump(profile), encoding="utf-8")
