"""What can go wrong with a calculation: one error, whose message is written for the model that asked."""


class CalculationError(Exception):
    """There is no result. The message says why in a few words; nothing else is ever raised by a calculation."""
