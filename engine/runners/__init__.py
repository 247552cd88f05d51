"""Executors of a plan's chunks."""
