"""Records what TRL's own trainer measures on the twin of trl_capybara: its expected values.

The model and the rows are the twin's, made by the same code; everything behind them is TRL's: rendering, tokenising,
truncating, the order of rows, the loss. Arguments are those of TRL's tests/invariant, with the twin's two changes.

    python tests/workflow/trl_reference.py config/experiments/twins/expected/trl_capybara.json
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

CHANGES = {"learning_rate": 1e-3, "max_steps": 12, "max_length": 512}
TOLERANCES = {"loss": {"any_step": 1e-3, "mean": 1e-5}, "grad_norm": {"any_step": 1e-1, "mean": 1e-3}}


def recorded(**arguments: Any) -> list[dict[str, float]]:
    """loss and grad_norm of each step that TRL takes; `arguments` of SFTConfig in place of the twin's."""
    import torch
    import yaml
    from datasets import load_dataset
    from trl import SFTConfig, SFTTrainer

    from sft.embedded import stand_ins
    from sft.embedded.tiny_models import make_model, make_processor

    torch.set_num_threads(1)
    twin = yaml.safe_load((ROOT / "config/experiments/twins/trl_capybara.yaml").read_text())
    tokenizer = make_processor("qwen2")
    with tempfile.TemporaryDirectory() as folder:
        stand_ins.publish("capybara", Path(folder, "rows"))
        [file] = Path(folder, "rows/data").glob("train-*")
        rows = load_dataset("parquet", data_files=str(file), split="train", cache_dir=f"{folder}/cache")
        trainer = SFTTrainer(
            make_model(twin["models"]["qwen2_5_0_5b"]["source"], tokenizer),
            SFTConfig(
                f"{folder}/run",
                **{
                    "bf16": False,
                    "use_cpu": True,
                    "logging_steps": 1,
                    "report_to": "none",
                    "seed": 42,
                    "data_seed": 42,
                    "save_strategy": "no",
                    "disable_tqdm": True,
                }
                | CHANGES
                | arguments,
            ),
            train_dataset=rows,
            processing_class=tokenizer,
        )
        trainer.train()
        return [entry for entry in trainer.state.log_history if "loss" in entry]


if __name__ == "__main__":
    import trl

    steps = recorded()
    made = {
        "source": f"TRL {trl.__version__}, SFTTrainer on the twin's rows and model (tests/workflow/trl_reference.py)"
    }
    made |= {"tolerances": TOLERANCES} | {name: [step[name] for step in steps] for name in ("loss", "grad_norm")}
    Path(sys.argv[1]).write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
