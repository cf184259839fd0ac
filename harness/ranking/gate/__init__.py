"""The regression gate: is a run better, the same or worse than a baseline, or is the comparison inconclusive?"""
