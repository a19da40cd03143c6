"""The contract on disk: manifest, notes, files, engines, signature; sealing stands apart from reading."""
