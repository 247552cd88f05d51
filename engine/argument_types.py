"""The options of `keyscale.upscale` as type checkers see them, written by `python -m tools.option_tables`."""

from __future__ import annotations

from fractions import Fraction
from os import PathLike
from typing import Literal, TypedDict

__all__ = ["Options"]


class Options(TypedDict, total=False):
    """Arguments by name; those that are not given are as the declarations in `engine.job` say."""

    start: float | None
    """Start at this second of the source. None is the keyframes file's trim, else 0."""
    end: float | None
    """End at this second of the source. None is the keyframes file's trim, else the source's end."""
    until: Literal["longest", "video"]
    """If the sound outlasts the picture: hold the last frame, or cut the sound."""
    keep_going_on_decode_errors: bool
    """Repeat the last good frame where the source cannot be decoded, and report it; otherwise that is an error."""
    size: tuple[int, int] | str
    """Width and height of the result in pixels, both even, 2 to 16384; or text: '1080x1920', '9:16', '2x', 'reel'."""
    fit: Literal["cover", "contain", "stretch"]
    """If the camera and size differ in shape: crop to fill, pad with bars, or distort."""
    fps: float | Fraction | str
    """Exact frame rate of the result: 30, Fraction(30000, 1001), 29.97 (NTSC rates are read as their exact fractions),
    text such as '30000/1001', or 'source'."""
    overwrite: bool
    """Replace an existing result, once the new one is verified."""
    update: bool
    """Skip the job if the result was made from the same source, camera and settings; replace it if keyscale made it
    from others."""
    codec: Literal["auto", "h264", "hevc", "av1", "prores", "h264_nvenc", "hevc_nvenc", "av1_nvenc"]
    """Video encoder; auto is H.264, or 10-bit HEVC for HDR sources."""
    crf: int | None
    """Quality, lower is better: 0-51, for AV1 0-63. By default the mode decides."""
    preset: str | None
    """The encoder's own speed preset, such as medium, or 8 for AV1."""
    bit_depth: Literal[8, 10] | None
    """Bits per sample; by default 8, or 10 for HDR sources and ProRes."""
    dynamic_range: Literal["keep", "sdr"]
    """Of an HDR source: keep it HDR, or convert it to sdr (BT.709)."""
    audio: bool
    """Keep the sound."""
    verify: Literal["full", "quick"]
    """How to check the result before it gets its name: every frame, or only both ends."""
    mode: Literal["fast", "quality"]
    """Network and encoder settings for speed or for quality."""
    model: str | PathLike[str] | None
    """A network of your choice: a name from 'keyscale models list', a checkpoint or an ONNX file. With sample it may
    be given several times."""
    denoise: float | None
    """Strength of noise removal; for realesr-general-x4v3 only."""
    look: float | Literal["natural", "balanced", "crisp"] | None
    """Between true to the source and sharp: natural, balanced, crisp, or 0 to 1; for keyscale's own networks only."""
    strength: float
    """How much of the network's picture is shown; the rest is the source, resized."""
    offline: bool
    """Never download weights."""
    steady: float | Literal["auto", "off"]
    """Average noise away over neighbouring frames where nothing moves; a number is the strength."""
    device: str
    """Where the network runs: auto, gpu (any), cpu, cuda, cuda:N, mps, intel or webgpu."""
    precision: Literal["auto", "fp32", "fp16", "bf16", "int8"]
    """Number format of the network; auto is the fastest that stays close to fp32."""
    tile: int | Literal["auto"]
    """Side of a tile in source pixels, 32 or more; auto depends on memory, 0 never tiles."""
    chunk_seconds: float
    """Length of a chunk in seconds of the result: the most that a crash can cost."""
    resume: bool
    """Continue from the chunks that an earlier run of the same job finished."""
    remote: bool
    """Make the chunks on Modal GPUs. The environment variable MODAL_ENABLED is for commands alone."""
    remote_containers: int | None
    """With remote: most containers at once; by default what the deployment allows."""
    remote_fallback: Literal["none", "local"]
    """With remote: if chunks cannot be made there, fail, or make them here."""
    remote_deadline: float | None
    """With remote: finish the chunks within this time, in as few containers as possible."""
    max_cost: float | None
    """With remote: start nothing that would bring the cost above this."""
    max_queue: float
    """With remote: give up after waiting this long for a GPU."""
