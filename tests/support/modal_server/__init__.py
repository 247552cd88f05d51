"""Modal's control plane on loopback, for tests of code that runs on Modal.

The unmodified `modal` client (1.6) deploys to it and calls functions, and the unmodified container entry point runs
them, in processes of this machine. What both see is Modal's protocol (`modal_proto`). What is not as on Modal:

- Images are recorded instead of built. A container runs the interpreter that the server is given, with the image's
  variables, and the mounted or copied files in a folder that stands for `/`; `/root` in it is the working folder and on
  `PYTHONPATH`. Absolute paths are those of this machine: `container_environment` redirects what is configurable.
- Containers are not isolated, and have no GPU but what the machine has.
- Volumes can be named but are not shown to containers; memory snapshots are not taken, `min_containers` is ignored.
- There is one environment, `main`, and no `modal run`: only what is deployed can be called.
"""

from __future__ import annotations

from .core import Settings
from .dispatch import RecordedCall, Token
from .images import ImageRecord
from .server import ModalServer, TaskInfo

__all__ = ["ImageRecord", "ModalServer", "RecordedCall", "Settings", "TaskInfo", "Token"]
