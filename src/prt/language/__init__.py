"""Portable Reward Tuning of causal language models."""
