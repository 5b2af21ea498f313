"""Spreads with parameters ψ: a low-rank covariance, a transform of the mean, or both."""

from workers.spread.learned.building import build_psi, psi_activations, psi_counts
from workers.spread.learned.information import information
from workers.spread.learned.noise import LearnedNoise
from workers.spread.learned.psi import Psi

__all__ = ["LearnedNoise", "Psi", "build_psi", "information", "psi_activations", "psi_counts"]
