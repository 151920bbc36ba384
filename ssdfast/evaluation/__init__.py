"""Grade completions, compare runs by paired tests, and summarize them: accuracy, pass@k, diagnostics."""
