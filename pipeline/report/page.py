"""The page: tables, sentences and inline figures in one HTML file that loads nothing."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.files import need, write_text
from pipeline.layout import Layout
from pipeline.merging.methods import METHODS
from pipeline.report import (
    accuracy,
    confusion,
    corrupted,
    cost,
    curves,
    figures,
    heatmaps,
    pairs,
    samples,
    scatter,
    summary,
    tables,
    unseen,
)
from pipeline.report.comparison import compare
from pipeline.report.content import Content
from pipeline.report.published import SOURCES
from pipeline.report.style import LOOKS, Plot, drawing, inline_svg, save, settle
from pipeline.report.unmeasured import unmeasured
from pipeline.report.words import duration

DRAWERS = (
    figures.averages,
    heatmaps.block_coefficients,
    heatmaps.tensor_coefficients,
    curves.entropy,
    curves.coefficients,
    figures.radar,
    confusion.confusion,
    figures.robustness,
    scatter.generalization,
    pairs.gaps,
    heatmaps.cosines,
)


def write_report(content: Content, layout: Layout) -> Path:
    """Write figures, their data and the page; return the page's path."""
    with drawing():
        plots = [plot for draw in DRAWERS if (plot := draw(content)) is not None]
        for plot in plots:
            settle(plot.figure)
            save(plot, layout.report)
        page = render(content, plots)
    path = layout.report / "index.html"
    write_text(path, page)
    return path


def render(content: Content, plots: list[Plot]) -> str:
    """The page's HTML. To be called while `drawing`."""
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    style = (folder / "page.css").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(
        css=Markup(style),
        figures={plot.name: plot for plot in plots},
        svg=lambda plot: Markup(inline_svg(plot)),
        looks=LOOKS,
        **_words(content),
        **_tables(content),
        **_origin(content),
    )


def _words(content: Content) -> dict[str, Any]:
    """Titles and sentences."""
    profile = content.config.profile
    return {
        "profile": content.config.name,
        "protocol": profile.protocol,
        "seeds": profile.seeds,
        "miniature": summary.MINIATURE if profile.suite == "mini" else None,
        "setting": summary.setting(content),
        "sentences": summary.sentences(content),
        "key_figures": summary.key_figures(content),
        "best": content.best and METHODS[content.best].title,
        "unmeasured": unmeasured(content),
        "absent": content.absent,
    }


def _tables(content: Content) -> dict[str, Any]:
    clean = accuracy.accuracy_table(content.config, content.clean)
    profile = content.config.profile
    return {
        "accuracy": clean,
        "accuracy_note": accuracy.accuracy_note(content.config, clean),
        "contamination": accuracy.contamination_notes(content),
        "calibration": accuracy.calibration_table(content),
        "calibration_note": accuracy.CALIBRATION_NOTE,
        "comparison": compare(content),
        "links": SOURCES,
        "robustness": corrupted.robustness_table(content) if content.robustness else None,
        "robustness_note": corrupted.ROBUSTNESS_NOTE,
        "robustness_marked": corrupted.MARKED_NOTE,
        "adapted": corrupted.adapted_table(content),
        "adapted_note": corrupted.ADAPTED_NOTE,
        "adapted_severity": profile.robustness.adapted.severity,
        "severities": profile.robustness.severities,
        "splits": {
            ", ".join(content.task_titles[task] for task in parts.unseen): (
                unseen.generalization_table(content, split)
            )
            for split, parts in profile.generalization.splits.items()
            if split in content.generalization
        },
        "unseen_note": unseen.UNSEEN_NOTE,
        "pairs": unseen.leave_two_out_table(content),
        "pairs_note": unseen.PAIRS_NOTE,
        "samples": content.samples,
        "samples_seed": profile.seeds[0],
        "task_titles": content.task_titles,
        "small_side": samples.SMALL,
        "costs": cost.cost_table(content),
        "cost_note": cost.COST_NOTE,
    }


def _origin(content: Content) -> dict[str, Any]:
    """What the figures were made with."""
    profile = need(
        content.config.root / "profiles" / f"{content.config.name}.yaml", "git checkout profiles"
    )
    return {
        "runs": [
            {**run, "time": duration(run["seconds"]), "peak": f"{run['peak_gb']:.1f} GB"}
            for run in content.runs
        ],
        "total": duration(sum(run["seconds"] for run in content.runs)),
        "machines": list(_shared(content, "machine", _machine)),
        "commits": list(_shared(content, "git", _commit)),
        "checkpoint": content.config.profile.checkpoint,
        "fetched": list(_fetched(content)),
        "parameters": profile.read_text(encoding="utf-8"),
    }


def _fetched(content: Content) -> Iterator[tuple[str, str, str, str]]:
    """(What, source, commit, SHA-256 or number of files) of everything that was fetched."""
    found = content.sources
    named = [("Pretrained model", found.get("pretrained"))]
    for kind, title in (("experts", "Expert"), ("images", "Images")):
        by = found.get(kind, {})
        named += [(f"{title}: {content.task_titles[t]}", by.get(t)) for t in content.tasks]
    for what, one in named:
        if one is not None:
            source = f"{one['source']}: {one['file']}" if one.get("file") else one["source"]
            held = f"{one['files']} files" if "files" in one else one.get("sha256")
            yield what, source, one.get("commit") or tables.NOTHING, held or tables.NOTHING


def _shared(content: Content, key: str, say: Callable[[Any], str]) -> Iterator[tuple[str, str]]:
    """(What `say` makes of a run's `key`, the stages that have it in common)."""
    groups: dict[str, list[str]] = {}
    for run in content.runs:
        groups.setdefault(json.dumps(run[key]), []).append(run["stage"])
    for text, stages in groups.items():
        yield say(json.loads(text)), "" if len(groups) == 1 else ", ".join(stages)


def _machine(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in facts.items() if value is not None)


def _commit(facts: Mapping[str, Any]) -> str:
    commit = facts["commit"] or "none: not a git checkout, or without a commit"
    return f"{commit} with uncommitted changes" if facts["dirty"] else commit
