"""What is made from what: nodes, their identities, and which of them are there already."""
