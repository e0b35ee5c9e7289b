"""How a result is started, claimed, recorded and resumed. Nothing here changes a value; no digest counts it."""
