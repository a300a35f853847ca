"""The key `leave_two_out` of a profile, and what of it is refused."""

import pytest
import yaml
from tiny import ROOT

from pipeline.config import load_config, profile_names
from pipeline.errors import UserError


@pytest.fixture
def loaded(tmp_path):
    """The miniature's profile with other values in `generalization`, and other tasks."""

    def load(tasks=None, **values):
        profile = yaml.safe_load((ROOT / "profiles" / "mini.yaml").read_text(encoding="utf-8"))
        if tasks:
            profile["tasks"] = profile["robustness"]["tasks"] = tasks
            profile["generalization"]["splits"] = {}
        profile["generalization"] |= values
        (tmp_path / "profiles").mkdir(exist_ok=True)
        (tmp_path / "params.yaml").write_text("profile: mini\ndevice: cpu\n", encoding="utf-8")
        path = tmp_path / "profiles" / "mini.yaml"
        path.write_text(yaml.safe_dump(profile), encoding="utf-8")
        return load_config(tmp_path).profile.generalization

    return load


def test_only_the_study_leaves_out_every_pair():
    asked = {
        name: load_config(ROOT, name).profile.generalization.leave_two_out
        for name in profile_names(ROOT)
    }
    assert [name for name in asked if asked[name]] == ["study"]


def test_two_tasks_leave_nothing(loaded):
    assert loaded(["cars", "dtd", "svhn"], leave_two_out=True).leave_two_out
    with pytest.raises(UserError, match="leave_two_out leaves nothing of 2 tasks: give three or"):
        loaded(["cars", "dtd"], leave_two_out=True)
    assert not loaded(["cars", "dtd"], leave_two_out=False).leave_two_out


def test_every_method_must_take_what_is_left(loaded):
    methods, three = ["pretrained", "model_stock"], ["cars", "dtd", "svhn"]
    assert not loaded(three, methods=methods).leave_two_out
    with pytest.raises(UserError, match="model_stock merges 2 or more experts, and here are 1"):
        loaded(three, methods=methods, leave_two_out=True)
    assert loaded([*three, "mnist"], methods=methods, leave_two_out=True).leave_two_out


@pytest.mark.parametrize("value", ["all", 1, [["cars", "dtd"]], None])
def test_it_is_a_truth_value(loaded, value):
    with pytest.raises(UserError, match=r"generalization\.leave_two_out"):
        loaded(leave_two_out=value)


def test_a_misspelt_key_is_named(loaded):
    with pytest.raises(UserError, match=r"leave_two_outs'\. Did you mean \S*\.leave_two_out "):
        loaded(leave_two_outs=True)
