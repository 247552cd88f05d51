"""The command line: flags in, progress and exit codes out."""
