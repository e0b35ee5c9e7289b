"""From trained state to a model directory, and the proof that it is the trained model."""
