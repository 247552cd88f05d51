"""Torture: what keyscale does with damaged files, hostile ones, full disks, kills and very long videos."""
