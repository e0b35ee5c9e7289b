"""Files from elsewhere: a client each for the hub, web addresses and package archives."""
