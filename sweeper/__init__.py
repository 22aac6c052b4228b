"""Hyperparameter sweeps that measure what each extra hyperparameter costs and what it buys."""

__version__ = "0.1.0"
