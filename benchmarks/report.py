"""docs/performance.md and its plot, from the figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.estimates import Estimate, Table, held_out_error, step_memory, step_seconds
from benchmarks.floor import forward_flops, parameters
from benchmarks.settings import AUTHORS, BFLOAT16, METHODS, ONEDNN, TRUNKS
from pipeline.files import need, write_text
from pipeline.readme import fill

PAGE = "docs/performance.md"
PLOT = "docs/images/learning_step.png"
MARK = "†"  # after a value that was extrapolated
MISSING = "-"
_RATES = {
    "float32_flops_per_s": "GFLOP/s, float32",
    "onednn_flops_per_s": "GFLOP/s, float32 by oneDNN",
    "bfloat16_flops_per_s": "GFLOP/s, bfloat16",
    "bytes_per_s": "GB/s read",
}


def write_page(root: Path, figures: Mapping[str, Any]) -> None:
    """Write the plot, and the generated blocks of the page."""
    from benchmarks.plot import draw

    page = need(root / PAGE, "git checkout")
    text = page.read_text(encoding="utf-8")
    filled = fill(text, blocks(figures), PAGE)
    draw(figures, root / PLOT)
    if filled != text:
        write_text(page, filled)


def blocks(figures: Mapping[str, Any]) -> dict[str, str | None]:
    """The content of every generated block of the page."""
    vit, small = step_seconds(figures, "vit"), step_seconds(figures, "two_blocks")
    like, low, (given,) = ["ours", "fusion_bench", *AUTHORS], BFLOAT16, ONEDNN
    peers = [(method, "ours") for method in like[1:]]
    small_pairs = [("ours_float16", "ours"), *peers]
    return {
        "step-run": _run(figures),
        "step-seconds": _seconds(vit, ["floor", *like]),
        "step-ratios": _ratios(vit, [("ours", "floor"), *peers]),
        "step-onednn": _variant(vit, ["ours", given], [(given, "ours"), ("fusion_bench", given)]),
        "step-bfloat16": _variant(vit, BFLOAT16, [(low[1], low[0]), ("ours", low[0])]),
        "step-small": _both(small, ["ours", "ours_float16", *like[1:]], small_pairs),
        "step-check": _checked(small),
        "step-memory": _memory(step_memory(figures)),
        "step-floor": _floor_facts(figures),
        "step-gate": _gate(figures),
        "preparing": None,  # benchmarks/preparing.py writes it
        "merging": None,  # benchmarks/merging.py writes it
    }


def _variant(table: Table, methods: Sequence[str], pairs: Sequence[tuple[str, str]]) -> str:
    """Seconds and ratios where the last of the methods was measured; in words, if nowhere."""
    measured = {tasks: row for tasks, row in table.items() if methods[-1] in row}
    if not measured:
        return "Left out: this machine multiplies no faster that way.\n"
    return _both(measured, methods, pairs)


def _both(table: Table, columns: Sequence[str], pairs: Sequence[tuple[str, str]]) -> str:
    return f"{_seconds(table, columns)}\n{_ratios(table, pairs)}"


def _seconds(table: Table, columns: Sequence[str]) -> str:
    header = ["Tasks", *(_title(column) for column in columns)]
    rows = [
        [str(tasks), *(_spread(row.get(column)) for column in columns)]
        for tasks, row in table.items()
    ]
    return _table(header, rows)


def _ratios(table: Table, pairs: Sequence[tuple[str, str]]) -> str:
    header = ["Tasks", *(f"{_title(above)} / {_title(below)}" for above, below in pairs)]
    rows = [
        [str(tasks), *(_ratio(row.get(above), row.get(below)) for above, below in pairs)]
        for tasks, row in table.items()
    ]
    return _table(header, rows)


def _memory(table: Table) -> str:
    methods = _methods(table)
    rows = [
        [METHODS[method].title, *(_text(row.get(method), 1e9) for row in table.values())]
        for method in methods
    ]
    header = ["GB", *(f"{tasks} tasks" for tasks in table)]
    return _table(header, rows)


def _checked(table: Table) -> str:
    """How well the extrapolation does where its result was measured as well."""
    misses = [(METHODS[method].title, held_out_error(table, method)) for method in AUTHORS]
    parts = [f"{title}: {miss:+.0%}" for title, miss in misses if miss is not None]
    return f"{'; '.join(parts) or 'Too few points.'}\n"


def _run(figures: Mapping[str, Any]) -> str:
    machine, versions, git = figures["machine"], figures["versions"], figures["git"]
    peers = versions["peers"]
    rounds = sorted({len(m["samples"]) for s in figures["settings"] for m in s["methods"].values()})
    commit = "unknown" if git["commit"] is None else f"`{git['commit'][:10]}`"
    if git["dirty"]:
        commit += " with changes that were not committed"
    quick = "**A quick run: one sample of each figure.** " if figures["plan"] == "quick" else ""
    return (
        f"{quick}Measured on {figures['date'][:10]} on "
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, no GPU. "
        f"Python {versions['project']['python']}, torch {versions['project']['torch']}, "
        f"open_clip {versions['project']['open_clip_torch']}; FusionBench "
        f"{peers['fusion-bench']} with torch {peers['torch']}. Commit {commit}. "
        f"Rounds after the first step: {' or '.join(map(str, rounds))}.\n"
    )


def _floor_facts(figures: Mapping[str, Any]) -> str:
    rows = []
    for name, title in (("vit", "ViT-B-32"), ("two_blocks", "Two blocks")):
        rates = [r for s in figures["settings"] if s["trunk"] == name for r in s["rates"]]
        rows.append(
            [
                title,
                f"{parameters(TRUNKS[name]) / 1e6:.2f}",
                f"{forward_flops(TRUNKS[name]) / 1e9:.2f}",
                *(_range([rate[kind] / 1e9 for rate in rates if kind in rate]) for kind in _RATES),
            ]
        )
    return _table(["Trunk", "Million weights", "GFLOP per image", *_RATES.values()], rows)


def _gate(figures: Mapping[str, Any]) -> str:
    rows = [[METHODS[method].title, f"{error:.1e}"] for method, error in figures["gate"].items()]
    return _table(["Gradient compared with this project's", "Relative error"], rows)


def _range(values: Sequence[float]) -> str:
    return f"{digits(min(values))} to {digits(max(values))}" if values else MISSING


def _title(name: str) -> str:
    return METHODS[name].title if name in METHODS else name.capitalize()


def _methods(table: Table) -> list[str]:
    return [method for method in METHODS if any(method in row for row in table.values())]


def _ratio(above: Estimate | None, below: Estimate | None) -> str:
    if above is None or below is None:
        return MISSING
    mark = f" {MARK}" if above.extrapolated or below.extrapolated else ""
    return f"{above.value / below.value:.2f}{mark}"


def _text(estimate: Estimate | None, unit: float = 1.0) -> str:
    """Three significant digits, and a mark where the value was not measured."""
    if estimate is None:
        return MISSING
    return digits(estimate.value / unit) + (f" {MARK}" if estimate.extrapolated else "")


def _spread(estimate: Estimate | None) -> str:
    """The same, with the least and the greatest sample where they differ."""
    text = _text(estimate)
    if estimate is None or digits(estimate.low) == digits(estimate.high):
        return text
    return f"{text} ({digits(estimate.low)} to {digits(estimate.high)})"


def digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:#.3g}".rstrip(".") if value < 1000 else f"{value:.0f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
