def parse(datagram: bytes) -> tuple[object, ...]:
    """Read one datagram, for tests: what the batch does with each, without judging or answering it.

    `("drop", reason)` with a reason's number in DROP_REASONS, `("bad_request", id)`,
    `("price", asset, exchange, max_age_ms, key, id)`, `("prices", assets, exchange, max_age_ms, key, id)`
    or `("summary", key, id)`; what is not there is None, and the key is bytes.
    """
