"""The figures of the paper (Zhang et al. 2020) as computations of their own."""
