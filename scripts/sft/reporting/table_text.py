"""The results table as text for readers: Markdown, and LaTeX with booktabs. Standard library only.

Both have the same tables (results, paired tests where there are any, costs) from the same lists of columns.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from sft.reporting.costs import NOT_MEASURED

Row = dict[str, Any]
Columns = list[tuple[str, Callable[[Row], str]]]  # heading, text of a row
# Heading, columns, rows, notes, and the column whose change of value is followed by a gap.
Table = tuple[str, Columns, Sequence[Row], list[str], str]
MINUS = "−"
NO_NUMBER = "–"
# Columns of text, left-aligned; all others are numbers.
NAMES = ("cell", "rule", "test set", "validation set", "against")
VALIDATION = "Scored on validation rows, on which settings are chosen: no result. Results are of test rows."
PAIRS = "Rows that only one of two has right, and McNemar's exact test of that, seed by seed"
COSTS = "Cost of the training, mean over seeds"
RULES = "Cost of all that this experiment's table and figures rest on"
METRICS = {
    "accuracy_strict": "strict",
    "accuracy_lenient": "lenient",
    "accuracy_likelihood": "likeliest",
    "accuracy_token": "tokens",
}
COST_NAMES = {
    "trainable_parameters": "trained parameters",
    "parameters": "parameters",
    "steps": "steps",
    "tokens_seen": "tokens",
    "tokens_per_second": "tokens/s",
    "wall_seconds": "wall s",
    "cpu_seconds": "CPU s",
    "device_hours": "device h",
    "joules": "joules",
    "model_flops_utilisation": "MFU %",
    "peak_memory_mib": "memory MiB",
}
TEX_SIGNS = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
TEX_SIGNS |= {sign: f"\\{sign}" for sign in "&%$#_{}"} | {MINUS: "$-$", NO_NUMBER: "--"}


def set_heading(row: Row) -> str:
    """What the column of data sets is called: its rows are of the split that was scored."""
    return f"{row['split']} set"


def percent(value: float | None, signed: bool = False) -> str:
    """A share as percent with one decimal; "–" where there is none."""
    if value is None:
        return NO_NUMBER
    return f"{100 * value:{'+' if signed else ''}.1f}".replace("-", MINUS)


def interval(low: float | None, high: float | None, signed: bool = False) -> str:
    """`[low, high]` in percent; empty where there is none."""
    return "" if low is None else f"[{percent(low, signed)}, {percent(high, signed)}]"


def result_columns(rows: Sequence[Row]) -> Columns:
    """(heading, text of a row) of the results table."""
    columns: Columns = [
        ("cell", lambda row: row["cell"]),
        (set_heading(rows[0]), lambda row: row["dataset"]),
        ("base", lambda row: percent(row["base"])),
        ("final", lambda row: percent(row["final"])),
        (
            "95 % interval",
            lambda row: interval(row["low"], row["high"]) or interval(row["pooled_low"], row["pooled_high"]),
        ),
        ("seeds", lambda row: " ".join(percent(float(value)) for value in row["by_seed"].split(";") if value)),
        ("change", lambda row: percent(row["change"], signed=True)),
    ]
    if any(row["difference"] is not None for row in rows):
        columns.append(("against first", _difference))
    shown = {row["metric"] for row in rows}
    for metric, name in METRICS.items():
        if metric not in shown and any(row.get(metric) is not None for row in rows):
            columns.append((name, partial(_with_interval, metric=metric)))
    return columns


def cost_columns(rows: Sequence[Row]) -> Columns:
    """(heading, text of a row) of the cost table."""
    columns: Columns = [("cell", lambda row: row["cell"])]
    for metric, name in COST_NAMES.items():
        if rows and metric in rows[0]:
            scale = 100 if name.endswith("%") else 1
            columns.append((name, partial(_scaled, metric=metric, scale=scale)))
    return columns


def rule_columns() -> Columns:
    """(heading, text of a row) of the table of costs by rule (see costs.by_rule)."""
    names = {"results": "results", "wall_seconds": "wall s", "cpu_seconds": "CPU s", "device_hours": "device h"}
    names |= {"joules": "joules", "peak_rss_mib": "memory MiB"}
    return [
        ("rule", lambda row: row["rule"]),
        *((heading, lambda row, name=name: _amount(row[name])) for name, heading in names.items()),
    ]


def cost_notes(costs: Sequence[Row]) -> list[str]:
    """What the numbers of the costs of training are, one sentence each."""
    if not costs or "device_hours" not in costs[0]:
        return []
    return [
        "Tokens without padding. device h: hours times processes, on the device that costs.csv names, every attempt "
        "counted. joules: NVML's counters.",
        "MFU: 6N operations a token for full training, 4N with frozen weights, attention and padding left out, over "
        "the device's dense bfloat16 peak. memory: of the process on a CPU, of torch's allocator on a GPU.",
    ]


def notes(rows: Sequence[Row]) -> list[str]:
    """What the numbers are, one sentence each."""
    first, seeds = rows[0], sorted({row["n_seeds"] for row in rows if row["kind"] == "cell"})
    sizes = dict.fromkeys(f"{row['dataset']} {row['test_rows']}" for row in rows)
    told = [
        f"Accuracy ({METRICS.get(first['metric'], first['metric'])}) in percent; rows: {', '.join(sizes)}.",
        f"final: {'mean over ' + ' or '.join(map(str, seeds)) + ' seeds' if seeds != [1] else 'one seed'} at the last "
        "step; base: the model before training.",
    ]
    if first["split"] == "validation":
        told.insert(0, VALIDATION)
    if fitted := list(dict.fromkeys(row["cell"] for row in rows if row["kind"] == "baseline")):
        told.append(f"{', '.join(fitted)}: no language model, fitted on the same training rows (TF-IDF of words).")
    if seeds[-1] > 1:
        told.append("95 % interval: t interval of the mean over seeds.")
    others = any(row["kind"] != "cell" for row in rows)
    if seeds[0] == 1 or others:
        of = "a model without seeds" if seeds[0] != 1 else "one seed" + " or a model without seeds" * others
        told.append(f"95 % interval of {of}: Wilson interval over {first['split']} rows.")
    if any(row["difference"] is not None for row in rows):
        of = ", t interval of the differences" if seeds[-1] > 1 else ""
        told.append(f"against first: difference to {first['cell']}, paired by seed{of}.")
    failed = sum(row["errors"] for row in rows)
    if failed:
        told.append(f"{failed} answers failed; they count as wrong.")
    if len({row["code"] for row in rows if row["kind"] == "cell"}) > 1 or any(sign in first["code"] for sign in ";+"):
        told.append("The runs were trained by different versions of the code.")
    for software in dict.fromkeys(row["software"] for row in rows if row["software"]):
        told.append(f"Other packages than the pinned ones: {software}.")
    return told


def pair_columns(rows: Sequence[Row]) -> Columns:
    """(heading, text of a row) of the table of paired tests; numbers by seed."""
    return [
        ("cell", lambda row: row["cell"]),
        (set_heading(rows[0]), lambda row: row["dataset"]),
        ("against", lambda row: row["against"]),
        ("only cell", lambda row: " ".join(str(test[0]) for test in row["by_seed"])),
        ("only other", lambda row: " ".join(str(test[1]) for test in row["by_seed"])),
        ("p", lambda row: " ".join(p_value(test[2]) for test in row["by_seed"])),
    ]


def p_value(value: float) -> str:
    """A p-value as papers print it."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def markdown(
    title: str, rows: Sequence[Row], costs: Sequence[Row], pairs: Sequence[Row] = (), rules: Sequence[Row] = ()
) -> str:
    """The tables in Markdown."""
    parts = [f"# {title}"]
    for heading, columns, lines, told, _ in _tables(rows, costs, pairs, rules):
        parts += [f"{heading}:"] if heading else []
        parts += [_markdown_table(columns, lines)]
        parts += ["\n".join(f"- {note}" for note in told)] if told else []
    return "\n\n".join(parts) + "\n"


def latex(
    title: str, rows: Sequence[Row], costs: Sequence[Row], pairs: Sequence[Row] = (), rules: Sequence[Row] = ()
) -> str:
    """The tables in LaTeX; needs the package booktabs."""
    parts = ["% \\usepackage{booktabs}", f"% {title}"]
    for heading, columns, lines, told, gap_after in _tables(rows, costs, pairs, rules):
        parts += ["", f"% {heading}"] if heading else []
        parts += [_latex_table(columns, lines, gap_after), *(f"% {note}" for note in told)]
    return "\n".join(parts) + "\n"


def _tables(rows: Sequence[Row], costs: Sequence[Row], pairs: Sequence[Row], rules: Sequence[Row]) -> Iterator[Table]:
    yield "", result_columns(rows), rows, notes(rows), "dataset"
    if pairs:
        yield PAIRS, pair_columns(pairs), pairs, [], "cell"
    if costs:
        yield COSTS, cost_columns(costs), costs, cost_notes(costs), ""
    if rules:
        yield RULES, rule_columns(), rules, [], ""


def _with_interval(row: Row, metric: str) -> str:
    return f"{percent(row.get(metric))} {interval(row.get(f'{metric}_low'), row.get(f'{metric}_high'))}".strip()


def _difference(row: Row) -> str:
    if row["difference"] is None:
        return NO_NUMBER
    limits = interval(row["difference_low"], row["difference_high"], signed=True)
    return f"{percent(row['difference'], signed=True)} {limits}".strip()


def _scaled(row: Row, metric: str, scale: int) -> str:
    return _amount(row[metric], scale)


def _amount(value: float | str | None, scale: int = 1) -> str:
    if value is None:
        return NO_NUMBER
    if isinstance(value, str) or value != value:
        return NOT_MEASURED
    value *= scale
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _markdown_table(columns: Columns, rows: Sequence[Row]) -> str:
    made = []
    for heading, text in columns:
        cells = [heading, *(text(row).replace("|", "\\|") for row in rows)]
        wide = max(map(len, cells))
        name = heading in NAMES
        made.append([cell.ljust(wide) if name else cell.rjust(wide) for cell in cells])
        made[-1].insert(1, "-" * wide if name else "-" * (wide - 1) + ":")
    return "\n".join(f"| {' | '.join(line)} |" for line in zip(*made, strict=True))


def _latex_table(columns: Columns, rows: Sequence[Row], gap_after: str) -> str:
    letters = "".join("l" if heading in NAMES else "r" for heading, _ in columns)
    lines = [f"\\begin{{tabular}}{{@{{}}{letters}@{{}}}}", "\\toprule"]
    lines += [" & ".join(_tex(heading) for heading, _ in columns) + " \\\\", "\\midrule"]
    for above, row in zip([None, *rows[:-1]], rows, strict=True):
        if gap_after and above is not None and above[gap_after] != row[gap_after]:
            lines.append("\\addlinespace")
        lines.append(" & ".join(_tex(text(row)) for _, text in columns) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"])


def _tex(text: str) -> str:
    return "".join(TEX_SIGNS.get(sign, sign) for sign in text)
