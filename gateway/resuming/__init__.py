"""Streams that outlive their connection: recorded while they are made, read from anywhere, by whoever began them.

GatewayError
├── EventsLost       410; they have fallen off the log, the message says from where it can be read
├── StreamCancelled  how a stream ends that was told to, or that nobody came back to
├── StreamNotFound   404; never begun, forgotten, or somebody else's
└── TooManyStreams   429; all places are taken by answers that are still being made
"""
