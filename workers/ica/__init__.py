"""Linear ICA by spread EM (section 4.1 of *Spread Divergence*), with expectation propagation."""
