"""Console scripts: the only modules of this room that know Hydra."""
