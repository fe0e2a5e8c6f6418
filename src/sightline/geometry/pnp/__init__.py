"""geometry/pnp."""
