"""A bucket: its settings, transfers that resume, and clean-up."""
