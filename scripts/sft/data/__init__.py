"""From the files as published to tokens with a loss mask."""
