"""Profiles: those that ship load, and every mistake is named with a way out."""

import re
from pathlib import Path

import pytest
import yaml

from pipeline.config import load_config, profile_names
from pipeline.errors import UserError
from pipeline.merging.methods import METHODS
from pipeline.tasks import task_names

ROOT = Path(__file__).resolve().parent.parent
PROFILES = profile_names(ROOT)


@pytest.fixture
def root(tmp_path):
    """A project folder with params.yaml and profiles/mini.yaml."""
    (tmp_path / "profiles").mkdir()
    for name in ("params.yaml", "profiles/mini.yaml"):
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    return tmp_path


@pytest.fixture
def changed(root):
    """Load the miniature's profile with the key at a dotted path set, or removed if None."""

    def load(path, value):
        profile = yaml.safe_load((root / "profiles" / "mini.yaml").read_text(encoding="utf-8"))
        *parents, key = path.split(".")
        section = profile
        for parent in parents:
            section = section[parent]
        section[key] = value
        if value is None:
            del section[key]
        (root / "profiles" / "mini.yaml").write_text(yaml.safe_dump(profile), encoding="utf-8")
        return load_config(root).profile

    return load


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_of_the_repository_load(name):
    config = load_config(ROOT, name)
    assert config.name == name
    assert set(config.methods) == {*config.profile.merge.methods, *config.profile.learn.methods}
    assert list(config.methods) == [name for name in METHODS if name in config.methods]


def test_params_name_the_profile_and_an_argument_overrides(root):
    (root / "profiles" / "other.yaml").write_bytes((root / "profiles" / "mini.yaml").read_bytes())
    assert load_config(root).name == "mini"
    assert load_config(root, "other").name == "other"


def test_the_miniature_runs_every_task_and_the_study_every_method():
    assert load_config(ROOT, "mini").profile.tasks == task_names("mini")
    config = load_config(ROOT, "study")
    assert config.profile.tasks == task_names("mini")
    assert set(config.methods) == set(METHODS) - {"slerp"}  # which merges two experts


@pytest.mark.parametrize(
    ("path", "suggested"),
    [
        ("sedes", "seeds"),
        ("learn.stepps", "learn.steps"),
        ("robustness.adapted.severty", "robustness.adapted.severity"),
        ("generalization.splits.unseen_mnist_eurosat.sen", ".seen"),
    ],
)
def test_unknown_keys_come_with_a_suggestion(changed, path, suggested):
    with pytest.raises(UserError) as error:
        changed(path, 1)
    assert f"profiles/mini.yaml: Unknown key '{path}'. Did you mean" in str(error.value)
    assert suggested in str(error.value).split("Available")[0]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("learn.steps", "many"),
        ("learn.steps", 2.5),
        ("learn.steps", 0),
        ("learn.steps", True),
        ("learn.batch", "fast"),
        ("learn.batch", 0),
        ("learn.batch", float("inf")),
        ("learn.grid", [float("nan")]),
        ("learn.initial", 1.5),
        ("learn.keep", 0),
        ("merge.options", {"ties": 0.2}),
        ("experts.finetuning.lr", -1e-3),
        ("checkpoint.sha256", "abc"),
        ("checkpoint.family", "minni"),
        ("protocol", "transductif"),
        ("robustness.scale", "cifra"),
        ("robustness.severities", [6]),
        ("robustness.severities", []),
        ("seeds", []),
        ("seeds", [-1]),
        ("tasks", []),
        ("tasks", "mnist"),
        ("data", 5),
        ("learn.grid", [0.1, "x"]),
    ],
)
def test_wrong_values_are_named(changed, path, value):
    with pytest.raises(UserError, match=rf"profiles/mini\.yaml: {path}") as error:
        changed(path, value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "path", ["seeds", "learn.batch", "robustness.adapted", "checkpoint.family"]
)
def test_missing_keys_are_named(changed, path):
    with pytest.raises(UserError, match=f"the key '{path}' is missing"):
        changed(path, None)


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("suite", "minni", "Unknown suite 'minni'. Did you mean mini?"),
        ("tasks", ["mnits"], "Unknown task 'mnits'. Did you mean mnist?"),
        ("robustness.tasks", ["catrs"], "'catrs'. Did you mean cars?"),
        ("robustness.corruptions", ["pixellate"], "'pixellate'. Did you mean pixelate"),
        ("merge.methods", ["ties_merging"], "'ties_merging'. Did you mean ties?"),
        (
            "merge.methods",
            ["adamerging_layerwise"],
            "that learn no coefficients) 'adamerging_layerwise'.",
        ),
        ("learn.methods", ["adamerging_layer"], "Did you mean adamerging_layerwise"),
        ("learn.methods", ["ties"], "that learn coefficients) 'ties'."),
        ("merge.options", {"tise": {"keep": 0.1}}, "in merge.options 'tise'. Did you mean ties"),
        ("merge.options", {"dare": {"drop": 0.1}}, "(of those in 'merge') in merge.options 'dare'"),
        ("merge.options", {"ties": {"kep": 0.1}}, "option of ties 'kep'. Did you mean keep?"),
        ("robustness.adapted.methods", ["ties"], "without labels) 'ties'."),
        ("generalization.methods", ["tie"], "'tie'. Did you mean ties"),
        ("generalization.methods", ["experts"], "(of those with one model, without labels)"),
        ("generalization.methods", ["task_arithmetic_tuned"], "'task_arithmetic_tuned'."),
        (
            "generalization.splits.unseen_mnist_eurosat.unseen",
            ["mnits"],
            "'mnits'. Did you mean mnist?",
        ),
    ],
)
def test_unknown_names_come_with_a_suggestion(changed, path, value, sentence):
    with pytest.raises(UserError) as error:
        changed(path, value)
    assert str(error.value).startswith("profiles/mini.yaml: Unknown")
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("merge.options", {"ties": {"keep": 1.5}}, "ties: keep is 1.5: give a number above 0"),
        ("merge.options", {"ties": {"keep": "x"}}, "ties: keep is 'x': give a number above 0"),
        ("merge.methods", ["slerp"], "slerp merges 2 experts, and here are 8"),
    ],
)
def test_options_of_merging_are_checked(changed, path, value, sentence):
    with pytest.raises(UserError) as error:
        changed(path, value)
    assert str(error.value).startswith("profiles/mini.yaml: ")
    assert sentence in str(error.value)


def test_an_option_without_a_dot_is_a_number(changed):
    found = changed("merge.options", {"task_arithmetic": {"coefficient": "3e-1"}})
    assert found.merge.options["task_arithmetic"] == {"coefficient": 0.3}


def test_tasks_of_robustness_must_be_tasks_of_the_profile(changed):
    with pytest.raises(UserError, match=r"task \(of those in 'tasks'\) 'cars'"):
        changed("tasks", ["mnist", "dtd"])


@pytest.mark.parametrize(
    ("path", "value", "double"),
    [
        ("tasks", [*task_names("mini"), "dtd"], "dtd"),
        ("merge.methods", ["ties", "ties"], "ties"),
        ("robustness.corruptions", ["contrast", "contrast"], "contrast"),
        ("robustness.severities", [1, 3, 3], "3"),
        ("seeds", [0, 1, 0], "0"),
        ("learn.grid", [0.1, 0.1], "0.1"),
    ],
)
def test_duplicates_are_refused(changed, path, value, double):
    with pytest.raises(UserError, match="twice") as error:
        changed(path, value)
    assert double in str(error.value)


def test_a_task_is_not_seen_and_unseen(changed):
    with pytest.raises(UserError, match="mnist"):
        changed("generalization.splits.unseen_mnist_eurosat.seen", ["cars", "mnist"])


def test_an_adapted_method_must_be_learned_and_without_labels(changed):
    with pytest.raises(UserError, match="'adamerging_layerwise'"):
        changed("learn.methods", ["adamerging_taskwise"])


def test_a_choice_by_labels_cannot_adapt_to_corrupted_images(changed):
    with pytest.raises(UserError, match="'task_arithmetic_tuned'"):
        changed("robustness.adapted.methods", ["task_arithmetic_tuned"])


def test_transductive_refuses_choices_made_with_labels(changed):
    with pytest.raises(UserError, match=r"'transductive' refuses.*remove task_arithmetic_tuned"):
        changed("protocol", "transductive")


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.0e-3", ".001"])
def test_numbers_without_a_dot_are_numbers(root, text):
    path = root / "profiles" / "mini.yaml"
    path.write_text(re.sub(r"lr: 5\.0e-4", f"lr: {text}", path.read_text(encoding="utf-8")))
    assert load_config(root).profile.experts.finetuning.lr == 0.001


def test_a_configuration_cannot_be_changed(root):
    with pytest.raises(ValueError, match="frozen"):
        load_config(root).profile.learn.steps = 3


def test_unknown_profile_missing_and_broken_files(root):
    with pytest.raises(UserError, match=r"profile 'minni'\. Did you mean mini\?"):
        load_config(root, "minni")
    (root / "profiles" / "mini.yaml").write_text("a: [1")
    with pytest.raises(UserError, match=r"mini\.yaml is not valid YAML"):
        load_config(root)
    (root / "profiles" / "mini.yaml").write_text("- a")
    with pytest.raises(UserError, match="must hold keys and values"):
        load_config(root)
    (root / "params.yaml").write_text("profile: mini\ndevice: gpu\n")
    with pytest.raises(UserError, match=r"params\.yaml: device: .*'gpu'"):
        load_config(root)
    (root / "params.yaml").unlink()
    with pytest.raises(UserError, match=r"no params\.yaml in .* project's root folder"):
        load_config(root)


@pytest.mark.parametrize("file", ["params.yaml", *(f"profiles/{name}.yaml" for name in PROFILES)])
def test_every_key_is_explained(file):
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    explained, bare = {}, []
    for number, line in enumerate(lines):
        if key := re.match(r"( *)([\w-]+):", line):
            depth = len(key[1])
            sections = [told for start, told in explained.items() if start < depth]
            above = number > 0 and lines[number - 1].lstrip().startswith("#")
            # On its line, on the line above, or on the section that the key belongs to.
            told = "#" in line or above or any(sections)
            explained = {start: said for start, said in explained.items() if start < depth}
            explained[depth] = told
            if not told:
                bare.append(key[2])
    assert not bare, f"{file}: no comment on {', '.join(bare)}"
