"""From canonical examples to tokens with a loss mask."""
