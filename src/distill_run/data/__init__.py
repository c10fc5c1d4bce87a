"""Images: where they come from, how they are split, seen and served."""
