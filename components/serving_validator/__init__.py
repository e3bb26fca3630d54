"""ServingValidator: does a candidate model serve, does it answer as it was evaluated, and fast enough."""
