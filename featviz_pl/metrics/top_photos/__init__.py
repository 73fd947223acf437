"""The photos that activate units most."""
