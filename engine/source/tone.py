"""HDR pictures as SDR ones: PQ and HLG of BT.2100 to BT.709, in linear light, by the ITU's published methods.

1. Code values to display light in cd/m2: PQ by its EOTF (BT.2100 table 4); HLG by its inverse OETF and its OOTF for a
   display of 1000 cd/m2 and gamma 1.2 (BT.2100 table 5).
2. Levels: HDR reference white, 203 cd/m2, is the white of SDR (BT.2408 clause 2.1, table 1).
3. What is brighter is rolled off by the EETF of BT.2390 clause 5.4.1 (BT.2408 annex 5), whose input reaches to the
   source's own peak. It is applied to the largest of R, G and B, and all three are scaled alike: hue and saturation
   stay, and nothing ends beyond white.
4. Gamut: from BT.2020 by the matrix of BT.2407 clause 2; what lies outside of BT.709 is clipped.
5. To code values by the inverse of the EOTF of BT.1886, a power of 2.4.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from keyscale.engine.source.colour import BT2020, HLG, PQ, Colour, PixelArray, multiply_rows

__all__ = ["SDR", "ToneMapper", "ToneMapping", "tone_mapping"]

SDR = Colour(matrix=1, full_range=False, primaries=1, transfer=1)
"""The colour of results: BT.709."""

REFERENCE_WHITE = 203.0
"""cd/m2 of HDR reference white, which becomes the white of SDR: BT.2408 table 1."""

USUAL_PEAK = 1000.0
"""cd/m2: of the display that HLG is shown on, and of PQ whose mastering display is not told."""

BRIGHTEST = 10_000.0
"""cd/m2 of the highest code value of PQ."""

CODES = 1 << 16

ROWS = 1 << 15
"""Pixels that are converted at a time, so that they stay in the cache."""

Floats = npt.NDArray[np.float64]

XY = {
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
"""H.273 table 2: primaries (BT.709, BT.2020, Display P3) -> chromaticities of red, green and blue; white is D65."""

D65 = (0.3127, 0.3290)


@dataclass(frozen=True, kw_only=True)
class ToneMapping:
    """From which HDR pictures become SDR ones."""

    transfer: int
    """H.273: PQ or HLG."""
    primaries: int
    peak: float
    """cd/m2 of the brightest that the source is meant to show."""


def tone_mapping(colour: Colour, mastering: bytes | None) -> ToneMapping:
    """How pictures of an HDR source are mapped.

    Args:
        colour: of the source; it is HDR.
        mastering: raw `AVMasteringDisplayMetadata`, whose luminance is the peak of a PQ source.
    """
    primaries = colour.primaries if colour.primaries in XY else BT2020
    peak = USUAL_PEAK
    if colour.transfer == PQ and mastering is not None and len(mastering) >= 88:
        numbers = struct.unpack("=22i", mastering[:88])
        above, below, told = numbers[18], numbers[19], numbers[21]
        if told and below > 0 and above > 0:
            peak = min(max(above / below, REFERENCE_WHITE), BRIGHTEST)
    return ToneMapping(transfer=colour.transfer, primaries=primaries, peak=peak)


class ToneMapper:
    """HDR pictures to SDR, one after another."""

    def __init__(self, mapping: ToneMapping) -> None:
        self.mapping = mapping
        codes = np.arange(CODES) / (CODES - 1)
        self._hlg = mapping.transfer == HLG
        # Linear light by code value: of PQ in cd/m2, of HLG that of the scene, 0 to 1.
        light = hlg_inverse_oetf(codes) if self._hlg else pq_eotf(codes)
        self._light = light.astype(np.float32)
        # What components are multiplied with, relative to the white of SDR, by the brightest of them: by its code value
        # for PQ, by the square root of its light over the peak for HLG, whose OOTF mixes the components first.
        levels = codes**2 * mapping.peak if self._hlg else light
        mapped = eetf(levels, mapping.peak)
        self._gain = (np.divide(mapped, levels, out=np.ones(CODES), where=levels > 0) / REFERENCE_WHITE).astype(
            np.float32
        )
        self._matrix = (np.linalg.inv(rgb_to_xyz(1)) @ rgb_to_xyz(mapping.primaries)).T.astype(np.float32)
        self._luminance = rgb_to_xyz(mapping.primaries)[1].astype(np.float32)
        # The inverse of BT.1886 by the square root of light, which has enough steps near black.
        signal = codes ** (2 / 2.4)
        self._eight = np.rint(signal * 255).astype(np.uint8)
        self._sixteen = np.rint(signal * 65535).astype(np.uint16)

    def __call__(self, pixels: PixelArray, *, deep: bool) -> PixelArray:
        """An HDR picture `(H, W, 3)`, uint16 in 0..65535, as SDR: uint16 in 0..65535 where `deep`, else uint8."""
        signal: npt.NDArray[Any] = self._sixteen if deep else self._eight
        source = pixels.reshape(-1, 3)
        result = np.empty(source.shape, signal.dtype)
        for begin in range(0, len(source), ROWS):
            part = source[begin : begin + ROWS]
            light = self._light[part]
            brightest = part.max(axis=1)
            if self._hlg:
                # The OOTF: the luminance of the scene to the power of 1.2 - 1, and the display's peak.
                gain = (light @ self._luminance) ** np.float32(0.2)
                gain *= np.float32(self.mapping.peak)
                level = np.sqrt(gain * self._light[brightest] / np.float32(self.mapping.peak))
                gain *= self._gain[_index(level)]
            else:
                gain = self._gain[brightest]
            light *= gain[:, None]
            multiply_rows(light, self._matrix)
            np.clip(light, 0, 1, out=light)
            np.sqrt(light, out=light)
            result[begin : begin + ROWS] = signal[_index(light)]
        return cast(PixelArray, result.reshape(pixels.shape))


def _index(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """0..1 -> the nearest code value."""
    values = values * np.float32(CODES - 1) + np.float32(0.5)
    np.minimum(values, np.float32(CODES - 1), out=values)
    return values.astype(np.uint16)


M1, M2, C1, C2, C3 = 2610 / 16384, 2523 / 4096 * 128, 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
"""Constants of PQ: BT.2100 table 4."""


def pq_eotf(signal: Floats) -> Floats:
    """PQ signal 0..1 -> cd/M2: BT.2100 table 4."""
    power = signal ** (1 / M2)
    return np.asarray(BRIGHTEST * (np.maximum(power - C1, 0) / (C2 - C3 * power)) ** (1 / M1), np.float64)


def pq_inverse_eotf(light: Floats | float) -> Floats:
    """cd/M2 -> PQ signal 0..1: BT.2100 table 4."""
    power = (np.asarray(light, np.float64) / BRIGHTEST) ** M1
    return np.asarray(((C1 + C2 * power) / (1 + C3 * power)) ** M2, np.float64)


def hlg_inverse_oetf(signal: Floats) -> Floats:
    """HLG signal 0..1 -> light of the scene 0..1: BT.2100 table 5."""
    a = 0.17883277
    b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
    return np.asarray(np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12), np.float64)


def eetf(light: Floats, peak: float) -> Floats:
    """Display light in cd/m2, up to `peak`, on a display whose peak is reference white: BT.2390 clause 5.4.1.

    Black is black on both, so that step's lift of black falls away.
    """
    top = float(pq_inverse_eotf(peak))
    signal = np.minimum(pq_inverse_eotf(light) / top, 1.0)
    most = float(pq_inverse_eotf(REFERENCE_WHITE)) / top
    if most >= 1:
        return np.minimum(light, REFERENCE_WHITE)
    knee = 1.5 * most - 0.5
    t = np.maximum(signal - knee, 0) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * most
    return pq_eotf(np.where(signal < knee, signal, spline) * top)


def rgb_to_xyz(primaries: int) -> Floats:
    """Linear R, G, B of these primaries -> X, Y, Z, white of luminance 1: SMPTE RP 177."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in XY[primaries]]).T
    white = np.array([D65[0] / D65[1], 1, (1 - D65[0] - D65[1]) / D65[1]])
    return np.asarray(columns * np.linalg.solve(columns, white), np.float64)
