"""How fast rows are tokenised, against a plain batched `datasets.map` that renders and tokenises the same rows.

They run in one process in turn, several times, on conversations of 2 to 6 turns with the same tokenizer; reported are
the CPU seconds of each (all threads) and the ratios, which another load on the machine does not change much. Ours also
renders the prompt of every row, makes and checks the mask of its last answer (or of all answers, which renders twice as
often), looks for control tokens, and counts what labels.json holds.

    python benchmarks/tokenization.py [--rows 4000]
"""

import argparse
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
WORDS = "the of a model learns to read what was written and says which digit is shown A 0 B 1 C 2"


def chats(count: int) -> list[dict[str, Any]]:
    draw, words = random.Random(0), WORDS.split()
    rows = []
    for number in range(count):
        turns = []
        for _ in range(draw.randint(1, 3)):
            turns.append({"role": "user", "content": " ".join(draw.choices(words, k=draw.randint(10, 60)))})
            turns.append({"role": "assistant", "content": " ".join(draw.choices(words, k=draw.randint(10, 90)))})
        rows.append(
            {
                "id": f"row-{number}",
                "system": None,
                "prompt": turns[-2]["content"],
                "completion": turns[-1]["content"],
                "messages": json.dumps(turns),
                "tools": None,
                "images": [],
            }
        )
    return rows


def ours(tokenizer: Any, rows: list[dict[str, Any]], loss_on: str = "assistant") -> int:
    from sft.data.tokenization import Tokenization

    config = {"max_length": 4096, "on_too_long": "error", "loss_on": loss_on}
    return sum(len(row["input_ids"]) for row in Tokenization(tokenizer, config, "train").tokenise(iter(rows)))


def plain(tokenizer: Any, rows: list[dict[str, Any]]) -> int:
    from datasets import Dataset

    data = Dataset.from_list([{"messages": json.loads(row["messages"])} for row in rows])

    def tokenise(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {"input_ids": tokenizer.apply_chat_template(batch["messages"], return_dict=False)}

    made = data.map(tokenise, batched=True, remove_columns=["messages"], load_from_cache_file=False)
    return sum(map(len, made["input_ids"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    from datasets.utils.logging import disable_progress_bar

    from sft.models.tiny_models import make_processor

    disable_progress_bar()
    tokenizer, rows = make_processor("llama"), chats(options.rows)
    ways = {
        "ours, last answer": lambda: ours(tokenizer, rows, "last"),
        "ours, all answers": lambda: ours(tokenizer, rows, "assistant"),
        "datasets.map": lambda: plain(tokenizer, rows),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    tokens: dict[str, int] = {}
    for _ in range(options.repeats):
        for name, work in ways.items():
            before = time.process_time()
            tokens[name] = work()
            seconds[name].append(time.process_time() - before)
    if len(set(tokens.values())) != 1:
        raise SystemExit(f"they count different tokens: {tokens}")
    best = {name: min(found) for name, found in seconds.items()}
    made = {
        "rows": options.rows,
        "tokens": tokens["datasets.map"],
        "cpu_seconds": {name: round(value, 2) for name, value in best.items()},
        "ratio": {name: round(value / best["datasets.map"], 2) for name, value in best.items()},
    }
    print(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
