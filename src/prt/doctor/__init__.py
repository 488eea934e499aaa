"""The check-up of a machine."""
