"""Names, limits and rules that the configuration and the scripts share."""
