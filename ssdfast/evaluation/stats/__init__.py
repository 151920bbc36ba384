"""Intervals, tests, power and pass@k for accuracies of problems with several samples each."""
