"""Checkpoints and tasks of one's own in a profile: what is refused before anything is fetched."""

import pytest
import yaml
from tiny import ROOT

from pipeline.config import load_config, profile_names
from pipeline.config.suites import profile_texts
from pipeline.errors import UserError

FLOWERS = {"images": "photos/flowers", "templates": ["a photo of a {}, a flower."]}


@pytest.fixture
def load(tmp_path):
    """Load a copy of a profile of the repository with some dotted keys set."""

    def load(changes, name="vit-b-32"):
        profile = yaml.safe_load((ROOT / "profiles" / f"{name}.yaml").read_text(encoding="utf-8"))
        for path, value in changes.items():
            *parents, key = path.split(".")
            section = profile
            for parent in parents:
                section = section[parent]
            section[key] = value
            if value is None:
                del section[key]
        (tmp_path / "profiles").mkdir(exist_ok=True)
        (tmp_path / "profiles" / "x.yaml").write_text(yaml.safe_dump(profile), encoding="utf-8")
        (tmp_path / "params.yaml").write_text("profile: x\ndevice: cpu\n", encoding="utf-8")
        return load_config(tmp_path)

    return load


def own(**more):
    return {
        "checkpoint.family": "own",
        "tasks": ["cars", "flowers"],
        "own_tasks": {"flowers": FLOWERS | more},
        "robustness.tasks": ["cars"],
        "experts.names": {},
        "generalization.splits": {},
    }


@pytest.mark.parametrize("name", [name for name in profile_names(ROOT) if name.startswith("vit")])
def test_profiles_of_the_published_suites_are_those_of_the_table(name):
    text = (ROOT / "profiles" / f"{name}.yaml").read_text(encoding="utf-8")
    assert text == profile_texts()[f"{name}.yaml"], "run 'make profiles'"


def test_there_is_a_profile_for_every_tower_family_and_number_of_tasks():
    found = {}
    for name in profile_names(ROOT):
        profile = load_config(ROOT, name).profile
        if profile.suite == "hub":
            tower = profile.checkpoint.backbone
            found.setdefault((tower, profile.checkpoint.family), []).append(len(profile.tasks))
            assert profile.experts.backbone == tower
    towers = ("ViT-B-32", "ViT-B-16", "ViT-L-14")
    wanted = {
        (tower, family): [8] if family == "original" else [8, 14, 20]
        for tower in towers
        for family in ("hf", "original", "tall_masks")
    }
    for family in ("hf", "original"):  # robustness is printed of four merged tasks
        wanted["ViT-B-32", family].insert(0, 4)
        name = "vit-b-32-4" if family == "hf" else "vit-b-32-original-4"
        four = load_config(ROOT, name).profile
        assert four.tasks == four.robustness.tasks == ("cars", "eurosat", "resisc45", "gtsrb")
    assert {key: sorted(counts) for key, counts in found.items()} == wanted


def test_a_lock_is_no_profile(tmp_path):
    (tmp_path / "profiles").mkdir()
    for name in ("a.yaml", "a.lock.yaml"):
        (tmp_path / "profiles" / name).touch()
    assert profile_names(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"experts.hub": "nik-dim/tall_masks", "experts.file": "ViT-B-32/{name}Val/x.pt"},
            "family 'tall_masks' but checkpoint.family is 'hf'",
        ),
        (
            {"experts.hub": "JH-C-k/ViT-B-32", "experts.file": "ViT-B-32_TA/{name}/finetuned.pt"},
            "of the family 'original' but",
        ),
        (
            {"experts.hub": "JH-C-k/ViT-B-32", "experts.file": "ViT-B-32/{name}Val/x.pt"},
            "of the family 'tall_masks' but",
        ),
        (
            {"experts.hub": "tanganke/clip-vit-base-patch16_{name}"},
            "these are ViT-B-16 and the pretrained model is ViT-B-32",
        ),
        ({"checkpoint.hub": "openai/clip-vit-large-patch14"}, "pretrained model is ViT-L-14"),
        ({"checkpoint.family": "mini"}, "the family 'mini' belongs to the suite 'mini'"),
        ({"checkpoint.path": "a/file"}, "checkpoint has both of 'hub' and 'path'"),
        ({"checkpoint.hub": None}, "checkpoint has neither of 'hub' and 'path'"),
        ({"checkpoint.hub": "clip"}, "checkpoint.hub must be owner/name, found 'clip'"),
        ({"experts.hub": None}, "experts.hub or experts.path"),
        ({"experts.path": "a/{name}.pt"}, "experts has both"),
        ({"experts.hub": "tanganke/clip-vit-base-patch32_cars"}, "put {name} where"),
        ({"experts.hub": "tanganke/clip-vit-base-patch32_{task}"}, "only placeholder is {name}"),
        ({"experts.names": {"carss": "x"}}, "'carss'. Did you mean cars?"),
        ({"data.adapt": 0.6}, "together more than 1"),
        ({"data.eval": 500}, "data: give shares"),
        ({"data.eval": True}, "data.eval: must be a number of images, or a share"),
        ({"own_tasks": {"flowers": FLOWERS}}, "of the family 'own'"),
        (own(), "give experts.finetuning a recipe ({} is the published one)"),
        (own(templates=["a photo"]), "'a photo' must hold {} once"),
        (own(templates=["a {} {name}"]), "must hold {} once"),
        (own(expert={"hub": "a/b", "path": "c"}), "own_tasks.flowers.expert has both"),
        ({"own_tasks": {"Flowers": FLOWERS}}, "'Flowers' is no name"),
        ({"own_tasks": {"cars": FLOWERS}}, "'cars' is a task of the suite"),
        ({"own_tasks": {"any": FLOWERS}}, "'any' means all tasks"),
        ({"own_tasks": {"flowers": {"images": "x"}}}, "own_tasks.flowers.templates' is missing"),
    ],
)
def test_what_cannot_be_fetched_or_merged_is_refused(load, changes, sentence):
    with pytest.raises(UserError) as error:
        load(changes)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_the_miniature_is_drawn_and_fine_tuned_here(load):
    with pytest.raises(UserError, match="whole number for each"):
        load({"data.train": 0.5}, "mini")
    with pytest.raises(UserError, match=r"give experts\.finetuning"):
        load({"experts": {}}, "mini")
    with pytest.raises(UserError, match=r"needs checkpoint\.path and checkpoint\.sha256"):
        load({"checkpoint.sha256": None}, "mini")
    config = load({}, "mini")
    assert config.trained == config.profile.tasks


def test_a_task_of_ones_own_beside_the_published(load):
    config = load(own(classes={0: "zero", "daisy": "daisy flower"}) | {"experts.finetuning": {}})
    recipe = config.profile.experts.finetuning
    assert (recipe.batch, recipe.lr, recipe.warm_up, recipe.clip) == (128, 1e-5, 500, 1.0)
    assert config.trained == ("flowers",)
    task = config.task("flowers")
    assert (task.title, task.suite) == ("Flowers", "own")
    assert task.classes == ("zero", "daisy flower") and task.labels == ("0", "daisy")
    assert config.task("cars").suite == "hub"
    fetched = load(own(expert={"hub": "me/flowers"}, title="My flowers"))
    assert fetched.trained == ()
    assert fetched.task("flowers").title == "My flowers"
    assert fetched.task("flowers").classes == ()  # the folder says them
