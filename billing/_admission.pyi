def hash_key(text: bytes, *, portable: bool = False) -> bytes:
    """Give the SHA-256 of *text*, by the way this processor is fastest at or by the portable one."""
