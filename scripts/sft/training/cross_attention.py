"""Batches for models that look at pictures by cross-attention (Llama-3.2-Vision).

Other families put a picture's features where its tokens stand, so that features of a batch are strung together. Here
they stand beside the text, `(rows, pictures, tiles, …)`, with a mask of which tokens see which tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

MASK = "cross_attention_mask"


def is_used(processor: ProcessorMixin | PreTrainedTokenizerBase) -> bool:
    """Whether the processor's model takes pictures by cross-attention."""
    return MASK in getattr(processor, "model_input_names", ())


def inputs(
    features: Sequence[dict[str, Any] | None], input_ids: torch.Tensor, processor: ProcessorMixin
) -> dict[str, Any]:
    """Model inputs of a batch, as the processor would make them of the same rows.

    `features`: for each row what the image processor makes of its pictures, None where it has none.
    `input_ids`: (rows, longest row), padded on the right.
    """
    from transformers.models.mllama.processing_mllama import (
        convert_sparse_cross_attention_mask_to_dense,
        get_cross_attention_token_mask,
    )

    pictured = [one for one in features if one is not None]
    if not pictured:
        return {}
    most = max(one["pixel_values"].shape[1] for one in pictured)
    made = {
        name: torch.cat([_padded(one, pictured[0], name, most) for one in features])
        for name, value in pictured[0].items()
        if torch.is_tensor(value)
    }
    seen = [get_cross_attention_token_mask(ids, processor.image_token_id) for ids in input_ids.tolist()]
    tiles = [one["num_tiles"][0] if one is not None else [] for one in features]
    most_tiles, length = processor.image_processor.max_image_tiles, input_ids.shape[1]
    mask = convert_sparse_cross_attention_mask_to_dense(seen, tiles, most_tiles, length)
    return made | {MASK: torch.from_numpy(mask)}


def _padded(one: dict[str, Any] | None, like: dict[str, Any], name: str, pictures: int) -> torch.Tensor:
    """A row's tensor with as many pictures as the batch's richest row; what is filled up is empty."""
    there = one[name] if one is not None else like[name][:, :0]
    filling = like[name].new_zeros((1, pictures - there.shape[1], *there.shape[2:]))
    if name == "aspect_ratio_mask":
        # The first tile counts, also of a picture that is not there (transformers 5.23, build_aspect_ratio_mask).
        filling[..., 0] = 1
    return torch.cat([there, filling], dim=1)
