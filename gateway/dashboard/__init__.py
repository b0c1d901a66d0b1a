"""The page at `/`: what the gateway is doing right now, and a playground to talk to it."""
