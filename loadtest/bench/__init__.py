"""`make bench`: the order path and the servers that bound it, measured in turns, as ratios."""
