"""FlowGPT's wire, in both directions and pure: bytes and values in, bytes and values out.

No sockets, no clock, no randomness, no logging: time and nonce come in as arguments. What the provider encodes, the
embedded server decodes, and the other way round. Source of every fact: docs/protocol.md.
"""
