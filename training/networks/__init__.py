"""The networks as torch modules, without data and without files."""
