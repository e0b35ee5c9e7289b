"""Checks configuration files and says what a run would do, in about a second: `sft check`.

Reads, validates and resolves the files; tells the planned runs, the jobs that would run and why. Imports neither
torch nor Snakemake and executes nothing that a file contains, so it is the safe first look at a file from elsewhere.
"""

import argparse
import json
import os
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sft.cli.plans import require_default
from sft.config.errors import ConfigError
from sft.config.nodes import TrainSettings
from sft.config.reader import DEFAULT_FILE
from sft.estimates import run_estimates
from sft.planning.freshness import State
from sft.planning.new_code import new_code
from sft.planning.node import Node
from sft.planning.plan import Plan, PlanError, Run
from sft.planning.unpinned import unpinned
from sft.runtime import launch
from sft.runtime.canonical import canonical
from sft.runtime.installed import differences, pins_file, words
from sft.runtime.manifest import read
from sft.training import deepspeed_config
from sft.workflow import ARCHIVE, Attached, from_config, link_runs, write_config


def run(options: argparse.Namespace) -> int:
    """Print what the files mean, as text or JSON; 0 where they are good, 1 where they are not."""
    if not options.json:
        require_default(options.files)
    try:
        attached = from_config(options.files, {})
    except (ConfigError, PlanError) as error:
        if options.json:
            print(json.dumps({"ok": False, "problems": _problems(error)}, indent=1))
        print(error, file=sys.stderr)
        return 1
    if options.write:
        for directory, node in attached.plan.nodes.items():
            if not attached.states[directory].fresh:
                write_config(node)
        link_runs(attached.plan)
    if options.json:
        files = [str(file) for file in options.files or [DEFAULT_FILE]]
        print(json.dumps({"ok": True, "files": files, **described(attached)}, indent=1))
        return 0
    if ARCHIVE.exists():
        print(f"note: {ARCHIVE} is there: Snakemake draws figures from the archive until it is removed\n")
    print_runs(attached)
    print_chosen_on_test(attached.plan)
    print_moved(attached.plan)
    print_unpinned(attached.plan)
    print_new_code(attached)
    print_other_packages(attached)
    print_estimates(attached)
    print_launches(attached)
    print_jobs(attached, options.jobs)
    return 0


def described(attached: Attached) -> dict[str, Any]:
    """The same for programs: every run, every job that would run, what runs need, and what a person is told besides."""
    plan, states = attached.plan, attached.states
    return {
        "archive": ARCHIVE.exists(),
        "runs": [
            {
                "experiment": run.experiment,
                "cell": run.cell,
                "seed": run.seed,
                "directory": run.train.directory,
                "state": states[run.train.directory].status,
                "reason": states[run.train.directory].reason,
            }
            for runs in plan.runs.values()
            for run in runs
        ],
        "jobs": [
            {
                "rule": node.rule,
                "directory": node.directory,
                "state": states[node.directory].status,
                "reason": states[node.directory].reason,
                "within": node.made_with.directory if node.made_with else None,
            }
            for node in plan.nodes.values()
            if not states[node.directory].fresh
        ],
        "estimates": [
            {
                "experiment": experiment,
                "cell": cell,
                "needs": needs,
                "memory_mib": mebibytes,
                "runtime_minutes": minutes,
            }
            for experiment, cell, needs, mebibytes, minutes in estimates(attached)
        ],
        "new_code": asdict(new_code(plan, states)),
        "notes": {
            "chosen_on_test": chosen_on_test(plan),
            "moved": [{"earlier": earlier, "now": run.train.directory} for run, earlier in moved(plan)],
            "unpinned": [str(source) for source in unpinned(plan)],
            "other_packages": dict(other_packages(attached)),
        },
    }


def _problems(error: ConfigError | PlanError) -> list[dict[str, Any]]:
    if not isinstance(error, ConfigError):
        return [{"file": None, "line": None, "key": "", "message": str(error), "fix": ""}]
    return [
        {"file": str(one.path), "line": one.line, "key": one.key, "message": one.message, "fix": one.fix}
        for one in error.problems
    ]


def print_runs(attached: Attached) -> None:
    """One line for every run: experiment, cell, seed, directory, state."""
    lines = [("experiment", "cell", "seed", "run", "state")]
    for runs in attached.plan.runs.values():
        for run in runs:
            state = attached.states[run.train.directory]
            lines.append((run.experiment, run.cell, str(run.seed), run.train.id, _words(state)))
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    for *cells, told in lines:
        print("  ".join([text.ljust(width) for text, width in zip(cells, widths, strict=True)] + [told]))
    distinct = {run.train.directory for runs in attached.plan.runs.values() for run in runs}
    asked = sum(map(len, attached.plan.runs.values()))
    shared = f", {asked - len(distinct)} shared between cells" if asked > len(distinct) else ""
    print(f"\n{len(attached.plan.runs)} experiments, {len(distinct)} runs{shared}")


def print_chosen_on_test(plan: Plan) -> None:
    """A note for each experiment that chooses on test rows."""
    for told in chosen_on_test(plan):
        print(f"note: {told}")


def chosen_on_test(plan: Plan) -> list[str]:
    """Which cells differ in how they are optimised alone and are scored on test rows: the best of them is no result."""
    found = []
    for experiment, runs in plan.runs.items():
        alike: dict[str, list[str]] = {}
        for run in {run.cell: run for run in runs}.values():
            if run.scores.config.get("split", "test") == "test":
                others = {key: value for key, value in run.settings.items() if key.partition(".")[0] != "training"}
                alike.setdefault(canonical(others), []).append(run.cell)
        for cells in alike.values():
            if len(cells) > 1:
                shown = ", ".join(cells[:3]) + (", …" if len(cells) > 3 else "")
                found.append(
                    f"{len(cells)} cells of {experiment} ({shown}) differ in training: alone and are scored on "
                    "test rows; to choose one of them, set evaluation.split: validation"
                )
    return found


def print_moved(plan: Plan) -> None:
    """Which finished runs the files no longer mean: an edit gave their cells another directory."""
    found = moved(plan)
    if found:
        print(f"\n{len(found)} finished runs are re-addressed by an edit (the old ones stay where they are):")
    for run, earlier in found[:10]:
        print(f"  {run.experiment}/{run.cell}/seed-{run.seed}: sft explain {earlier} {run.train.directory}")


def moved(plan: Plan) -> list[tuple[Run, str]]:
    """Each such run and the directory that its cell had before."""
    found = [(run, _earlier(run)) for runs in plan.runs.values() for run in runs]
    return [(run, earlier) for run, earlier in found if earlier is not None]


def print_unpinned(plan: Plan) -> None:
    """Which sources of the hub are named by a tag or a branch, and the commit to write instead."""
    if found := unpinned(plan):
        print("\nnot pinned to a commit:")
    for source in found:
        print(f"  {source}")


def print_new_code(attached: Attached) -> None:
    """What an edit of our source makes again, why, and what it cost to make."""
    if lines := new_code(attached.plan, attached.states).lines():
        print("\n" + "\n".join(lines))


def print_other_packages(attached: Attached) -> None:
    """A line for each such environment."""
    for text, count in other_packages(attached).items():
        print(f"\n{count} finished results were made with {text}: kept; delete a manifest.json to make one again")


def other_packages(attached: Attached) -> Counter[str]:
    """Packages, not those pinned now, that finished results were made with, and how many results. These are kept."""
    pinned: dict[str, str] = {}
    counted: Counter[str] = Counter()
    for directory, state in attached.states.items():
        made = read(directory) if state.fresh else None
        if made is not None and "packages" in made:
            pins = attached.plan.nodes[directory].document()["environment"]["pins"]
            key = f"{pins} {made['environment']}"
            if key not in pinned:
                pinned[key] = words(differences(pins_file(pins), made["packages"]))
            counted[pinned[key]] += 1
    counted.pop("", None)
    return counted


def print_estimates(attached: Attached) -> None:
    """What each cell's run would need, once for all its seeds; nothing where every run is finished."""
    found = estimates(attached)
    if found:
        print("\none run needs, at most (see sft/estimates/estimate.py):")
    for experiment, cell, needs, mebibytes, minutes in found:
        print(f"  {experiment}/{cell}: {needs}; a job on a cluster asks for {mebibytes} MiB and {minutes} minutes")


def estimates(attached: Attached) -> list[tuple[str, str, str, int, int]]:
    """(experiment, cell, what a run needs in words, MiB and minutes that its job asks a cluster for)."""
    cells: dict[tuple[str, str], Node] = {}
    for run in (run for runs in attached.plan.runs.values() for run in runs):
        if not attached.states[run.train.directory].fresh:
            cells.setdefault((run.experiment, run.cell), run.train)
    found = []
    for (experiment, cell), train in cells.items():
        made = run_estimates.of_run(train)
        needs = run_estimates.words(made) if made else "not known before the model is here"
        mebibytes, minutes = (attached.setting(train.directory, key) for key in ("memory_mib", "runtime_minutes"))
        found.append((experiment, cell, needs, mebibytes, minutes))
    return found


def print_launches(attached: Attached) -> None:
    """The command of each run that several processes train, and the one by which it starts them."""
    for node in attached.plan.of_rule("train_model"):
        distributed = node.execution["distributed"]
        if launch.is_distributed(distributed) and not attached.states[node.directory].fresh:
            there = launch.Rendezvous("FIRST_NODE:PORT", node.id)
            python = node.execution.get("python", "python")
            ranks = launch.rank_command("PLAN", distributed, python=python, rendezvous=there)
            print(f"\n{launch.shown(launch.command(node.directory, distributed, python))}")
            print(f"  starts{' on each node' if distributed['nodes'] > 1 else ''}: {launch.shown(ranks)}")
            if (given := deepspeed_config.of_run(node.settings(TrainSettings), node.execution)) is not None:
                print(f"  and gives DeepSpeed: {json.dumps(given)}")


def print_jobs(attached: Attached, every: bool) -> None:
    """How many jobs of each rule would run, and the reasons."""
    todo = [(attached.plan.nodes[d], state) for d, state in attached.states.items() if not state.fresh]
    if not todo:
        print("nothing to do: every result is there and is what the files say")
        return
    print(f"\n{sum(node.made_with is None for node, _ in todo)} jobs would run:")
    reasons: dict[tuple[str, str], Counter[str]] = {}
    for node, state in todo:
        within = f", within {node.made_with.rule}" if node.made_with else ""
        reasons.setdefault((node.rule, within), Counter())[_general(state)] += 1
    for (rule, within), counted in reasons.items():
        why = "; ".join(f"{count} {reason}" if len(counted) > 1 else reason for reason, count in counted.items())
        print(f"  {sum(counted.values()):4}  {rule:18} {why}{within}")
    if every:
        print()
        for node, state in todo:
            print(f"  {node.rule:18} {node.directory}: {state.reason}")


def _earlier(run: Run) -> str | None:
    """The finished run that stood at this cell before, where it is another than the planned one."""
    link = Path("results/experiments", run.experiment, "runs", run.cell, f"seed-{run.seed}")
    if not link.is_symlink():
        return None
    directory = os.path.normpath(link.parent / link.readlink())
    return directory if directory != run.train.directory and read(directory) else None


def _words(state: State) -> str:
    return "finished" if state.fresh else state.reason if state.status == "missing" else f"again: {state.reason}"


def _general(state: State) -> str:
    return state.reason.partition(" (")[0]
