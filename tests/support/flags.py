"""Flags as somebody writes them -> the job that they are."""

from __future__ import annotations

from keyscale.cli.options import job_options
from keyscale.engine.job import Job
from keyscale.engine.request import request_of


def build_job(**flags: object) -> Job:
    """The job of these flags: text and numbers are read as the command line reads them, other values are taken."""
    options = job_options()
    values = {
        name: options[name].read(value if isinstance(value, str) else str(value))
        if type(value) in {str, int, float}
        else value
        for name, value in flags.items()
    }
    return request_of(values).job
