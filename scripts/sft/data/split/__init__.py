"""Which row belongs to which split."""
