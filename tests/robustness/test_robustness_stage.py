"""The stage: what it writes under every condition, what it keeps, and mistakes in a profile."""

import numpy as np
import pytest
import yaml
from stage_project import call, half_written, refused, tree

from pipeline.conditions import CONDITIONS
from pipeline.files import read_json
from pipeline.layout import Layout
from pipeline.learning import load_coefficients

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

METHOD = "adamerging_layerwise"
MIXED = [name for name, condition in CONDITIONS.items() if condition.mixed]


def change(project, **keys):
    """Edit the section `robustness` of the profile; `adapted` key by key."""
    path = project / "profiles" / "ci.yaml"
    profile = yaml.safe_load(path.read_text(encoding="utf-8"))
    adapted = profile["robustness"]["adapted"] | keys.pop("adapted", {})
    profile["robustness"] |= keys | {"adapted": adapted}
    path.write_text(yaml.safe_dump(profile), encoding="utf-8")


def coefficients(project):
    return set((project / ".cache" / "coefficients").glob("*.safetensors"))


def killed(*_, **__):
    raise KeyboardInterrupt


def test_every_condition_is_tested_on_every_corruption(project, capsys):
    corruptions = ["contrast", "gaussian_noise"]
    change(
        project,
        corruptions=corruptions,
        tasks=["cars", "dtd"],
        severities=[3, 1],
        images=9,
        adapted={"conditions": list(CONDITIONS)},
    )
    assert call("robustness", capsys) == (0, "")
    layout = Layout(project, "ci")
    found = read_json(layout.metric("robustness"), "")
    assert found.keys() == {"clean", "adapted", "conditions"}
    assert list(found["conditions"]) == MIXED
    adapted = [found["adapted"], *found["conditions"].values()]
    assert all(rows.keys() == {METHOD} for rows in adapted)
    for row in [rows[METHOD] for rows in adapted]:
        assert row["corruptions"].keys() == set(corruptions)
        assert all(by.keys() == {"3"} for by in row["corruptions"].values())
        assert row["cells"].keys() == {"cars", "dtd"}
        # What was learned on corrupted images was not tested on clean ones.
        assert not {"clean", "relative_drop", "drops"} & row.keys()
        assert row["error_ratio"]["tasks"].keys() == {"cars", "dtd"}
    pretrained = found["clean"]["pretrained"]
    assert list(pretrained["cells"]["dtd"]["contrast"]) == ["3", "1"]
    assert pretrained["error_ratio"]["mean"] == 100
    with np.load(layout.robustness(0, METHOD)) as file:
        assert file["images"].tolist() == [9, 9]
        assert file["correct"].shape == (2, 2, 2, 9)
        for condition in CONDITIONS:
            correct = file[condition]
            assert correct.shape == (2, 1, 2, 9)
            rows = found["adapted"] if condition == "each" else found["conditions"][condition]
            assert rows[METHOD]["avg"] == round(100 * correct.mean(), 2)
    with np.load(layout.robustness(0, "ties")) as file:
        assert set(file) == {"correct", "images"}
    assert not half_written(project)


def test_the_same_images_whatever_else_is_tested(project, capsys):
    layout = Layout(project, "ci")
    both = ["gaussian_noise", "contrast"]
    change(project, corruptions=both, severities=[3, 5], tasks=["cars", "dtd"])
    assert call("robustness", capsys)[0] == 0
    with np.load(layout.robustness(0, METHOD)) as file:
        whole = {name: file[name] for name in file}
    change(project, corruptions=both[:1], severities=[3], tasks=["dtd"])
    assert call("robustness", capsys)[0] == 0
    with np.load(layout.robustness(0, METHOD)) as file:
        assert np.array_equal(file["correct"], whole["correct"][:1, :1, 1:])


def test_each_of_one_corruption_is_its_mixture(project, capsys):
    before = coefficients(project)
    change(project, adapted={"conditions": ["mixture"]})
    assert call("robustness", capsys)[0] == 0
    assert coefficients(project) == before  # the one that `each` had learned
    found = read_json(Layout(project, "ci").metric("robustness"), "")
    change(project, adapted={"conditions": ["each"]})
    assert call("robustness", capsys)[0] == 0
    again = read_json(Layout(project, "ci").metric("robustness"), "")
    assert found["conditions"]["mixture"] == again["adapted"]
    assert found["adapted"] == again["conditions"] == {}


def test_coefficients_are_kept_and_differ(project, monkeypatch, capsys):
    before = coefficients(project)
    change(project, corruptions=["contrast", "pixelate"], adapted={"conditions": MIXED})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("stages.robustness.summarise_all", killed)
        call("robustness", capsys)
    new = coefficients(project) - before
    assert len(new) == len(MIXED)
    values = [load_coefficients(path, "").values.numpy().tobytes() for path in new]
    assert len(set(values)) == len(MIXED)
    steps = sorted(load_coefficients(path, "").facts["steps"] for path in new)
    assert steps == [3, 3, 3, 3]  # of the stream: ten images, four a step
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.learning.learn_coefficients", killed)
        assert call("robustness", capsys)[0] == 0
        # Other severities and images to test on change nothing of what is learned.
        change(project, severities=[2, 3], images=4)
        assert call("robustness", capsys)[0] == 0
        for key, value in (("corruptions", ["contrast", "spatter"]), ("scale", "tiny")):
            change(project, **{key: value})
            with pytest.raises(KeyboardInterrupt):
                call("robustness", capsys)


def test_learning_that_is_stopped_goes_on_from_its_state(project, monkeypatch, capsys):
    from pipeline.learning import run

    change(project, adapted={"conditions": ["stream"]})
    monkeypatch.setattr(run, "SECONDS_BETWEEN_SAVES", 0.0)
    before, advance = coefficients(project), run.Run.advance

    def stopping(self, measure):
        advance(self, measure)
        if self.done == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(run.Run, "advance", stopping)
        call("robustness", capsys)
    [state] = coefficients(project) - before
    assert state.name.endswith(".state.safetensors")
    starts = []

    def watching(self, measure):
        starts.append(self.done)
        advance(self, measure)

    monkeypatch.setattr(run.Run, "advance", watching)
    assert call("robustness", capsys)[0] == 0
    assert starts == [2] and not state.exists()


def test_no_method_is_adapted(project, capsys):
    change(project, severities=[1], adapted={"methods": [], "conditions": ["stream"]})
    assert call("robustness", capsys) == (0, "")
    found = read_json(Layout(project, "ci").metric("robustness"), "")
    assert found["adapted"] == found["conditions"] == {}
    assert found["clean"]["ties"]["error_ratio"]["mean"] is not None or (
        found["clean"]["pretrained"]["avg"] == 100
    )


def test_a_task_with_fewer_images_than_asked_for(project, capsys):
    change(project, tasks=["cars", "dtd"], images=11)
    layout = Layout(project, "ci")
    for kind in (layout.images, layout.labels):
        path = kind(0, "dtd", "eval")
        np.save(path, np.load(path)[:7])
    assert call("robustness", capsys) == (0, "")
    with np.load(layout.robustness(0, "ties")) as file:
        assert file["images"].tolist() == [11, 7]
        assert file["correct"].shape[-2:] == (2, 11)
        assert not file["correct"][..., 1, 7:].any()
        row = read_json(layout.metric("robustness"), "")["clean"]["ties"]
        share = 100 * file["correct"][..., 1, :7].mean()
        assert row["tasks"]["dtd"] == round(share, 2)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"adapted": {"conditions": ["mixtur"]}}, "'mixtur'. Did you mean mixture?"),
        ({"adapted": {"conditions": ["each", "each"]}}, "listed twice in: each, each."),
        ({"adapted": {"conditions": []}}, "robustness.adapted.conditions"),
        ({"adapted": {"severity": 2}}, "add it to robustness.severities (1, 3, 5)."),
        ({"adapted": {"severity": 6}}, "robustness.adapted.severity"),
        ({"severities": [0]}, "robustness.severities"),
    ],
)
def test_mistakes_in_the_profile(project, keys, words, capsys):
    before = tree(project / "metrics")
    change(project, **keys)
    assert words in refused("robustness", capsys)
    assert tree(project / "metrics") == before
