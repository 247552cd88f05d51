"""Which encoder, with which settings: the user's `Encoding` resolved against mode, colour and container. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from keyscale.engine.choices import Codec, Mode, highest_crf
from keyscale.engine.errors import UsageError
from keyscale.engine.job import Encoding
from keyscale.engine.plan.tracks import Container, video_codec_fits
from keyscale.engine.source.colour import Colour
from keyscale.engine.wording import say

__all__ = ["EncoderSettings", "resolve_encoding"]

X26X_PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo",
)  # fmt: skip
NVENC_PRESETS = ("p1", "p2", "p3", "p4", "p5", "p6", "p7")
SVT_PRESETS = tuple(str(n) for n in range(-1, 14))
GOP_SECONDS = 2
"""A keyframe every so often: editors scrub the result."""


@dataclass(frozen=True)
class _Family:
    encoder: str
    codec: str
    """FFmpeg's codec name."""
    presets: tuple[str, ...]
    defaults: dict[Mode, tuple[int | None, str | None]]
    """(CRF, preset) by mode."""
    depths: tuple[int, ...] = (8, 10)


# Fast H.264: the shipped networks are so quick that the encoder decides the speed. `veryfast` at CRF 17 made files as
# large as `fast` at 18 in half the time, 0.3 to 0.4 dB lower at 50 dB (two clips at 1920x1080, tried once).
_FAMILIES = {
    Codec.H264: _Family("libx264", "h264", X26X_PRESETS, {Mode.FAST: (17, "veryfast"), Mode.QUALITY: (16, "slow")}),
    Codec.HEVC: _Family("libx265", "hevc", X26X_PRESETS, {Mode.FAST: (20, "fast"), Mode.QUALITY: (18, "slow")}),
    Codec.AV1: _Family("libsvtav1", "av1", SVT_PRESETS, {Mode.FAST: (26, "8"), Mode.QUALITY: (22, "5")}),
    Codec.PRORES: _Family("prores_ks", "prores", (), {Mode.FAST: (None, None), Mode.QUALITY: (None, None)}, (10,)),
    Codec.H264_NVENC: _Family(
        "h264_nvenc", "h264", NVENC_PRESETS, {Mode.FAST: (20, "p4"), Mode.QUALITY: (18, "p7")}, (8,)
    ),
    Codec.HEVC_NVENC: _Family("hevc_nvenc", "hevc", NVENC_PRESETS, {Mode.FAST: (22, "p4"), Mode.QUALITY: (20, "p7")}),
    Codec.AV1_NVENC: _Family("av1_nvenc", "av1", NVENC_PRESETS, {Mode.FAST: (28, "p4"), Mode.QUALITY: (24, "p7")}),
}


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """All that the writer tells the encoder, but size and colour."""

    encoder: str
    """FFmpeg's encoder name, such as `libx264`."""
    codec: str
    """FFmpeg's codec name, such as `h264`."""
    codec_tag: str | None
    pixel_format: str
    bit_depth: int
    crf: int | None
    preset: str | None
    gop: int
    """Frames between keyframes at most."""
    options: tuple[tuple[str, str], ...]
    """The encoder's private options."""


def resolve_encoding(
    encoding: Encoding, mode: Mode, colour: Colour, container: Container, rate: Fraction
) -> EncoderSettings:
    """The settings that hold, defaults filled in.

    Raises:
        UsageError: settings that contradict each other, the container or the source's colour.
    """
    codec = encoding.codec
    if codec is Codec.AUTO:
        codec = Codec.HEVC if colour.hdr else Codec.AV1 if container == "webm" else Codec.H264
    family = _FAMILIES[codec]
    if not video_codec_fits(container, family.codec):
        raise UsageError(
            f"{container} does not hold {family.codec} video",
            remedy="Write ProRes to .mov or .mkv, AV1 to .mp4, .mkv or .webm, H.264 and HEVC to .mp4, .mov or .mkv.",
        )
    depth = _bit_depth(encoding, family, colour)
    default_crf, default_preset = family.defaults[mode]
    crf = encoding.crf if encoding.crf is not None else default_crf
    preset = encoding.preset if encoding.preset is not None else default_preset
    _check(encoding, codec, family)
    return EncoderSettings(
        encoder=family.encoder,
        codec=family.codec,
        codec_tag="hvc1" if family.codec == "hevc" and container in {"mp4", "mov"} else None,
        pixel_format=_pixel_format(codec, depth),
        bit_depth=depth,
        crf=crf,
        preset=preset,
        gop=max(1, round(GOP_SECONDS * rate)),
        options=tuple(sorted(_options(codec, crf, preset).items())),
    )


def _bit_depth(encoding: Encoding, family: _Family, colour: Colour) -> int:
    wanted = encoding.bit_depth
    if colour.hdr:
        if wanted == 8:
            raise UsageError(
                f"the source is HDR ({colour.hdr.upper()}), which shows bands at 8 bit",
                remedy=say("Leave {bit_depth} out, give 10, or map the source to SDR with {dynamic_range=sdr}."),
            )
        wanted = 10
    depth = wanted if wanted is not None else family.depths[0]
    if depth not in family.depths:
        allowed = " or ".join(map(str, family.depths))
        raise UsageError(
            f"{family.encoder} does not encode {depth} bit",
            remedy=say("Use {bit_depth} {}, or another {codec}.", allowed),
        )
    return depth


def _check(encoding: Encoding, codec: Codec, family: _Family) -> None:
    if encoding.crf is not None:
        highest = highest_crf(codec)
        if highest is None:
            raise UsageError(f"{family.encoder} has no CRF", remedy=say("Leave {crf} out."))
        if not 0 <= encoding.crf <= highest:
            raise UsageError(
                f"{encoding.crf} is out of range for {family.encoder}",
                option="crf",
                remedy=f"Give 0 (best) to {highest}.",
            )
    if encoding.preset is not None and encoding.preset not in family.presets:
        choices = ", ".join(family.presets) or "none"
        raise UsageError(f"{family.encoder} has no preset {encoding.preset!r}", remedy=f"Its presets: {choices}.")


def _pixel_format(codec: Codec, depth: int) -> str:
    if codec is Codec.PRORES:
        return "yuv422p10le"
    if depth == 8:
        return "yuv420p"
    return "p010le" if codec in {Codec.HEVC_NVENC, Codec.AV1_NVENC} else "yuv420p10le"


def _options(codec: Codec, crf: int | None, preset: str | None) -> dict[str, str]:
    if codec is Codec.PRORES:
        # Profile 3 is ProRes 422 HQ.
        return {"profile": "3", "vendor": "apl0"}
    quality = {"preset": str(preset)}
    if codec in {Codec.H264_NVENC, Codec.HEVC_NVENC, Codec.AV1_NVENC}:
        # No look-ahead across chunks, IDR at forced keyframes: chunks are joined by stream copy.
        return quality | {"rc": "vbr", "cq": str(crf), "b": "0", "forced-idr": "1"}
    quality["crf"] = str(crf)
    if codec is Codec.H264:
        # With macroblock trees this libx264 reads heap it never wrote: the same pictures then give other packets from
        # run to run, and a resumed job would differ from an undisturbed one (seen with MALLOC_PERTURB_).
        quality["x264-params"] = "mbtree=0"
    if codec is Codec.HEVC:
        quality["x265-params"] = "open-gop=0:log-level=error"
    return quality
