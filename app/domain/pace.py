"""How often the whole registry is read: seldom enough for MLflow to bear, often enough to overlook little."""

SHARE = 9
RELIED_ON = 3


def pause(base: float, took: float, *, worked: bool, healthy: bool) -> float:
    """Seconds from the end of one poll to the beginning of the next one.

    `base` is the setting, `took` how many seconds the last poll lasted and `worked` whether it came to its end,
    `healthy` whether webhooks are known to come. A poll takes at most a tenth of the time, and the poll is less needed
    while webhooks come; one that failed is tried again sooner, for what happened meanwhile nobody has told us.
    """
    if not worked:
        return max(base, took)
    return max(base * RELIED_ON if healthy else base, took * SHARE)
