"""Chunks joined with sound, subtitles and metadata; the finished file verified."""
