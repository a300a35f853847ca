"""A whole CLIP in the formats of open_clip and of Hugging Face's `transformers`."""

import gzip
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.checkpoints.contents import OPEN_CLIP_CONFIG
from pipeline.checkpoints.hf_folder import write_hf_folder
from pipeline.checkpoints.writing import LazyArrays, write_safetensors
from pipeline.exported import WEIGHTS
from pipeline.files import write_json, write_text

LIBRARIES = {"open_clip": "open_clip", "hf": "transformers"}
PIXELS = ("mean", "std")
MERGES = 49152 - 256 - 2  # of CLIP's byte pairs that count, behind a line that says the version
END = "</w>"  # of a word
BYTE_PAIRS = ("vocab.json", "merges.txt", "tokenizer_config.json")  # the files of the tokenizer
START_TOKEN, END_TOKEN = "<|startoftext|>", "<|endoftext|>"


def write_model(
    name: str,
    folder: Path,
    tensors: LazyArrays,
    architecture: Mapping[str, Any],
    facts: Mapping[str, str],
    byte_pairs: bool,
) -> None:
    """Write weights and configurations of the format `name` into `folder`.

    `tensors`: open_clip's names -> float32, of both towers, of which few are in memory at a time.
    `facts`: for the header of the weights. `byte_pairs`: the model reads CLIP's own tokens. Raises
    `UserError` where the disk refuses.
    """
    if name == "hf":
        write_hf_folder(folder, tensors, architecture, facts)
        if byte_pairs:
            _write_tokenizer(folder, architecture["text_cfg"]["context_length"])
        return
    config = {
        "model_cfg": {key: value for key, value in architecture.items() if key not in PIXELS},
        "preprocess_cfg": {
            **{key: list(architecture[key]) for key in PIXELS},
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }
    write_json(folder / OPEN_CLIP_CONFIG, config)
    write_safetensors(folder / WEIGHTS[name], tensors, facts)


def _write_tokenizer(folder: Path, context: int) -> None:
    """CLIP's byte pairs, which open_clip carries, as `transformers` reads them."""
    merges = _merges()
    letters = _letters()
    tokens = [*letters, *(letter + END for letter in letters), *("".join(m) for m in merges)]
    tokens += [START_TOKEN, END_TOKEN]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    vocabulary_file, merges_file, settings_file = (folder / name for name in BYTE_PAIRS)
    write_text(vocabulary_file, json.dumps(vocabulary, ensure_ascii=False))
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    write_text(merges_file, "\n".join(lines) + "\n")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": context,
        "bos_token": START_TOKEN,
        "eos_token": END_TOKEN,
        "unk_token": END_TOKEN,
        "pad_token": END_TOKEN,
    }
    write_json(settings_file, settings)


def _merges() -> list[tuple[str, ...]]:
    """The pairs that are joined, the first first."""
    spec = importlib.util.find_spec("open_clip")
    assert spec is not None and spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
    return [tuple(line.split()) for line in lines[1 : 1 + MERGES]]


def _letters() -> list[str]:
    """A visible character for each byte, as GPT-2 has them, in the order of CLIP's tokens."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    visible += range(ord("®"), ord("ÿ") + 1)
    others = 256 - len(visible)
    return [chr(code) for code in visible] + [chr(256 + number) for number in range(others)]
