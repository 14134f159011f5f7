"""`make bench`: the order path beside what bounds it, measured in turns, told as ratios."""
