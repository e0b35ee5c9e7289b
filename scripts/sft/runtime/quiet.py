"""What a script sets for the libraries that it will import: no telemetry, no network unless it downloads.

Call `quiet_environment` before the first heavy import: the libraries read these variables when they are imported.

| library | what it would send | where that is in its source | switched off by |
| --- | --- | --- | --- |
| trl 1.16 | trainer class, model architecture, device, size of the world, source of data | trainer/base_trainer.py | HF_HUB_DISABLE_TELEMETRY |
| huggingface_hub 2.4 | what other libraries hand to `send_telemetry` | utils/_telemetry.py, constants.py | HF_HUB_DISABLE_TELEMETRY |
| huggingface_hub 2.4 | versions, and the coding tool that started it, in the user agent of downloads | utils/_headers.py, utils/_detect_agent.py | HF_HUB_DISABLE_TELEMETRY |
| transformers 5.23 | versions and a session id in the user agent of downloads | utils/hub.py | HF_HUB_DISABLE_TELEMETRY |
| datasets 5.2 | versions in the user agent of downloads | utils/file_utils.py | HF_HUB_OFFLINE |
| unsloth (optional) | counts of uses, by a download | models/_utils.py | UNSLOTH_DISABLE_STATISTICS |
| vllm (optional) | hardware, model architecture | usage/usage_lib.py | VLLM_NO_USAGE_STATS, DO_NOT_TRACK |

The optional ones by their documentation, the others as read in their source at the locked versions; there is
none in torch, peft, accelerate, bitsandbytes, safetensors, tensorboard (as a writer), pandas, pyarrow, scikit-learn,
matplotlib, seaborn and snakemake.
"""  # noqa: E501

import os

QUIET = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # In a log file, a progress bar is a thousand lines.
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "UNSLOTH_DISABLE_STATISTICS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    # Forked data loaders would otherwise make `tokenizers` print a warning a process.
    "TOKENIZERS_PARALLELISM": "false",
}
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def quiet_environment(network: bool = False) -> None:
    """Switch telemetry off; with `network` False also every request to the hub. Only downloads need the network."""
    os.environ.update(QUIET)
    if not network:
        os.environ.update(OFFLINE)
