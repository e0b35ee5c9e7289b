"""docs/training_step.md shows what happens: the calls of two real trainings, the methods that are overridden.

Tests: sft.training.callback, sft.training.trainer_part
"""

import inspect
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
import training_nodes as runs

from sft.runtime.code import SCRIPTS

PAGE = SCRIPTS.parent / "docs" / "training_step.md"
TREE = list[tuple[str, "TREE"]]  # a call and what it called
OURS = f"{SCRIPTS}/"
EPOCH = "transformers Trainer._run_epoch"

pytestmark = pytest.mark.slow


# The calls


def written(part: str) -> TREE:
    """The block of the page whose first line is ```calls `part`, as a tree."""
    [block] = re.findall(rf"^```calls {part}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line.split("#")[0].rstrip() for line in block.splitlines()]
    return tree([((len(line) - len(line.lstrip())) // 2, line.strip()) for line in lines])


def tree(calls: list[tuple[int, str]]) -> TREE:
    """Calls with their depths, in order, as a tree."""
    top: TREE = []
    open_calls = [top]
    for depth, name in calls:
        assert depth < len(open_calls), f"{name} is indented too far"
        del open_calls[depth + 1 :]
        open_calls[-1].append((name, []))
        open_calls.append(open_calls[-1][-1][1])
    return top


def once(calls: TREE) -> TREE:
    """Calls that come again under the same caller merged into the first of them."""
    merged: dict[str, TREE] = {}
    for name, below in calls:
        merged.setdefault(name, []).extend(below)
    return [(name, once(below)) for name, below in merged.items()]


def lines(calls: TREE, depth: int = 0) -> list[str]:
    """A tree as the page shows it, so that a difference is seen where it is."""
    return [line for name, below in calls for line in ("  " * depth + name, *lines(below, depth + 1))]


def found(calls: TREE, name: str) -> list[TREE]:
    """What each call of `name` called, wherever it stands."""
    return [some for one, below in calls for some in ([below] if one == name else found(below, name))]


def emptied(calls: TREE, name: str, left: tuple[str, ...] = ()) -> TREE:
    """The same tree, of what `name` called only `left`."""
    return [
        (one, [part for part in below if part[0] in left] if one == name else emptied(below, name, left))
        for one, below in calls
    ]


def steps(calls: TREE) -> list[TREE]:
    """What `_run_epoch` calls, cut before each step."""
    [epoch] = found(calls, EPOCH)
    made: list[TREE] = []
    for call in epoch:
        if call[0].endswith(".get_batch_samples"):
            made.append([])
        made[-1].append(call)
    return made


def shown(code: CodeType) -> str:
    """A function as the page names it."""
    path = code.co_filename
    if path.startswith(OURS):
        return f"{path.removeprefix(OURS).removeprefix('sft/')} {code.co_qualname}"
    return f"{path.rpartition('/site-packages/')[2].partition('/')[0]} {code.co_qualname}"


def recorder(target: Path, names: set[str], also: Callable[[], None] = lambda: None) -> Callable[[], None]:
    """A `patch`: writes the calls below train_model's `make` to `target`, those from a library to us and `names`."""

    def is_ours(frame: FrameType | None) -> bool:
        return frame is not None and frame.f_code.co_filename.startswith(OURS)

    def patch() -> None:
        also()
        calls: list[tuple[int, str]] = []
        inside: list[FrameType] = []

        def profile(frame: FrameType, event: str, _argument: Any) -> None:
            code = frame.f_code
            if event == "call":
                # A generator is "called" at each of its values, a module when it is imported.
                if code.co_flags & inspect.CO_GENERATOR or code.co_name == "<module>":
                    return
                from_library = bool(inside) and is_ours(frame) and "/site-packages/" in _file(frame.f_back)
                if from_library or shown(code) in names:
                    calls.append((len(inside), shown(code)))
                    inside.append(frame)
            elif event == "return" and inside and inside[-1] is frame:
                inside.pop()
                if not inside:
                    target.write_text(json.dumps(calls))

        sys.setprofile(profile)

    return patch


def _file(frame: FrameType | None) -> str:
    return frame.f_code.co_filename if frame else ""


def _stop_after_two() -> None:
    from sft.training.trainer import RunTrainer

    record = RunTrainer._record

    def asking(self: Any, step: int, peak_mib: int) -> None:
        record(self, step, peak_mib)
        if step == 1:
            self.books.stop.request("asked by the test")  # seen at the end of the next step

    RunTrainer._record = asking


@pytest.fixture(scope="module")
def recorded(text_nodes: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, TREE]:
    """`first`: two of three steps, then a stop. `second`: the third. Two micro batches a step."""
    root = tmp_path_factory.mktemp("calls")
    run = runs.write_run(root / "run", text_nodes, max_steps=3, save_steps=3, eval_steps=3)
    blocks = [written(part) for part in ("start", "step", "end", "resume")]
    names = {name for block in blocks for name in _names(block)}
    options = ("--micro-batch-size", "4")
    first, second = root / "first.json", root / "second.json"
    assert runs.train(run, *options, patch=recorder(first, names, _stop_after_two)) == 75, runs.log(run)
    assert runs.train(run, *options, patch=recorder(second, names)) == 0, runs.log(run)
    return {path.stem: tree(json.loads(path.read_text())) for path in (first, second)}


def _names(calls: TREE) -> set[str]:
    return {name for one, below in calls for name in (one, *_names(below))}


def test_way_to_the_first_step_is_as_written(recorded: dict[str, TREE]) -> None:
    [(make, parts)] = written("start")
    assert [name for name, _ in recorded["second"][0][1]] == [name for name, _ in parts]
    until_stopped = [(make, [part for part in parts if part[0] != "train_model.py _finish"])]
    assert lines(once(emptied(recorded["first"], EPOCH))) == lines(until_stopped)


def test_step_is_as_written(recorded: dict[str, TREE]) -> None:
    assert lines(once(steps(recorded["first"])[0])) == lines(written("step"))


def test_evaluation_save_and_stop_are_as_written(recorded: dict[str, TREE]) -> None:
    [(hook, end)] = written("end")
    assert lines(once(found(steps(recorded["second"])[-1], hook)[0])) == lines(end)
    [(end_step, parts)] = end
    stopped = [part for part in parts if not part[0].endswith("measure_validation")]
    assert lines(once(found(steps(recorded["first"])[-1], hook)[0])) == lines([(end_step, stopped)])


def test_resume_is_as_written(recorded: dict[str, TREE]) -> None:
    [(train, parts)] = written("resume")
    [recorded_parts] = found(recorded["second"], train)
    continued = emptied(recorded_parts, EPOCH, left=("transformers Trainer._load_rng_state",))
    assert lines(once(continued)) == lines(parts)


# The tables


def table(heading: str) -> set[str]:
    """The names in the first column of the table below a heading of the page."""
    part = PAGE.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `(\w+)`", part, re.MULTILINE))


def own_classes() -> tuple[list[type], type]:
    """The trainer's classes that are ours, and the library's that they extend."""
    from sft.training.backends.trl import trainer_class
    from sft.training.trainer import RunTrainer

    base = trainer_class()
    return [one for one in RunTrainer.__mro__ if one not in base.__mro__], base


def test_tables_name_all_that_is_overridden() -> None:
    from transformers import TrainerCallback

    from sft.training.callback import RunCallback

    ours, base = own_classes()
    overridden = {name for one in ours for name in vars(one) if hasattr(base, name) and not name.startswith("__")}
    assert overridden == table("What we override")
    hooks = {name for name in vars(RunCallback) if name.startswith("on_")}
    assert hooks == table("What we are called for by public hooks")
    assert all(hasattr(TrainerCallback, name) for name in hooks)


def test_private_names_of_the_libraries_are_listed() -> None:
    ours, _ = own_classes()
    sources = "".join(inspect.getsource(one) for one in ours)
    own = {name for one in ours for name in (*vars(one), *vars(one).get("__annotations__", {}))}
    own |= set(re.findall(r"self\.(_\w+)(?:: [\w\[\], ]+)? =", sources)) | set(re.findall(r"self\.(_\w+): ", sources))
    used = set(re.findall(r"self\.(_\w+)", sources)) - own
    listed = PAGE.read_text().split("Private names of the libraries")[1].split(". They")[0]
    assert used == set(re.findall(r"`(\w+)`", listed))
