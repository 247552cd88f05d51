"""Frames -> network -> sampled -> an encoded chunk."""
