"""Questions asked of a realised lab, and their answers as values."""
