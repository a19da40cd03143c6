"""The contract on disk: manifest, files, engines, signature; sealing stands apart from reading."""
