"""Side-by-side timings: each contender alone in its own process, measured in turn, medians and ratios."""
