"""What the splits share, and what was learned: counted, judged and shown."""
