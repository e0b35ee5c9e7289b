"""The `sft` command: `arguments.py` is all that can be typed, `__main__.py` starts it, and each verb is a file."""
