"""`python -m keyscale`: the command line, of the interpreter that is named."""

from __future__ import annotations

from keyscale.cli.start import main

if __name__ == "__main__":
    main()
