"""A video file read: opened, measured, decoded, its colour."""
