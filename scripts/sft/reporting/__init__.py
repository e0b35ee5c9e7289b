"""The ledger, and the figures and tables drawn from it."""
