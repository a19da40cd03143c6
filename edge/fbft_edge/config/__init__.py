"""A TOML file and the options of the command line in, a checked `LineConfig` out; opens nothing else."""
