"""g4f's API, with the upstream as its provider: `python -m benchmarks.peers.programs.g4f_api PORT ORIGIN`."""

from __future__ import annotations

import sys

from g4f.client.factory import AbstractClientFactory


def main(port: str, origin: str) -> None:
    """Serve until terminated."""
    # Its import would ask its makers' site for a list of providers: here is one, of the upstream alone.
    only = {"providers": {"default": {"baseUrl": f"{origin}/v1"}}, "defaultModels": {}}
    AbstractClientFactory._live_providers = only

    from g4f.api import AppConfig, run_api
    from g4f.Provider.needs_auth.Custom import Custom

    Custom.base_url = f"{origin}/v1"
    AppConfig.set_config(provider="Custom", ignore_cookie_files=True, gui=False)
    run_api(host="127.0.0.1", port=int(port), access_log=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
