"""The experiments of the paper: every run, its figures, and the comparison with what was published."""
