"""The nouns of a cluster: nodes, partition table, bootstrap. Pure."""
