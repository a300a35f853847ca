"""How fast a step of coefficient learning is, beside other implementations: `make bench`."""
