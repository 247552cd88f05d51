"""A later recording of a file whose packets go to the decoders of the first one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from av.packet import PacketSideData, packet_sidedata_type_from_literal

from keyscale.engine.errors import InputError
from keyscale.engine.source.sound import channels_of

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.stream import Stream

__all__ = ["continued", "refuse"]

SELF_CONTAINED = frozenset(
    {"vp8", "vp9", "av1", "mjpeg", "mpeg1video", "mpeg2video", "prores", "dnxhd", "flv1", "png", "theora"}
)
"""Codecs of pictures whose packets tell a decoder all that it needs."""

TAKES_HEADERS = frozenset({"h264", "hevc", "aac"})
"""Codecs whose decoders take other headers along with a packet."""


def continued(
    first: InputContainer, streams: Sequence[Stream], following: InputContainer, packets: Iterator[Any], number: int
) -> Iterator[Any]:
    """The packets of a later recording, as of the streams of the first one, in their time bases.

    Args:
        first: the first recording.
        streams: of it, that are wanted; none are all.
        following: the later one.
        packets: of that.
        number: of it, from 1.

    Raises:
        InputError: a stream cannot follow that of the first one.
    """
    wanted = {stream.index for stream in streams or first.streams}
    places = _places(first, following, number)
    headers = _headers(places, following, wanted, number)
    for packet in packets:
        own = packet.stream
        stream = places.get(own.index)
        if stream is None or stream.index not in wanted or (not packet.size and packet.pts is None):
            continue
        base = packet.time_base
        packet.stream = stream
        if stream.time_base is not None and base != stream.time_base:
            for name in ("pts", "dts", "duration"):
                value = getattr(packet, name)
                if value is not None:
                    setattr(packet, name, round(value * base / stream.time_base))
            packet.time_base = stream.time_base
        if own.index in headers and packet.is_keyframe:
            packet.set_sidedata(headers[own.index])
            if own.type != "video":
                del headers[own.index]  # a decoder of sound begins anew where it gets them
        yield packet


def _places(first: InputContainer, following: InputContainer, number: int) -> dict[int, Stream]:
    """By index of a stream of the later recording that of the first which it goes on with: the n-th of its kind."""
    places: dict[int, Stream] = {}
    for kind in ("video", "audio", "subtitle", "data"):
        ours = [stream for stream in first.streams if stream.type == kind]
        theirs = [stream for stream in following.streams if stream.type == kind]
        if len(theirs) > len(ours) and kind != "data":
            refuse(number, f"{len(theirs)} {kind} stream{'s' * (len(theirs) > 1)}, the first {len(ours)}")
        places |= {its.index: stream for stream, its in zip(ours, theirs, strict=False)}
    return places


def _headers(
    places: dict[int, Stream], following: InputContainer, wanted: set[int], number: int
) -> dict[int, PacketSideData]:
    """What decoders need beside the packets, by index of the stream."""
    headers: dict[int, PacketSideData] = {}
    for index, stream in places.items():
        one: Any = stream.codec_context
        other: Any = following.streams[index].codec_context
        if stream.index not in wanted or one is None or other is None:
            continue
        codec = one.codec.canonical_name
        if other.codec.canonical_name != codec:
            refuse(number, f"{stream.type} in {other.codec.canonical_name}, the first in {codec}")
        if stream.type == "audio":
            pair: tuple[Any, Any] = following.streams[index], stream
            forms = [(each.codec_context.sample_rate, channels_of(each)) for each in pair]
            if forms[0] != forms[1]:
                refuse(number, "sound of {} Hz and {} channel(s), the first {} Hz and {}".format(*forms[0], *forms[1]))
        elif stream.type == "video":
            shapes = [(each.width, each.height, each.pix_fmt) for each in (one, other)]
            if shapes[0] != shapes[1] and codec not in SELF_CONTAINED | TAKES_HEADERS:
                refuse(number, "pictures of {}x{} in {}, the first {}x{} in {}".format(*shapes[1], *shapes[0]))
        if codec not in TAKES_HEADERS:
            if one.extradata != other.extradata and codec not in SELF_CONTAINED:
                refuse(number, f"{codec} with other settings than the first")
            continue
        if not other.extradata:
            continue
        # Also where they equal the first one's: a recording in between may have had others.
        make: Any = PacketSideData  # the stub lacks what it takes
        data: PacketSideData = make(packet_sidedata_type_from_literal("new_extradata"), len(other.extradata))
        data.update(other.extradata)
        headers[index] = data
    return headers


def refuse(number: int, what: str) -> None:
    """Raise the error for a later recording that cannot follow the first one, by its number from 1."""
    raise InputError(
        f"recording {number} of those that were laid end to end in the source has {what}",
        remedy="Split the file where its recordings were joined, and give each by itself.",
    )
