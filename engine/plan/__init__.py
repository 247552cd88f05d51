"""What every output frame shows, with which encoder and which tracks."""
