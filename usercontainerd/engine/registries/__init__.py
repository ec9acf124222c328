"""How registries are reached, searched and trusted."""
