"""The words among which an option of a job chooses."""

from __future__ import annotations

from enum import StrEnum

__all__ = [
    "Codec",
    "DynamicRange",
    "Fallback",
    "Fit",
    "Mode",
    "Precision",
    "ProgressKind",
    "Reference",
    "Until",
    "Verify",
    "highest_crf",
]


class Fit(StrEnum):
    """How a camera rectangle of another shape meets the target."""

    COVER = "cover"
    CONTAIN = "contain"
    STRETCH = "stretch"


class Mode(StrEnum):
    """Preset of model and encoder defaults."""

    FAST = "fast"
    QUALITY = "quality"


class Codec(StrEnum):
    """Video encoder; `AUTO` is H.264, and 10-bit HEVC for HDR sources."""

    AUTO = "auto"
    H264 = "h264"
    HEVC = "hevc"
    AV1 = "av1"
    PRORES = "prores"
    H264_NVENC = "h264_nvenc"
    HEVC_NVENC = "hevc_nvenc"
    AV1_NVENC = "av1_nvenc"

    @classmethod
    def _missing_(cls, value: object) -> Codec | None:
        """The codec that goes by another name too: the standard's other ones, and FFmpeg's encoders."""
        return cls(_ALSO[value]) if isinstance(value, str) and value in _ALSO else None


_ALSO = (
    dict.fromkeys(("avc", "h.264", "x264", "libx264"), "h264")
    | dict.fromkeys(("h265", "h.265", "x265", "libx265"), "hevc")
    | dict.fromkeys(("libsvtav1", "svtav1", "svt-av1"), "av1")
    | {"prores_ks": "prores", "h265_nvenc": "hevc_nvenc"}
)


class DynamicRange(StrEnum):
    """What becomes of HDR: kept as it is, or mapped to SDR (BT.709)."""

    KEEP = "keep"
    SDR = "sdr"


class Precision(StrEnum):
    """Arithmetic of the network; `AUTO` is int8 for shipped networks on the CPU, fp16 on CUDA, and fp32 elsewhere."""

    AUTO = "auto"
    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"


class Reference(StrEnum):
    """Which of two videos that are compared is what the other one should be."""

    NONE = "none"
    FIRST = "first"
    SECOND = "second"


class Until(StrEnum):
    """Where a result ends whose sound outlasts the picture: `LONGEST` holds the last frame, `VIDEO` cuts the sound."""

    LONGEST = "longest"
    VIDEO = "video"


class Verify(StrEnum):
    """`FULL` decodes every frame of the finished file, `QUICK` its packets and both ends."""

    FULL = "full"
    QUICK = "quick"


class Fallback(StrEnum):
    """What becomes of chunks that cannot be made remotely."""

    NONE = "none"
    LOCAL = "local"


class ProgressKind(StrEnum):
    """How a run reports itself; `AUTO` is a bar on a terminal and plain lines elsewhere."""

    AUTO = "auto"
    RICH = "rich"
    PLAIN = "plain"
    JSON = "json"
    NONE = "none"


def highest_crf(codec: Codec) -> int | None:
    """The largest CRF that an encoder takes; None for one that has none."""
    if codec is Codec.PRORES:
        return None
    # What auto comes to depends on source and container: the plan checks it.
    return 63 if codec in {Codec.AUTO, Codec.AV1, Codec.AV1_NVENC} else 51
