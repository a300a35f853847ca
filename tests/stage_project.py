"""A project folder with a tiny model, and what its stages say."""

import importlib
import json
import shutil

import torch
import typer
import yaml
from tiny import ARCHITECTURE, ROOT

from pipeline.checkpoints.weights import save_weights
from pipeline.clip import build_clip
from pipeline.config import load_config
from pipeline.files import sha256, write_json
from pipeline.layout import Layout
from pipeline.tasks.words import write_words
from stages._drawing import draw_task

STAGES = (
    *("fetch", "experts", "vectors", "learn", "merge"),
    *("evaluate", "robustness", "generalization", "report"),
)
TASKS = ["cars", "dtd"]
SEED = 1  # of the model's weights


def enter(folder, empty_store, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    database = folder.parent / f"{folder.name}.db"
    shutil.copy(empty_store, database)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")


def write_project(folder):
    """params.yaml, profiles/ci.yaml and zoo/mini-clip.safetensors."""
    from pipeline.tasks.mini.corpus import vocabulary

    words = vocabulary()
    text = ARCHITECTURE["text_cfg"] | {"context_length": 12}
    architecture = ARCHITECTURE | {"text_cfg": text}
    checkpoint = folder / "zoo" / "mini-clip.safetensors"
    facts = {"architecture": json.dumps(architecture), "vocabulary": json.dumps(words)}
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        clip = build_clip(architecture, words, 20.0)
    save_weights(checkpoint, clip.model.state_dict(), facts)

    profile = yaml.safe_load((ROOT / "profiles" / "ci.yaml").read_text(encoding="utf-8"))
    profile["checkpoint"]["sha256"] = sha256(checkpoint)
    profile["tasks"] = TASKS
    profile["data"] = {"train": 16, "adapt": 10, "select": 8, "eval": 12}
    profile["experts"]["finetuning"] |= {"steps": 2, "batch": 4}
    profile["learn"] |= {"steps": 3, "batch": 4, "grid": [0.1, 0.3]}
    profile["learn"]["methods"] = ["adamerging_layerwise", "task_arithmetic_tuned"]
    profile["robustness"] |= {"tasks": ["cars"], "corruptions": ["contrast"], "images": 6}
    splits = {"unseen_dtd": {"seen": ["cars"], "unseen": ["dtd"]}}
    methods = ["ties", "adamerging_layerwise"]
    profile["generalization"] = {"methods": methods, "splits": splits}
    (folder / "profiles").mkdir()
    (folder / "profiles" / "ci.yaml").write_text(yaml.safe_dump(profile), encoding="utf-8")
    (folder / "params.yaml").write_text("profile: ci\ndevice: cpu\n", encoding="utf-8")


def write_inputs(folder):
    """What `fetch` writes, without its worker processes."""
    config, layout = load_config(folder), Layout(folder, "ci")
    layout.pretrained.parent.mkdir(parents=True)
    shutil.copy(folder / config.profile.checkpoint.path, layout.pretrained)
    for task in TASKS:
        draw_task(layout, config.profile.data.sizes, 0, task)
    write_words(layout.tasks, [config.task(name) for name in TASKS])
    write_json(layout.sources, {})
    return layout


def call(name, capsys, **options):
    """Exit code and what a stage prints on stderr; any other exception than an exit gets out."""
    capsys.readouterr()
    try:
        importlib.import_module(f"stages.{name}").main(**options)
        code = 0
    except typer.Exit as end:
        code = end.exit_code
    return code, capsys.readouterr().err


def refused(name, capsys, **options):
    """The one sentence with which a stage refuses."""
    code, error = call(name, capsys, **options)
    assert code == 2, error
    assert error.startswith("Error: ") and error.count("\n") == 1
    assert error.rstrip()[-1] in ".?"
    return error


def tree(folder):
    """Every file with its content's hash, without MLflow's lock."""
    return {
        path.relative_to(folder).as_posix(): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


def half_written(folder):
    return [path for path in folder.rglob(".*") if path.is_file() and path.suffix != ".lock"]
