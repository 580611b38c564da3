"""One YAML file for the whole cluster, read once into frozen sections.

`sections` has every key, default and unit; `values` the texts that a value may be written as; `rules` what must hold
between keys; `loader` the file, its line numbers, the environment and the command line.
"""
