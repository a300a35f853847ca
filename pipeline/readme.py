"""The generated blocks of README.md and docs/: tables that are never typed by hand.

A block lies between `<!-- generated: NAME -->` and `<!-- end -->`, each on a line of its own:

    text = fill(text, {"methods": methods_block()}, "docs/methods.md")
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.config import Config
from pipeline.errors import UserError, unknown
from pipeline.files import need, read_json
from pipeline.layout import Layout
from pipeline.merging.methods import METHODS
from pipeline.report.accuracy import accuracy_note, accuracy_table
from pipeline.report.clear import level_corrupted
from pipeline.report.content import STAGES, Content, competes, read_clean
from pipeline.report.needs import needs_of
from pipeline.report.page import duration
from pipeline.report.tables import Cell, Column, Table, make_table, numbers
from pipeline.report.unseen import outcomes, with_pretrained

END = "<!-- end -->"
_BLOCK = re.compile(r"^<!-- generated: (\S+) -->$\n(.*?)^<!-- end -->$", re.MULTILINE | re.DOTALL)
_START = re.compile(r"^<!-- generated: (\S+) -->$", re.MULTILINE)
_IMAGE = re.compile(r"\]\((?:docs/)?images/([\w-]+)\.png\)")

_DOI = "https://doi.org/"


def benchmark_blocks(text: str) -> dict[str, str | None]:
    """The blocks of a page that `make bench` writes, to be left as they are."""
    return {
        name: None
        for name in _START.findall(text)
        if name.startswith(("step-", "preparing", "merging"))
    }


def fill(text: str, blocks: Mapping[str, str | None], page: str) -> str:
    """`text` with the content of its blocks replaced; None leaves a block as it is.

    Raises `UserError`, naming the `page`, for a block that is unknown or has no end.
    """

    def replaced(found: re.Match[str]) -> str:
        name, content = found.group(1), found.group(2)
        if _START.search(content):
            raise _unfinished(page, name)
        if name not in blocks:
            raise UserError(f"{page}: {unknown('generated block', name, blocks)}")
        new = blocks[name]
        return f"<!-- generated: {name} -->\n{content if new is None else new}{END}"

    filled = _BLOCK.sub(replaced, text)
    outside = _START.search(_BLOCK.sub("", text))
    if outside:
        raise _unfinished(page, outside.group(1))
    return filled


def figures_of(text: str) -> list[str]:
    """Names of the images that lie directly in docs/images/ and are shown by a page."""
    return sorted(set(_IMAGE.findall(text)))


def accuracy_block(config: Config, layout: Layout) -> str:
    """Clean accuracies of a profile. Raises `MissingInput` naming the make target."""
    need(layout.metric("clean"), _made_by(layout))
    table = accuracy_table(config, read_clean(config, layout))
    return f"{markdown(table)}\n{accuracy_note(config, table)}\n"


def study_block(config: Config, layout: Layout) -> str:
    """What several seeds say, on clean images and beyond. Raises `MissingInput` likewise."""
    clean = accuracy_block(config, layout)
    names = ("robustness", "generalization")
    beyond = {name: read_json(layout.metric(name), _made_by(layout)) for name in names}
    content = Content(config, read_clean(config, layout), **beyond)
    return f"{clean}\n{markdown(beyond_table(content))}\n{_beyond_note(content)}\n"


def timings_block(layout: Layout, installed_gb: float) -> str | None:
    """Seconds and memory of every stage, and the machine; None where a record is missing.

    `installed_gb`: size of the environment that everything is installed in, in GB.
    """
    paths = [layout.run(stage) for stage in (*STAGES, "report")]
    if not all(path.exists() for path in paths):
        return None
    runs = [read_json(path, _made_by(layout)) for path in paths]
    lines = ["| Stage | Time | Peak memory |", "| :-- | --: | --: |"]
    lines += [f"| {r['stage']} | {duration(r['seconds'])} | {r['peak_gb']:.1f} GB |" for r in runs]
    total = duration(sum(run["seconds"] for run in runs))
    lines.append(f"| **all** | **{total}** | **{max(r['peak_gb'] for r in runs):.1f} GB** |")
    machines = dict.fromkeys(
        machine_text(run["machine"]) for run in runs if "torch" in run["machine"]
    )
    note = (
        f"Measured on {'; '.join(machines)}. Memory is that of a stage's main process. "
        f"The installed environment takes {installed_gb:.1f} GB."
    )
    return "\n".join([*lines, "", note]) + "\n"


def methods_block() -> str:
    """The table of methods: id, title, what it does, options, needs, paper."""
    titles = ["Id", "Title", "What it does", "Options", "Needs", "Paper"]
    lines = [line(titles), line([":--"] * len(titles))]
    for name, method in METHODS.items():
        options = ", ".join(f"`{key}` {_value(value)}" for key, value in method.defaults.items())
        needs = ", ".join(words for _, words in needs_of(name))
        cells = [f"`{name}`", method.title, method.summary, options, needs, _paper(method.paper)]
        lines.append(line(cells))
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    """An option's default as a profile has it; of a long list the beginning and the end."""
    if isinstance(value, tuple):
        ends = [f"{one:g}" for one in value]
        return ", ".join(ends if len(ends) < 5 else [*ends[:2], "...", ends[-1]])
    return json.dumps(value).strip('"')


def _paper(address: str) -> str:
    """A link named by the paper's number at arXiv, or by its DOI."""
    doi = address.startswith(_DOI)
    number = f"doi:{address.removeprefix(_DOI)}" if doi else address.rpartition("/")[2]
    return f"[{number}]({address})"


def markdown(table: Table) -> str:
    """A table as GitHub Markdown; the methods link to their papers."""
    needs = ["Needs"] if table.needs else []
    numbers = len(table.columns)
    lines = [line(["Method", *needs, *table.columns])]
    lines.append(line([":--"] * (1 + len(needs)) + ["--:"] * numbers))
    for group, rows in table.groups.items():
        if group:
            lines.append(line([f"*{group}*"] + [""] * (len(needs) + numbers)))
        for row in rows:
            title = f"[{row.title}]({row.paper})" + (" †" if row.label_tuned else "")
            letters = [" ".join(letter for letter, _ in row.needs)] if needs else []
            lines.append(line([title, *letters, *map(_cell, row.cells)]))
    return "\n".join(lines) + "\n"


def _cell(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.marked else cell.text
    return f"{text} ({cell.below})" if cell.below else text


def line(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def beyond_table(content: Content) -> Table:
    """Averages on corrupted images and on the unseen tasks of every split."""
    several = len(content.config.profile.seeds) > 1
    corrupted = content.robustness["clean"]
    best = level_corrupted(
        corrupted, [m for m in content.methods if m in corrupted and competes(m)]
    )
    columns = [_column("Corrupted images", corrupted, "avg", several, best)]
    for split in content.generalization:
        unseen = content.config.profile.generalization.splits[split].unseen
        title = "Unseen " + ", ".join(content.task_titles[task] for task in unseen)
        figures = with_pretrained(content, split)
        columns.append(_column(title, figures, "unseen", several, outcomes(figures)["gains"]))
    return make_table({m: (m, METHODS[m].title) for m in content.methods}, columns)


def _column(
    title: str,
    figures: Mapping[str, Mapping[str, Any]],
    name: str,
    several: bool,
    marked: Sequence[str],
) -> Column:
    spread = numbers(figures, f"{name}_sd") if several else {}
    return Column(title, numbers(figures, name), spread, marked=marked)


def _beyond_note(content: Content) -> str:
    robustness = content.config.profile.robustness
    return (
        f"Accuracy in percent. Corrupted images: mean over {len(robustness.corruptions)} "
        f"corruptions, {len(robustness.severities)} severities and {len(robustness.tasks)} tasks, "
        "merged from clean data. Unseen: the tasks' experts and images took no part in the merge. "
        "Bold: of the single models without labels the best on corrupted images and all that the "
        "corruptions cannot tell from it; on unseen tasks what is clearly above the pretrained "
        "model (95 % intervals)."
    )


def _unfinished(page: str, name: str) -> UserError:
    return UserError(f"{page}: the generated block '{name}' has no line '{END}' after it.")


def _made_by(layout: Layout) -> str:
    return "make study" if layout.profile == "study" else f"make repro PROFILE={layout.profile}"


def machine_text(facts: Mapping[str, Any]) -> str:
    """A machine as a stage's record describes it, in some words."""
    device = "no GPU" if facts["device"] == "cpu" else facts["device"]
    return (
        f"{facts['cpu']}, {facts['cores']} cores, {device}, {facts['system']}, "
        f"Python {facts['python']}, torch {facts['torch']}"
    )
