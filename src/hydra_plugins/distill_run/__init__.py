"""The sweeper and the launchers of this program. Hydra looks for plug-ins here, and loads all of them at each start."""
