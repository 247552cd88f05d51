"""keyscale: crop a video along camera keyframes and upscale it with Real-ESRGAN.

`upscale` makes a clip, `plan` says what it would do, `load_framing` reads the camera from a keyframes file; the other
names are what those take and give. Errors derive from `KeyscaleError`. docs/python.md has examples.
"""

# Importing this package loads none of its parts: each command, and each worker, needs but a few.
from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyscale.engine.api import Upscaling, plan, upscale
    from keyscale.engine.camera.framing import Framing, Interpolation, Keyframe, load_framing
    from keyscale.engine.errors import KeyscaleError
    from keyscale.engine.events import Done, Note, Progress
    from keyscale.engine.plan.plan import Plan

__version__ = "0.2.0"

__all__ = [
    "Done",
    "Framing",
    "Interpolation",
    "Keyframe",
    "KeyscaleError",
    "Note",
    "Plan",
    "Progress",
    "Upscaling",
    "load_framing",
    "plan",
    "upscale",
]

if not TYPE_CHECKING:
    _HOMES = {
        "api": ("Upscaling", "plan", "upscale"),
        "errors": ("KeyscaleError",),
        "camera.framing": ("Framing", "Interpolation", "Keyframe", "load_framing"),
        "events": ("Done", "Note", "Progress"),
        "plan.plan": ("Plan",),
    }

    def __getattr__(name):
        for module, names in _HOMES.items():
            if name in names:
                from importlib import import_module  # noqa: PLC0415

                value = getattr(import_module(f"{__name__}.engine.{module}"), name)
                globals()[name] = value
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *__all__})
