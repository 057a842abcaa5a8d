"""The shapes of other APIs, in both directions and pure: values and bytes in, values and bytes out.

No sockets, no clock, no randomness, no logging, and no knowledge of FlowGPT's own wire.
"""
