"""The benchmark's jobs: every step of the ladder does the same job as the engine, in a process of its own."""
