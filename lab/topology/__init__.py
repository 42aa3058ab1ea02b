"""The topology language: YAML file -> as-written types -> as-meant model. Pure but for reading the named files."""
