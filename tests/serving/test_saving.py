"""An exported folder as an MLflow model: what is written, and that it needs no pickle."""

import base64
from pathlib import Path

import pytest
from safetensors.torch import save_file
from small_export import encoded, heads, picture, plain_probabilities, write_export

from pipeline.clip import Clip
from pipeline.errors import CheckpointError, MissingInput, UserError
from pipeline.serving import check_servable, request_for, save_served

# MLflow's, of its own modules.
pytestmark = pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")


@pytest.fixture
def folder(tmp_path: Path, tiny_clip: Clip) -> Path:
    return write_export(tmp_path / "export", tiny_clip)


def test_a_saved_model_loads_without_pickle(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    assert save_served(folder, tmp_path / "served") == ("svhn", "mnist", "cars")
    assert capfd.readouterr() == ("", "")
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".pkl", ".pickle", ".pt", ".bin")]

    from mlflow.pyfunc import load_model

    model = load_model(str(tmp_path / "served"))
    table = [{"image": encoded(picture(0))}]
    [answer] = model.predict(table, params={"task": "cars", "top": 1})
    best = plain_probabilities(folder, [picture(0)], "cars").max().item()
    assert answer[0]["probability"] == pytest.approx(best, abs=1e-6)
    [sample] = model.predict(model.input_example)
    assert len(sample) == 5  # of all tasks, as nothing else is asked for

    signature = model.metadata.signature
    assert signature.inputs.input_names() == ["image"]
    assert {p.name: p.default for p in signature.params.params} == {"task": "any", "top": 5}
    needed = (tmp_path / "served" / "requirements.txt").read_text().split()
    assert [line.partition("==")[0] for line in needed] == [
        *("mlflow", "torch", "open_clip_torch", "safetensors", "pillow", "pandas")
    ]
    assert all(line.partition("==")[2] for line in needed)


def test_a_request_holds_files_in_base64():
    request = request_for([b"one", b"two"], task="cars", top=3)
    assert [base64.b64decode(row["image"]) for row in request["dataframe_records"]] == [
        *(b"one", b"two")
    ]
    assert request["params"] == {"task": "cars", "top": 3}
    assert request_for([b"one"]).keys() == {"dataframe_records"}


def test_what_cannot_be_served_is_refused(folder: Path, tmp_path: Path):
    with pytest.raises(UserError, match="no folder that 'adamerge export' wrote"):
        check_servable(tmp_path)
    (folder / "heads.safetensors").rename(tmp_path / "away")
    with pytest.raises(MissingInput, match=r"heads\.safetensors is missing.*adamerge export"):
        check_servable(folder)
    save_file({"cars": heads()["cars"]}, folder / "heads.safetensors")
    with pytest.raises(CheckpointError, match="no head of svhn"):
        check_servable(folder)
    (tmp_path / "away").rename(folder / "heads.safetensors")
    weights = folder / "open_clip_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-9])
    with pytest.raises(CheckpointError, match=str(weights)):
        check_servable(folder)
    (folder / "open_clip_model.safetensors").rename(folder / "model.safetensors")
    with pytest.raises(UserError, match=r"in the format hf.*--format open_clip"):
        save_served(folder, tmp_path / "served")
    assert not (tmp_path / "served").exists()
