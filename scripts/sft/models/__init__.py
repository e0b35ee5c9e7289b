"""Loading, making and checking models and processors."""
