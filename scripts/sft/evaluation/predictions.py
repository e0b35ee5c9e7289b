"""The schema of predictions.parquet: one row per step, data set and example id; the same for models and baselines."""

import pyarrow

SCHEMA = pyarrow.schema(
    {
        "step": pyarrow.int64(),
        "dataset": pyarrow.string(),
        "id": pyarrow.string(),
        "answer": pyarrow.string(),
        "gold_text": pyarrow.string(),
        "raw_text": pyarrow.string(),
        "parsed": pyarrow.string(),
        # What the answer says, without what was reasoned, and the tools it calls (JSON); what it should say and call;
        # whether it is the target as the template writes it. Null of answers made before these were kept.
        "said": pyarrow.string(),
        "called": pyarrow.string(),
        "reasoned": pyarrow.string(),
        "gold_said": pyarrow.string(),
        "gold_called": pyarrow.string(),
        "is_target": pyarrow.bool_(),
        "choice_log_likelihoods": pyarrow.list_(pyarrow.float64()),
        "prompt_tokens": pyarrow.int64(),
        # Of rows without choices: see sft/evaluation/targets.py.
        "target_tokens": pyarrow.int64(),
        "target_right": pyarrow.int64(),
        "target_log_likelihood": pyarrow.float64(),
        "error": pyarrow.string(),
    }
)
