"""Several rows in one sequence of max_length tokens, so that no batch is padded: TRL's packing, row boundaries kept.

    bfd_split   best fit decreasing; rows longer than max_length are split over several packs
    bfd         best fit decreasing of whole rows; longer ones are dropped or cut before, as on_too_long says
    wrapped     one stream of tokens cut every max_length; rows are split anywhere

A pack knows its rows' lengths (`seq_lengths`): positions start anew at each row, and attention stays inside it.
The fill rate is the share of tokens in packs_of x max_length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow

from sft.data.tokens.label_counts import IGNORED

STRATEGIES = ("bfd_split", "bfd", "wrapped")
SEPARATOR = " + "
SCHEMA = pyarrow.schema(
    {
        "id": pyarrow.string(),
        "input_ids": pyarrow.list_(pyarrow.int32()),
        "labels": pyarrow.list_(pyarrow.int32()),
        "seq_lengths": pyarrow.list_(pyarrow.int32()),
    }
)


def pack(rows: pyarrow.Table, max_length: int, strategy: str) -> tuple[pyarrow.Table, dict[str, Any]]:
    """The packs of tokenised rows (id, input_ids, labels), and what they are: {"packs", "rows", "tokens", "fill_rate"}.

    The id of a pack names its rows in their order.
    """
    from datasets import Dataset
    from datasets.utils.logging import disable_progress_bar
    from trl import pack_dataset

    disable_progress_bar()
    ids = rows.column("id").to_pylist()
    lengths = rows.column("input_ids").combine_chunks().value_lengths().to_pylist()
    # TRL packs columns of equal lengths alike; this one says which row a token is of.
    numbers = pyarrow.array(
        [[number] * length for number, length in enumerate(lengths)], pyarrow.list_(pyarrow.int32())
    )
    table = rows.select(["input_ids", "labels"]).append_column("row", numbers)
    made = pack_dataset(Dataset(table), max_length, strategy).with_format(None)
    packs: list[dict[str, Any]] = []
    nothing_learned = rows_split = 0
    for packed in made:
        segments = _segments(packed["row"], packed.get("seq_lengths"))
        rows_split += len(segments)
        # A part of a long prompt, say. Trained alone, its step would have no loss.
        if not _learned(packed["labels"], [length for _, length in segments]):
            nothing_learned += len(packed["input_ids"])
            continue
        packs.append(
            {
                "id": SEPARATOR.join(ids[row] for row, _ in segments),
                "input_ids": packed["input_ids"],
                "labels": packed["labels"],
                "seq_lengths": [length for _, length in segments],
            }
        )
    table = pyarrow.Table.from_pylist(packs, schema=SCHEMA)
    tokens, rows_split = sum(lengths), len(ids) and rows_split - len(ids)
    kept = sum(len(packed["input_ids"]) for packed in packs) + nothing_learned
    if kept != tokens:
        raise ValueError(f"{tokens} tokens went into the packs and {kept} came out")
    facts = {
        "strategy": strategy,
        "packs": len(packs),
        "rows": len(ids),
        "rows_split": rows_split,
        "tokens": tokens,
        "tokens_of_packs_without_a_learned_one": nothing_learned,
        "fill_rate": (tokens - nothing_learned) / (len(packs) * max_length) if packs else None,
    }
    return table, facts


def _learned(labels: Sequence[int], lengths: Sequence[int]) -> bool:
    """Whether a pack has a token that the loss counts: the first one of each row is never predicted."""
    firsts = {sum(lengths[:number]) for number in range(len(lengths))}
    return any(label != IGNORED and place not in firsts for place, label in enumerate(labels))


def _segments(rows: Sequence[int], lengths: Sequence[int] | None) -> list[tuple[int, int]]:
    """(row, tokens) of the parts of a pack in their order."""
    if lengths is not None:
        places = [sum(lengths[:number]) for number in range(len(lengths))]
        return [(rows[place], length) for place, length in zip(places, lengths, strict=True) if length]
    found: list[tuple[int, int]] = []
    for row in rows:
        if found and found[-1][0] == row:
            found[-1] = row, found[-1][1] + 1
        else:
            found.append((row, 1))
    return found
