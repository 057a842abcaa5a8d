"""What flowgpt costs beside its peers: `make bench-peers`. They are run as programs, in environments of their own.

`table` says what they are, `clients` and `gateways` measure, `programs/` is run by the peers' own interpreters.
Nothing here imports a peer.
"""
