"""What becomes of a trained student: opening a run again, its file in other formats, its decisions on new images."""
