"""keyscale: crop a video along camera keyframes and upscale it with Real-ESRGAN."""

__version__ = "0.1.0"
