"""Run by the interpreters of the peers, which alone have what is imported here."""
