"""`make bench`: measures the order path and the servers that bound it in turns, as ratios."""
