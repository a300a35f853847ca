"""docs/using-the-model.md: its commands are known, and its code runs on an exported folder."""

import re
import shlex

import numpy as np
import pytest
import typer
from PIL import Image
from stage_project import call
from tiny import ROOT

from stages.cli import app

# `made` records its stages with MLflow.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

PAGE = (ROOT / "docs" / "using-the-model.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def commands():
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("adamerge ")]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_have_the_options_that_are_shown(words):
    group = typer.main.get_command(app)
    name, command, rest = group.resolve_command(typer.Context(group), list(words))
    assert name in ("export", "predict")
    command.make_context(name, rest)  # raises for an unknown option


def test_the_code_runs(made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(made)
    for name, form in (("merged-clip", "open_clip"), ("merged-clip-hf", "hf")):
        assert call("export", capsys, out=tmp_path / name, form=form)[0] == 0
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save("car.png")
    pieces = blocks("python")
    assert len(pieces) == 3
    for code in pieces:
        exec(code, {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all("('cars',)" in line for line in lines)


def test_every_file_of_an_export_is_described(made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(made)
    for form in ("open_clip", "hf"):
        call("export", capsys, out=tmp_path / form, form=form)
        for path in (tmp_path / form).iterdir():
            assert f"`{path.name}`" in PAGE
