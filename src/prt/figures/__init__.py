"""The pictures of the paper, one module per kind: tidy tables in, PDF + PNG + CSV out."""
