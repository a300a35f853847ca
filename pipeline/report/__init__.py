"""The report: one page without network, its figures as PNG and their data as JSON.

    from pipeline.report import build_report
    page = build_report(config, Layout(config.root, config.name))

It reads what the stages measured and stored and computes nothing anew, so it needs no torch.
"""

from pathlib import Path

from pipeline.config import Config
from pipeline.layout import Layout


def build_report(config: Config, layout: Layout) -> Path:
    """Write `index.html` and every figure's PNG and JSON below `layout.report`; return the page.

    The same inputs give the same bytes. Sections whose stage has not run are left out and named at
    the end of the page. Raises `MissingInput` where even the clean accuracies are missing.
    """
    from pipeline.report.content import read_content
    from pipeline.report.page import write_report

    return write_report(read_content(config, layout), layout)
