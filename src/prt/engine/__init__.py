"""A target with rewards on it as one model of vLLM: served, and asked by lm-evaluation-harness."""
