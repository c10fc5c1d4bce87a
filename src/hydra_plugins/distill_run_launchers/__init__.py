"""Hydra's launchers of the clusters: SLURM and Ray. Hydra finds them by the name of the folder above this one."""
