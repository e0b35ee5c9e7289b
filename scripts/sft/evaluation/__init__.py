"""Predictions, answers, scores and their intervals."""
