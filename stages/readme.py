"""Write the generated blocks and images of README.md and docs/: `make readme`.

    python -m stages.readme

Not a stage of dvc.yaml: it changes pages that people edit as well.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from stages._progress import say
from stages._stage import user_errors

if TYPE_CHECKING:
    from pipeline.layout import Layout

PROFILE, STUDY = "mini", "study"
SHEET_SPLIT, SHEET_SEED, SHEET_COLUMNS = "eval", 0, 8


def main() -> None:
    """Write the tables and figures of README.md and docs/ from the metrics."""
    with user_errors():
        from pipeline.files import write_text
        from pipeline.layout import Layout
        from pipeline.readme import benchmark_blocks, fill
        from pipeline.study.figures import draw_studies

        root = Path.cwd()
        texts = {page: page.read_text(encoding="utf-8") for page in pages_of(root)}
        blocks = blocks_of(root)
        # Every page is checked before one is written.
        filled = {
            page: fill(t, blocks | benchmark_blocks(t), page.relative_to(root).as_posix())
            for page, t in texts.items()
        }
        images = root / "docs" / "images"
        draw_sheets(images / "tasks")
        drawn = draw_studies(Layout(root, STUDY), images)
        copied = copy_figures("\n".join(filled.values()), Layout(root, PROFILE), images)
        for page, text in filled.items():
            if text != texts[page]:
                write_text(page, text)
                say(f"{page.relative_to(root)}: written")
        say(f"readme: {len(filled)} pages and {copied + drawn} figures are up to date")


def pages_of(root: Path) -> list[Path]:
    """README.md and every page of docs/."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def blocks_of(root: Path) -> dict[str, str | None]:
    """Block -> its text, None where a block is to stay as it is."""
    from pipeline.config import load_config
    from pipeline.findings import findings_blocks
    from pipeline.layout import Layout
    from pipeline.readme import accuracy_block, methods_block, study_block, timings_block
    from pipeline.study.pages import study_blocks

    layout, study = Layout(root, PROFILE), Layout(root, STUDY)
    blocks = {
        "accuracy": accuracy_block(load_config(root, PROFILE), layout),
        "study": study_block(load_config(root, STUDY), study) if study.metrics.is_dir() else None,
        "timings": timings_block(layout, installed_gb()),
        "methods": methods_block(),
    }
    commands = {"timings": f"make repro PROFILE={PROFILE}", "study": "make study"}
    studies = study_blocks(study) | findings_blocks(load_config(root, STUDY), study)
    blocks |= studies
    commands |= dict.fromkeys(studies, "make study")
    for name, command in commands.items():
        if blocks[name] is None:
            say(f"The block '{name}' stays as it is: '{command}' has not been run here.")
    return blocks


def installed_gb() -> float:
    """Size of the running environment's files in GB (1e9 bytes)."""
    folders = os.walk(sys.prefix)
    files = (os.path.join(folder, name) for folder, _, names in folders for name in names)
    return sum(os.lstat(file).st_size for file in files) / 1e9


def draw_sheets(folder: Path) -> None:
    """A contact sheet of every task of the miniature suite, as its models are tested on it."""
    from pipeline.files import replacing
    from pipeline.tasks.mini import TASKS
    from pipeline.tasks.mini.contact_sheet import contact_sheet

    for task in TASKS:
        with replacing(folder / f"{task}.png") as temporary:
            contact_sheet(task, SHEET_SPLIT, SHEET_SEED, SHEET_COLUMNS).save(
                temporary, optimize=True
            )


def copy_figures(text: str, layout: "Layout", folder: Path) -> int:
    """Copy the report's figures that the pages show; return how many."""
    from pipeline.files import need, replacing
    from pipeline.readme import figures_of

    need(layout.report / "index.html", f"make repro PROFILE={PROFILE}")
    # An image that the report does not draw is someone's own.
    drawn = [n for n in figures_of(text) if (layout.report / f"{n}.png").is_file()]
    for name in drawn:
        with replacing(folder / f"{name}.png") as temporary:
            shutil.copyfile(layout.report / f"{name}.png", temporary)
    return len(drawn)


if __name__ == "__main__":
    typer.run(main)
