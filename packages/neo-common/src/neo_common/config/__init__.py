"""The one YAML file: sections, loader."""
