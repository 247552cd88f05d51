"""The recipe of the networks that come with keyscale, from photographs to weights: `python -m tools.training -h`."""
