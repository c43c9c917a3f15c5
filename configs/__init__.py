"""Southwell's Hydra configurations, as package data (`pkg://configs`).

`OWNER` lets every command check at start that the `configs` it imported is this one: the name is common, and a folder
or a distribution of the same name can shadow it.
"""

OWNER = "southwell"
