"""What Hydra takes from packages of this name alone, and loads at every start."""
