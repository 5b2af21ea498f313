"""Encoders fitted anew to a frozen decoder at reference scales, as a job; see quality/reference."""
