"""From a mixture-of-experts parent and a corpus to a proven specialist."""
