"""What stands where a number would, when nothing was measured: never a zero."""

NOT_MEASURED = "not measured"
