"""How fast rows are tokenised, against a plain batched `datasets.map` that renders and tokenises the same rows.

They run in one process in turn, several times, on conversations of 2 to 6 turns with the same tokenizer; reported are
the CPU seconds of each (all threads) and the ratios, which another load on the machine does not change much. Both begin
with the rows as `split_dataset` leaves them (for `datasets` in a file of its own form, made before the clock starts)
and end with a file of their results. Ours also renders the prompt of every row, makes and checks the mask of its last
answer (or of all answers, which renders twice as often), looks for control tokens, and counts what labels.json holds.
For all answers there is a second `datasets.map` that also makes their mask, by the marks of a training template.
`--record` writes benchmarks/results/tokenization.json.

    python benchmarks/tokenization.py [--rows 4000]
"""

import argparse
import gc
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROWS = "examples.parquet"
# What the tokenizer's own template writes, with the marks by which transformers finds what the assistant wrote.
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "<|im_end|>\n{% endgeneration %}{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
)
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
                "source_file": "chats.jsonl",
                "choices": [],
                "answer": "",
                "group": None,
            }
        )
    return rows


def ours(tokenizer: Any, folder: Path, loss_on: str = "assistant") -> Path:
    import pyarrow

    from sft.config.training_settings import Tokens
    from sft.data.read import examples
    from sft.data.tokens.tokenization import Tokenization

    settings = Tokens.read_back({"max_length": 4096, "on_too_long": "error", "loss_on": loss_on})
    numbers = pyarrow.list_(pyarrow.int32())
    schema = pyarrow.schema({"id": pyarrow.string(), "input_ids": numbers, "labels": numbers})
    made = Tokenization(tokenizer, settings, "train").tokenise(examples.rows(folder / ROWS))
    path = folder / f"{loss_on}.parquet"
    examples.write(path, ({name: row[name] for name in schema.names} for row in made), schema)
    return path


def plain(tokenizer: Any, data: Any, folder: Path, with_mask: bool = False) -> Path:
    """Token ids only; `with_mask`: and which of them the assistant wrote, as the marks of a training template say."""

    def tokenise(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        chats = [json.loads(messages) for messages in batch["messages"]]
        if not with_mask:
            return {"input_ids": tokenizer.apply_chat_template(chats, return_dict=False)}
        made = tokenizer.apply_chat_template(
            chats, chat_template=MARKED, return_dict=True, return_assistant_tokens_mask=True
        )
        return {name: made[name] for name in ("input_ids", "assistant_masks")}

    path = folder / "map.arrow"
    names = [name for name in data.column_names if name != "id"]
    data.map(tokenise, batched=True, remove_columns=names, load_from_cache_file=False, cache_file_name=str(path))
    return path


def tokens_in(path: Path) -> int:
    import pyarrow
    import pyarrow.parquet

    if path.suffix == ".parquet":
        table = pyarrow.parquet.read_table(path, columns=["input_ids"])
    else:
        table = pyarrow.ipc.open_stream(path).read_all()
    return sum(map(len, table["input_ids"].to_pylist()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--record", action="store_true", help="write the result into the repository")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = json.dumps(measured(options, Path(folder)), indent=1)
    print(made)
    if options.record:
        (ROOT / "benchmarks/results/tokenization.json").write_text(made + "\n")


def measured(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from datasets import Dataset
    from datasets.utils.logging import disable_progress_bar

    from sft.data.read import examples
    from sft.embedded.tiny_models import make_processor

    disable_progress_bar()
    gc.set_threshold(50_000, *gc.get_threshold()[1:])  # as every stage has it (sft/runtime/stage.py); for both
    tokenizer = make_processor("llama")
    examples.write(folder / ROWS, chats(options.rows))
    data = Dataset.from_parquet(str(folder / ROWS), cache_dir=str(folder / "cache"))
    ways = {
        "ours, last answer": lambda: ours(tokenizer, folder, "last"),
        "ours, all answers": lambda: ours(tokenizer, folder, "assistant"),
        "datasets.map": lambda: plain(tokenizer, data, folder),
        "datasets.map, mask of all answers": lambda: plain(tokenizer, data, folder, with_mask=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    tokens: dict[str, int] = {}
    for _ in range(options.repeats):
        for name, work in ways.items():
            before = time.process_time()
            path = work()
            seconds[name].append(time.process_time() - before)
            tokens[name] = tokens_in(path)
    if len(set(tokens.values())) != 1:
        raise SystemExit(f"they count different tokens: {tokens}")
    best = {name: min(found) for name, found in seconds.items()}
    last, every = best["ours, last answer"], best["ours, all answers"]
    ids_only, with_mask = (best[name] for name in list(ways)[2:])
    return {
        "rows": options.rows,
        "tokens": tokens["datasets.map"],
        "cpu_seconds": {name: round(value, 2) for name, value in best.items()},
        "ratio": {
            "last answer, to a map without mask": round(last / ids_only, 2),
            "all answers, to a map with their mask": round(every / with_mask, 2),
            "all answers, to a map without mask": round(every / ids_only, 2),
        },
    }


if __name__ == "__main__":
    main()
