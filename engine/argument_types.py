"""The options of `keyscale.upscale` as type checkers see them, written by `python -m tools.option_tables`."""

from __future__ import annotations

from fractions import Fraction
from os import PathLike
from typing import Literal, TypedDict

__all__ = ["Options"]


class Options(TypedDict, total=False):
    """Arguments by name; those that are not given are as the declarations in `engine.job` say."""

    start: float | None
    """Begin at this second of the source. None is the keyframes file's trim, else 0."""
    end: float | None
    """End at this second of the source. None is the keyframes file's trim, else the source's end."""
    until: Literal["longest", "video"]
    """If the sound outlasts the picture: hold the last frame, or cut the sound."""
    keep_going_on_decode_errors: bool
    """Bridge source frames that cannot be decoded, and report how many; otherwise they are an error."""
    size: tuple[int, int] | str
    """Width and height of the result in pixels, both even, 2 to 16384; or text: '1080x1920', '9:16', '2x', 'reel'."""
    fit: Literal["cover", "contain", "stretch"]
    """How a camera rectangle of another shape meets size: fill it, show all with bars, or distort."""
    fps: float | Fraction | str
    """Frames a second of the result, exactly: 30, Fraction(30000, 1001), 29.97 (and the other NTSC rates, as the
    fractions they stand for), text such as '30000/1001', or 'source'."""
    overwrite: bool
    """Replace the result if it is there, once the new one is verified."""
    update: bool
    """Skip the job if the result is there and came from the same source, framing and settings; make it again if
    keyscale made it of others."""
    codec: Literal["auto", "h264", "hevc", "av1", "prores", "h264_nvenc", "hevc_nvenc", "av1_nvenc"]
    """Video encoder; auto is H.264, and 10-bit HEVC for HDR sources."""
    crf: int | None
    """Quality, lower is better: 0-51, for AV1 0-63. Without it the mode's own."""
    preset: str | None
    """The encoder's own speed preset, such as medium, or 8 for AV1."""
    bit_depth: Literal[8, 10] | None
    """Bits a sample. Without it 8, and 10 for HDR sources."""
    dynamic_range: Literal["keep", "sdr"]
    """What becomes of an HDR source: keep it HDR, or map it to sdr (BT.709)."""
    audio: bool
    """Keep the sound."""
    verify: Literal["full", "quick"]
    """Check of the finished file before it gets its name: every frame, or packets and both ends."""
    mode: Literal["fast", "quality"]
    """Defaults of model and encoder."""
    model: str | PathLike[str] | None
    """Another network than the mode's: a name of 'keyscale models list', or a checkpoint. With sample several, with
    commas."""
    denoise: float | None
    """Strength of noise removal, for realesr-general-x4v3."""
    offline: bool
    """Never download weights."""
    device: str
    """auto, gpu (any), cpu, cuda, cuda:N, mps, intel or webgpu."""
    precision: Literal["auto", "fp32", "fp16", "bf16", "int8"]
    """Arithmetic of the network; auto is the fastest that stays close to fp32 on this device."""
    tile: int | Literal["auto"]
    """Side of a tile in source pixels, 32 or more; auto follows memory, 0 never tiles."""
    chunk_seconds: float
    """Seconds of the result in a chunk, 0.1 to 3600: what an interruption can cost."""
    resume: bool
    """Use chunks that an earlier run of the same job finished."""
    remote: bool
    """Make the chunks on Modal GPUs. The environment variable MODAL_ENABLED is for commands alone."""
    remote_containers: int | None
    """With remote: containers at once at most. Without it what the deployment allows."""
    remote_fallback: Literal["none", "local"]
    """With remote: make here what cannot be made there, or fail."""
    remote_deadline: float | None
    """With remote: minutes within which the chunks are to be made, in as few containers as possible."""
    max_cost: float | None
    """With remote: begin nothing that would bring the cost above this."""
    max_queue: float
    """With remote: give up once all calls have waited this long for a GPU."""
