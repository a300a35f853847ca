"""All stages up to `robustness` on images that are corrupted at their own size, or came corrupted.

Against pictures corrupted by hand, and what `transformers` makes of them.
"""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from published_suite import add_corrupted, add_images, add_models, image_features, seen, text_head
from stage_project import STAGES, call, refused

from pipeline.conditions import task_seed
from pipeline.corruptions import corrupt
from pipeline.files import read_json
from pipeline.hub import Repository
from pipeline.layout import Layout

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning"),
]
TASKS = ["eurosat", "mnist"]
TWO = ["contrast", "gaussian_noise"]
BEFORE = STAGES[: STAGES.index("robustness")]
METHODS = {"methods": ["pretrained", "task_arithmetic", "experts"]}


def asked(scale, **changes):
    return {
        "tasks": ["eurosat"],
        "corruptions": TWO,
        "severities": [2],
        "scale": scale,
        "images": 100,
        "adapted": {
            "methods": ["adamerging_layerwise"],
            "severity": 2,
            "conditions": ["each", "mixture"],
        },
        **changes,
    }


@pytest.fixture
def layout(project):
    return Layout(project, "x")


@pytest.fixture
def models(empty_hub):
    return add_models(empty_hub, TASKS)


@pytest.fixture
def pictures(empty_hub):
    return add_images(empty_hub, TASKS)


def run_until(stage, capsys):
    for name in (*BEFORE, "robustness", "generalization", "report"):
        assert call(name, capsys) == (0, ""), name
        if name == stage:
            return


def correct(layout, method):
    """bool [corruptions, N]."""
    found = np.load(layout.robustness(0, method))
    assert found["correct"].shape[1:3] == (1, 1)
    return found["correct"][:, 0, 0]


def right(model, models, images, classes):
    """Which images transformers' model classifies correctly."""
    head = text_head(models["pretrained"], "eurosat")
    with torch.inference_mode():
        best = (image_features(models[model], images) @ head.T).argmax(1).numpy()
    return best == classes


def check(layout, models, by_hand):
    """`by_hand`: corruption -> images in the order of `eval`."""
    labels = np.load(layout.labels(0, "eurosat", "eval"))
    for method, model in (("pretrained", "pretrained"), ("experts", "eurosat")):
        found = correct(layout, method)
        for row, name in enumerate(TWO):
            assert np.array_equal(found[row], right(model, models, by_hand[name], labels))
    metrics = read_json(layout.metric("robustness"), "")
    ours = metrics["clean"]["experts"]["cells"]["eurosat"]["gaussian_noise"]["2"]
    assert ours == pytest.approx(100 * correct(layout, "experts")[1].mean(), abs=0.01)
    assert metrics["adapted"].keys() == {"adamerging_layerwise"}
    assert metrics["conditions"].keys() == {"mixture"}


def test_corrupted_at_their_own_size(layout, models, pictures, set_profile, capsys):
    set_profile(robustness=asked("adamerging"), merge=METHODS)
    run_until("report", capsys)
    rows = seen(np.load(layout.images(0, "eurosat", "eval")))[1]
    whole = pictures["eurosat"].pixels.transpose(0, 3, 1, 2)
    by_hand = {}
    for name in TWO:
        own = {"seed": task_seed(0, "eurosat"), "scale": "adamerging"}
        changed = corrupt(np.ascontiguousarray(whole), name, 2, **own)
        by_hand[name] = changed[rows][..., 4:-4]
    check(layout, models, by_hand)
    assert not list(layout.cache.glob("tmp*"))


def test_disjoint_splits(layout, models, pictures, set_profile, capsys):
    set_profile(robustness=asked("adamerging"), merge=METHODS, protocol="inductive")
    run_until("robustness", capsys)
    assert correct(layout, "experts").shape == (2, 12)


def test_ready_made_images(layout, models, pictures, empty_hub, set_profile, capsys, monkeypatch):
    made = add_corrupted(empty_hub, "eurosat", pictures["eurosat"], TWO)
    set_profile(robustness=asked("published"), merge=METHODS)
    learned_on = record_learning(monkeypatch)
    run_until("report", capsys)
    clean = np.load(layout.images(0, "eurosat", "eval"))
    by_hand = {name: images[seen(clean)[1]] for name, images in made.items()}
    check(layout, models, by_hand)
    # Learned on clean images, on each corruption's own, and on a mixture.
    first, contrast, noise, mixture = learned_on[:4]
    assert np.array_equal(first, clean)
    assert np.array_equal(contrast, by_hand[TWO[0]])
    assert np.array_equal(noise, by_hand[TWO[1]])
    kinds = np.array([(mixture == by_hand[name]).all(axis=(1, 2, 3)) for name in TWO])
    assert (kinds.sum(axis=0) == 1).all() and kinds.any(axis=1).all()


def record_learning(monkeypatch):
    """The images of `eurosat` that were learned on, in order."""
    import pipeline.learning

    found, learn = [], pipeline.learning.learn_coefficients

    def recorded(vectors, data, *args, **options):
        found.append(np.array(data.images["eurosat"]))
        return learn(vectors, data, *args, **options)

    monkeypatch.setattr(pipeline.learning, "learn_coefficients", recorded)
    return found


def test_other_ready_made_images_have_other_coefficients(
    layout, models, pictures, empty_hub, set_profile, capsys
):
    add_corrupted(empty_hub, "eurosat", pictures["eurosat"], TWO)
    set_profile(robustness=asked("published"), merge=METHODS)
    run_until("robustness", capsys)
    kept = {path.name for path in (layout.cache / "coefficients").iterdir()}
    assert call("robustness", capsys) == (0, "")
    assert {path.name for path in (layout.cache / "coefficients").iterdir()} == kept
    others = replace(pictures["eurosat"], pixels=pictures["eurosat"].pixels // 3)
    add_corrupted(empty_hub, "eurosat", others, TWO[1:])
    assert call("fetch", capsys, accept=True) == (0, "")
    assert call("robustness", capsys) == (0, "")
    new = {path.name for path in (layout.cache / "coefficients").iterdir()} - kept
    assert len(new) == 3  # of each corruption alone, whose files are hashed together; the mixture


def test_files_that_are_gone_are_told_before_anything_is_computed(
    layout, models, pictures, set_profile, capsys
):
    set_profile(robustness=asked("adamerging"), merge=METHODS)
    for stage in BEFORE:
        assert call(stage, capsys) == (0, ""), stage
    shutil.rmtree(Repository("tanganke/eurosat", "dataset").folder)
    said = refused("robustness", capsys, dry_run=True)
    assert "hold its split 'test'" in said and "run 'dvc repro --force fetch'" in said
    assert call("fetch", capsys) == (0, "")
    assert call("robustness", capsys) == (0, "")
