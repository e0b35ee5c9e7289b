"""Small stand-ins for published data sets: their files, columns and oddities, with rows made up by rule.

A twin of an experiment reads one instead of the published files, so that everything that happens to those (parsing,
splitting, audits, templates, pictures) happens to these. Nothing of the published rows is copied, and nothing is to be
learned from them but that the workflow works.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LICENCE = "MIT, as the rest of this project: rows are made up"
NAMES = ("robo2vlm", "radiology_mini", "mixture_of_thoughts", "capybara", "alpaca_cleaned")
COLOURS = {"red": (200, 30, 30), "green": (30, 160, 60), "blue": (40, 60, 200), "grey": (128, 128, 128)}
THINGS = ("cup", "drawer", "towel", "lid", "sponge", "knob", "brush", "carrot", "kettle", "spoon", "box", "block")


def publish(name: str, directory: Path) -> dict[str, Any]:
    """Write the files of a stand-in below `directory`, and return `{rows: {file: number}}`."""
    directory.mkdir()
    made = {
        "robo2vlm": _robo2vlm,
        "radiology_mini": _radiology,
        "mixture_of_thoughts": _thoughts,
        "capybara": _capybara,
        "alpaca_cleaned": _alpaca,
    }[name]
    return {"rows": {file: _write(directory / file, rows) for file, rows in made()}}


def _robo2vlm() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """keplerccc/Robo2VLM-1: shards of both splits side by side; choices as the text of a Python list, five of them."""
    for split, shard, shards, first, rows in (("train", 0, 2, 0, 32), ("train", 1, 2, 32, 32), ("test", 0, 1, 64, 12)):
        made = []
        for n in range(first, first + rows):
            thing, names = THINGS[n % len(THINGS)], [*COLOURS]
            shift = n // len(COLOURS) % len(COLOURS)
            choices = [*names[shift:], *names[:shift], "None of the above"]
            colour = names[n % len(names)]
            question = f"In trial {n}, what colour does the robot's gripper hold while it moves the {thing}?"
            made.append(
                {
                    "id": f"standin_traj{n // 4:03d}_q{n % 4}",
                    "question": question,
                    "choices": str(choices),
                    "correct_answer": "ABCDE"[choices.index(colour)],
                    "image": _picture(n, colour, 28, 28),
                }
            )
        yield f"data/{split}-{shard:05d}-of-{shards:05d}.parquet", made


def _radiology() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """unsloth/Radiology_mini: pictures of all shapes with a caption and a list of concepts that nobody reads."""
    for split, first, rows in (("train", 0, 24), ("test", 24, 8)):
        made = []
        for n in range(first, first + rows):
            thing = THINGS[n % len(THINGS)]
            made.append(
                {
                    "image": _picture(n, [*COLOURS][n % len(COLOURS)], 24 + 8 * (n % 5), 16 + 12 * (n % 4)),
                    "image_id": f"STANDIN_{split}_{n:06d}",
                    "caption": f"Axial view {n} of a {thing}, with a shadow behind the {THINGS[(n * 5 + 1) % 12]}.",
                    "cui": [f"C{n:07d}", "C0000000"],
                }
            )
        yield f"data/{split}-00000-of-00001.parquet", made


def _thoughts() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """open-r1/Mixture-of-Thoughts: folders of subsets, one of which holds all again; train only; <think>."""
    for folder, first, rows in (("all", 0, 40), ("math", 0, 20)):
        made = []
        for n in range(first, first + rows):
            a, b = 7 + n, 3 + 2 * n
            thought = f"I have to add {a} and {b}.\nThat is {a + b}, for {a} + {b} = {a + b}."
            answer = f"<think>\n{thought}\n</think>\n\nThe sum is \\boxed{{{a + b}}}."
            question = f"What is {a} + {b}?"
            made.append(
                {
                    "messages": [_turn("user", question), _turn("assistant", answer)],
                    "num_tokens": len(question + answer) // 4,
                    "source": "stand-in",
                }
            )
        yield f"{folder}/train-00000-of-00001.parquet", made


def _capybara() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """trl-lib/Capybara: conversations of one to three exchanges, fields in another order than usual, no ids."""
    for split, first, rows in (("train", 0, 64), ("test", 64, 8)):
        made = []
        for n in range(first, first + rows):
            turns = []
            for exchange in range(1 + n % 3):
                thing, other = THINGS[(n + exchange) % 12], THINGS[(5 * n + 3 * exchange + 1) % 12]
                turns.append(_turn("user", f"({n}.{exchange}) Would you put the {thing} on the {other}, and why?"))
                answer = f"A {thing} on a {other} lies well. " * (1 + (n + exchange) % 4)
                turns.append(_turn("assistant", f"{answer}Number {n} says so."))
            made.append({"source": "stand-in", "messages": turns, "num_turns": len(turns) // 2})
        yield f"data/{split}-00000-of-00001.parquet", made


def _alpaca() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """yahma/alpaca-cleaned: one JSON array, train only, most inputs empty."""
    made = []
    for n in range(60):
        thing = THINGS[n % 12]
        given = {"input": f"{thing}, {THINGS[(n + 5) % 12]}"} if n % 4 == 0 else {"input": ""}
        made.append(
            {
                "output": f"{n} times: the {thing} is where it was, and that is all there is to say of it.",
                **given,
                "instruction": f"Say {n} times where the {thing} is"
                + (" and what is beside it." if n % 4 == 0 else "."),
            }
        )
    yield "alpaca_data_cleaned.json", made


def _turn(role: str, content: str) -> dict[str, str]:
    return {"content": content, "role": role}


def _picture(number: int, colour: str, width: int, height: int) -> dict[str, Any]:
    """A square of a colour on a ground that no other number has, as the hub stores pictures in tables."""
    from PIL import Image, ImageDraw

    from sft.data.read import pictures

    image = Image.new("RGB", (width, height), (number * 37 % 256, number * 91 % 256, number * 151 % 256))
    left, upper = number % max(1, width // 2), number * 3 % max(1, height // 2)
    ImageDraw.Draw(image).rectangle((left, upper, left + width // 2, upper + height // 2), COLOURS[colour])
    return {"bytes": pictures.png(image), "path": f"{number:06d}.png"}


def _write(path: Path, rows: list[dict[str, Any]]) -> int:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return len(rows)
