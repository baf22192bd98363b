"""What the synthetic cultures of the growth study are made of."""

RATES = {"wt": 1.2, "slow": 0.8}  # growth at 37 °C, per hour


def slowdown(temperature: float) -> float:
    """The share of that growth at another temperature, in °C."""
    return max(0.1, 1 - 0.06 * abs(37 - temperature))
