"""How fast and how large: the shapes that the benchmark runs on."""
