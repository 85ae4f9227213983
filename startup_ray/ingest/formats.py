"""What a body is, told by its first bytes alone.

sniff(b"GIF89a...")         # "GIF"; None if it is nothing that we read
"""

from __future__ import annotations

from PIL import features

READS_AVIF = features.check("avif")
MAX_BRANDS_END = 256
"""Bytes of a file in which its brands are looked for."""
_AVIF_BRANDS = {b"avif", b"avis"}
"""Of a still image, and of an animated one."""
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""Intel and Motorola order, then the same of BigTIFF."""


def sniff(body: bytes) -> str | None:
    """Pillow's name of a format that we read (WHATWG MIME Sniffing, section 6.1; TIFF 6.0, section 2; AVIF 1.1)."""
    if body.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if body.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if body.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if body.startswith(b"RIFF") and body[8:12] == b"WEBP":
        return "WEBP"
    if body.startswith(_TIFF):
        return "TIFF"
    if READS_AVIF and body[4:8] == b"ftyp" and _AVIF_BRANDS & _brands(body):
        return "AVIF"
    return "BMP" if body.startswith(b"BM") else None


def _brands(body: bytes) -> set[bytes]:
    """Major and compatible brands of a file of ISO boxes (ISO/IEC 14496-12, section 4.3)."""
    end = min(int.from_bytes(body[:4]), len(body), MAX_BRANDS_END)
    return {body[8:12], *(body[at : at + 4] for at in range(16, end - 3, 4))}
