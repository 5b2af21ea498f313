"""Seeds: every random draw of a run is a function of (seed, stream, index) and nothing else.

A generator is seeded anew for each step (1 µs), so that there is no state of a random number
generator to save: resuming, evaluating or drawing a grid cannot shift what training draws.
"""

from hashlib import blake2b

_LOW = 0xFFFF_FFFF


class SeedStream:
    """The seeds of one named use of randomness under one seed."""

    def __init__(self, seed: int, name: str) -> None:
        digest = blake2b(f"{name}:{seed}".encode(), digest_size=8).digest()
        self._base = int.from_bytes(digest, "little")

    def at(self, index: int) -> int:
        """The 64-bit seed at ``index``.

        torch's CPU generator keeps the low 32 bits of a seed only; these are a bijection of
        ``index`` (murmur3's finaliser), so no two of the first 2³² indices ever share them.
        """
        low = (self._base + index) & _LOW
        low ^= low >> 16
        low = low * 0x85EBCA6B & _LOW
        low ^= low >> 13
        low = low * 0xC2B2AE35 & _LOW
        low ^= low >> 16
        return (self._base >> 32 << 32) | low
