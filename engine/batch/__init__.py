"""Many clips in one run: which there are, who makes them, what is reported about them."""
