"""docs/findings.md as a whole: every figure traceable, what is not there left out and named."""

from pathlib import Path
from typing import Any

from made_up_findings import OURS, REFERENCE

from pipeline.config import Config
from pipeline.files import write_json
from pipeline.findings import COMMAND, FILES, SECTIONS, findings, findings_blocks
from pipeline.findings.look import Look
from pipeline.layout import Layout


def test_everything_is_said_and_every_key_is_there(files: dict[str, Any], config: Config) -> None:
    found = findings(files, config)
    assert {section: len(group) for section, group in found.items()} == {
        section: len(statements) for section, statements in SECTIONS.items()
    }
    for one in (one for group in found.values() for one in group):
        assert one.sources, one.text
        for file, keys in one.sources:
            if keys[0] != "*":  # of every method
                assert Look(files, config)(file, *keys) is not None, keys


def test_the_page_leads_to_files_and_runs(config: Config, layout: Layout) -> None:
    blocks = findings_blocks(config, layout)
    text, runs = blocks["findings"], blocks["findings-runs"]
    assert text and runs
    averages = f"`{OURS}/{{avg, tasks}}`, `{REFERENCE}/{{avg, tasks}}`"
    keys = f"{averages}, `{OURS}/beside/{REFERENCE}/interval`"
    assert f"[clean.json](../metrics/study/clean.json): {keys}" in text
    assert all(f"[{name}.json]" in runs for name in FILES)
    assert "| `study` | 3, 4, 5 | `0123456789` |" in runs
    assert "[cost.json](../metrics/study/cost.json) | `study` | 3 | `0123456789` |" in runs
    assert "| `generalization` | 3, 4, 5 | `0123456789` with changes |" in runs
    missing = blocks["findings-missing"]
    assert missing and "not there yet" not in missing
    assert "Methods that were not run: SLERP." in missing
    assert "7 of 19" in missing


def test_what_was_not_measured_is_left_out_and_listed(config: Config, tmp_path: Path) -> None:
    layout = Layout(tmp_path, "study")
    blocks = findings_blocks(config, layout)
    assert set(blocks.values()) == {None}
    row = {"avg": 70.0, "seeds": {"0": 70.0}, "tasks": {"mnist": 70.0}}
    write_json(layout.metric("clean"), {OURS: row, REFERENCE: row | {"avg": 60.0}})
    blocks = findings_blocks(config, layout)
    assert blocks["findings"] and blocks["findings-missing"]
    assert blocks["findings-runs"] is None
    assert blocks["findings"].count("\n- ") == 1
    assert "one seed, no interval: not clear" in blocks["findings"]
    topics = [s.__doc__.rstrip(".") for group in SECTIONS.values() for s in group]
    for topic in topics[1:]:
        assert (
            f"- {topic}: its figures are not there yet (`{COMMAND}`)." in blocks["findings-missing"]
        )


def test_pairs_that_were_not_asked_for_are_said_to_be(
    files: dict[str, Any], config: Config
) -> None:
    asked = config.profile.generalization.model_copy(update={"leave_two_out": False})
    profile = config.profile.model_copy(update={"generalization": asked})
    layout = Layout(config.root, config.name)
    write_json(layout.metric("leave_two_out"), {})
    missing = findings_blocks(config.model_copy(update={"profile": profile}), layout)[
        "findings-missing"
    ]
    write_json(layout.metric("leave_two_out"), files["leave_two_out"])
    assert missing and missing.count("`generalization.leave_two_out` is not set") == 2
