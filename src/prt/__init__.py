"""Portable Reward Tuning (ICML 2025): train a reward once, use it on any model with the same labels."""
